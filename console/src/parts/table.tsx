/** A table that draws only the rows in view, so 100,000 rows scroll as smoothly as ten. */

import { useVirtualizer } from "@tanstack/react-virtual";
import { type CSSProperties, memo, type ReactNode, useCallback, useEffect, useMemo, useRef } from "react";

const ROW_PX = 44;

export interface Column<R> {
  name: string;
  /** Width as a track of CSS grid. */
  width: string;
  cell: (row: R) => ReactNode;
  /** Whether the column is left out at the width of a phone. */
  isMinor?: boolean;
  /** Whether the column is left out of a narrow window, so that other columns show their texts whole. */
  isOnlyWide?: boolean;
}

interface Props<R> {
  label: string;
  columns: Column<R>[];
  rows: R[];
  rowKey: (row: R) => string;
  /** Called when the last loaded row comes into view. */
  onEnd?: () => void;
  selected?: ReadonlySet<string>;
  onSelect?: (keys: ReadonlySet<string>) => void;
}

/** The tracks of all columns, and of the columns of a narrow window, as properties for the style sheet. */
function tracksOf<R>(columns: Column<R>[], isSelectable: boolean): CSSProperties {
  const join = (shown: Column<R>[]) => [...(isSelectable ? ["2.5rem"] : []), ...shown.map((column) => column.width)].join(" ");
  return { "--tracks": join(columns), "--fewer": join(columns.filter((column) => !column.isOnlyWide)) } as CSSProperties;
}

function classOf<R>({ isMinor, isOnlyWide }: Column<R>): string {
  return [isMinor && "minor", isOnlyWide && "wide"].filter(Boolean).join(" ");
}

export function VirtualTable<R>({ label, columns, rows, rowKey, onEnd, selected, onSelect }: Props<R>) {
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 12,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? -1;
  useEffect(() => {
    if (rows.length > 0 && last >= rows.length - 1) onEnd?.();
  }, [last, rows.length, onEnd]);
  const isSelectable = onSelect !== undefined;
  const tracks = useMemo(() => tracksOf(columns, isSelectable), [columns, isSelectable]);
  const isAll = !!selected?.size && rows.every((row) => selected.has(rowKey(row)));
  // One function for all renderings, so that a row is drawn again only if it changed.
  const latest = useRef<(key: string) => void>(undefined);
  latest.current = (key) => {
    const next = new Set(selected);
    if (!next.delete(key)) next.add(key);
    onSelect?.(next);
  };
  const toggle = useCallback((key: string) => latest.current?.(key), []);
  return (
    <div className="table" role="table" aria-label={label} aria-rowcount={rows.length + 1}>
      <div role="rowgroup">
        <div className="row head" role="row" style={tracks}>
          {onSelect && (
            <span role="columnheader">
              <input
                type="checkbox"
                aria-label="Select all loaded rows"
                checked={isAll}
                onChange={() => onSelect(new Set(isAll ? [] : rows.map(rowKey)))}
              />
            </span>
          )}
          {columns.map((column) => (
            <span key={column.name} role="columnheader" className={classOf(column)}>
              {column.name}
            </span>
          ))}
        </div>
      </div>
      <div className="scroller" role="rowgroup" ref={scroller} tabIndex={0}>
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: "relative" }}>
          {items.map((item) => {
            const row = rows[item.index]!;
            const key = rowKey(row);
            return (
              <TableRow
                key={key}
                row={row}
                name={key}
                columns={columns as Column<unknown>[]}
                tracks={tracks}
                index={item.index}
                start={item.start}
                isSelected={onSelect && (selected?.has(key) ?? false)}
                onToggle={toggle}
              />
            );
          })}
        </div>
      </div>
    </div>
  );
}

interface RowProps {
  row: unknown;
  name: string;
  columns: Column<unknown>[];
  tracks: CSSProperties;
  index: number;
  start: number;
  /** Undefined if rows cannot be selected. */
  isSelected: boolean | undefined;
  onToggle: (name: string) => void;
}

const TableRow = memo(function TableRow({ row, name, columns, tracks, index, start, isSelected, onToggle }: RowProps) {
  return (
    <div className="row" role="row" aria-rowindex={index + 2} data-selected={isSelected ?? false} style={{ ...tracks, transform: `translateY(${start}px)` }}>
      {isSelected !== undefined && (
        <span role="cell">
          <input type="checkbox" aria-label={`Select ${name}`} checked={isSelected} onChange={() => onToggle(name)} />
        </span>
      )}
      {columns.map((column) => (
        <span key={column.name} role="cell" className={classOf(column)}>
          {column.cell(row)}
        </span>
      ))}
    </div>
  );
});

/** Small charts: columns over time. */

const WIDTH = 10;
const GAP = 2;
const HEIGHT = 32;

interface Props {
  values: number[];
  /** What the chart shows in all, for those who do not see it. */
  summary: string;
  /** The words for one column, shown on hover. */
  label: (value: number, at: number) => string;
  /** Values on top of `values`, in the colour of a denial. */
  above?: number[];
}

/** Columns of equal width, the highest as high as the chart. */
export function Columns({ values, summary, label, above }: Props) {
  const most = Math.max(...values.map((value, at) => value + (above?.[at] ?? 0)), 1);
  const height = (value: number) => (HEIGHT * value) / most;
  return (
    <svg className="columns" viewBox={`0 0 ${values.length * (WIDTH + GAP) - GAP} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={summary}>
      {values.map((value, at) => {
        const [low, high] = [height(value), height(above?.[at] ?? 0)];
        const x = at * (WIDTH + GAP);
        return (
          <g key={at} aria-hidden="true">
            <title>{label(value, at)}</title>
            <rect className="ground" x={x} width={WIDTH} height={HEIGHT} />
            <rect x={x} y={HEIGHT - low} width={WIDTH} height={low} />
            {high > 0 && <rect className="bad" x={x} y={HEIGHT - low - high} width={WIDTH} height={high} />}
          </g>
        );
      })}
    </svg>
  );
}

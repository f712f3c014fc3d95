/** An editor for policies: highlighted text, and words that complete it. */

import { type KeyboardEvent, useId, useMemo, useRef, useState } from "react";
import { type Completion, complete, type Schema, tokenize } from "./cedar";

/** Characters of a text that is highlighted; a longer one is shown plain. */
const MAX_HIGHLIGHTED = 200_000;

/** A text with its tokens in colours. */
export function Highlighted({ name, text }: { name: string; text: string }) {
  const tokens = useMemo(() => (text.length > MAX_HIGHLIGHTED ? [] : tokenize(name, text)), [name, text]);
  if (text.length > MAX_HIGHLIGHTED) return text;
  return (
    <>
      {tokens.map(([kind, part], at) => (kind === "plain" ? part : <span key={at} className={`token-${kind}`}>{part}</span>))}
    </>
  );
}

interface Props {
  name: string;
  text: string;
  schema: Schema | undefined;
  onChange: (text: string) => void;
}

interface Offer {
  words: Completion[];
  typed: number;
  chosen: number;
  /** Place of the cursor. */
  line: number;
  column: number;
}

/**
 * A text field over a copy of its text in colours. A point, `@` and a quoted action offer words, and so does Ctrl+Space;
 * Tab leaves the field unless words are offered, so the keyboard is never caught.
 */
export function Editor({ name, text, schema, onChange }: Props) {
  const field = useRef<HTMLTextAreaElement>(null);
  const [offer, setOffer] = useState<Offer | null>(null);
  const id = useId();
  const propose = (value: string, cursor: number, isAsked: boolean) => {
    if (!schema || !name.endsWith(".cedar")) return setOffer(null);
    const before = value.slice(0, cursor);
    const { words, typed } = complete(before, schema);
    const isNatural = /[.@"]\w*$|\w{2,}$/.test(before);
    const lines = before.split("\n");
    const column = lines.at(-1)!.length - typed;
    setOffer(words.length > 0 && (isAsked || isNatural) ? { words, typed, chosen: 0, line: lines.length, column } : null);
  };
  const accept = ({ words, typed }: Offer, at: number) => {
    const area = field.current!;
    area.focus();
    area.setSelectionRange(area.selectionStart - typed, area.selectionStart);
    document.execCommand("insertText", false, words[at]!.word); // the only way that keeps the undo history of the field
    setOffer(null);
  };
  const press = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      return propose(text, event.currentTarget.selectionStart, true);
    }
    if (!offer) return;
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) setOffer({ ...offer, chosen: (offer.chosen + move + offer.words.length) % offer.words.length });
    else if (event.key === "Enter" || event.key === "Tab") accept(offer, offer.chosen);
    else if (event.key === "Escape") setOffer(null);
    else return;
    event.preventDefault();
  };
  return (
    <div className="editor">
      <div className="editor-text">
        <pre aria-hidden="true">
          <Highlighted name={name} text={`${text}\n`} />
        </pre>
        <textarea
          ref={field}
          aria-label={`Text of ${name}`}
          aria-autocomplete="list"
          aria-controls={offer ? id : undefined}
          aria-activedescendant={offer ? `${id}-${offer.chosen}` : undefined}
          value={text}
          wrap="off"
          spellCheck={false}
          autoCapitalize="off"
          onChange={(event) => {
            onChange(event.target.value);
            propose(event.target.value, event.target.selectionStart, false);
          }}
          onKeyDown={press}
          onBlur={() => setOffer(null)}
        />
        {offer && (
          <ul
            className="offer"
            id={id}
            role="listbox"
            aria-label="Words that may follow"
            style={{ top: `calc(${offer.line} * var(--row) + var(--s3))`, left: `calc(${offer.column} * 1ch + var(--s4))` }}
          >
            {offer.words.map(({ word, type, note }, at) => (
              <li
                key={word}
                id={`${id}-${at}`}
                role="option"
                aria-selected={at === offer.chosen}
                onMouseDown={(event) => {
                  event.preventDefault(); // the field keeps the focus
                  accept(offer, at);
                }}
              >
                <code>{word}</code> <span className="muted">{[type, note].filter(Boolean).join(": ")}</span>
              </li>
            ))}
          </ul>
        )}
      </div>
    </div>
  );
}

/** A dialog that asks before something changes: it names what changes and how many, and takes a reason. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import { Problem } from "./basics";

interface Props {
  title: string;
  /** What will happen, to what, and to how many. */
  children: ReactNode;
  /** Text of the button that confirms. */
  verb: string;
  isDangerous?: boolean;
  /** Whether a reason is asked for; it is kept in the ledger. */
  needsReason?: boolean;
  /** Whether the dialog stays open after the action, to show its result. */
  stays?: boolean;
  onConfirm: (reason: string) => Promise<unknown>;
  onClose: () => void;
}

export function ActionDialog({ title, children, verb, isDangerous, needsReason, stays, onConfirm, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [reason, setReason] = useState("");
  const id = useId();
  const client = useQueryClient();
  const action = useMutation({
    mutationFn: () => onConfirm(reason.trim()),
    onSuccess: async () => {
      if (stays) return;
      onClose();
      await client.invalidateQueries();
    },
  });
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          action.mutate();
        }}
      >
        <h2 id={id}>{title}</h2>
        <div className="dialog-body">{children}</div>
        {needsReason && (
          <label className="field">
            Reason
            <textarea value={reason} onChange={(event) => setReason(event.target.value)} required maxLength={500} />
            <span className="hint">The reason is kept in the ledger with your name.</span>
          </label>
        )}
        {action.isError && <Problem error={action.error} />}
        <div className="actions end">
          <button type="button" onClick={onClose}>
            {stays ? "Close" : "Cancel"}
          </button>
          <button className={isDangerous ? "primary danger" : "primary"} disabled={action.isPending}>
            {action.isPending ? "Working…" : verb}
          </button>
        </div>
      </form>
    </dialog>
  );
}

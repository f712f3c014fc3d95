/** Tests of connections: a request that has an effect at the other end, and the wait until the effect is seen. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { Badge } from "./basics";

const ASK_AGAIN_MS = 1_000;
const PATIENCE_MS = 30_000;

export interface Probe {
  start: () => void;
  isRunning: boolean;
  /** Whether the effect of the test was seen at a row: undefined before the first test. */
  hasArrived: (id: string, mark: string) => boolean | undefined;
  error: unknown;
}

/** Run a test, then read a list again until the mark of each row has changed, at most half a minute. */
export function useProbe(run: () => Promise<unknown>, marks: Record<string, string>, queryKey: string[]): Probe {
  const client = useQueryClient();
  const [before, setBefore] = useState<Record<string, string> | null>(null);
  const [isWaiting, setWaiting] = useState(false);
  const test = useMutation({
    mutationFn: run,
    onMutate: () => setBefore(marks),
    onSuccess: () => setWaiting(true),
  });
  const isDone = before !== null && Object.keys(before).every((id) => marks[id] !== before[id]);
  useEffect(() => {
    if (!isWaiting) return;
    if (isDone) return setWaiting(false);
    const ask = setInterval(() => void client.invalidateQueries({ queryKey }), ASK_AGAIN_MS);
    const end = setTimeout(() => setWaiting(false), PATIENCE_MS);
    return () => {
      clearInterval(ask);
      clearTimeout(end);
    };
  }, [isWaiting, isDone, client, queryKey.join()]);
  return {
    start: () => test.mutate(),
    isRunning: test.isPending || isWaiting,
    hasArrived: (id, mark) => (before === null || !(id in before) || test.isError ? undefined : mark !== before[id]),
    error: test.error,
  };
}

export function ProbeButton({ probe, children }: { probe: Probe; children: string }) {
  return (
    <button className="small" onClick={probe.start} disabled={probe.isRunning}>
      {probe.isRunning ? "Testing…" : children}
    </button>
  );
}

/** The result of a test at one row. */
export function ProbeResult({ probe, id, mark }: { probe: Probe; id: string; mark: string }) {
  const hasArrived = probe.hasArrived(id, mark);
  if (hasArrived === undefined) return null;
  if (hasArrived) return <Badge tone="good">test arrived</Badge>;
  return probe.isRunning ? <Badge tone="info">waiting</Badge> : <Badge tone="bad">no answer</Badge>;
}

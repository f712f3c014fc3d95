/** Secrets: who read a value last, when it changed, what rotates it, which leases are in force, and the seal. */

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { get, post } from "../api";
import { Badge, count, Empty, More, PageHead, Time, type Tone } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { Row, Rows, Section, useList } from "../parts/sections";
import type { SecretSearch } from "../queries";
import { useMay } from "../session";

const PAGE_ROWS = 100;
const STALE_DAYS = 90;
const STUCK_ATTEMPTS = 4;
const ONLY = { "": "All values", unread: "Never read", stale: `Not changed for ${STALE_DAYS} days` } as const;

interface SecretUse {
  path: string;
  version: number;
  rotated_at: number;
  read_at: number | null;
  read_by: string | null;
  is_canary: boolean;
}

interface Rotation {
  path: string;
  member: string;
  url: string;
  command: string;
  registration: string;
  period: number;
  grace: number;
  last_at: number | null;
  next_at: number | null;
  retire_at: number | null;
  attempts: number;
  error: string;
}

interface Lease {
  lease_id: string;
  agent_name: string;
  database: string;
  username: string;
  state: string;
  issued_at: number;
  expires_at: number;
  attempts: number;
  error: string;
}

interface Seal {
  sealed: boolean;
  sealed_at: number | null;
  unseal_key: string | null;
  wrapping_keys: { number: number; state: string; created_at: number }[];
}

const DURATIONS: [string, number][] = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

function duration(seconds: number): string {
  const [name, length] = DURATIONS.find(([, one]) => seconds % one === 0 && seconds >= one) ?? ["second", 1];
  return count(seconds / length, name);
}

export function Secrets() {
  const may = useMay();
  return (
    <>
      <PageHead title="Secrets" lead="Who reads which value, when it changed last, and what would end. No value is shown here." />
      <Values />
      {may("GET /secrets/rotations") && <Rotations />}
      {may("GET /leases") && <Leases />}
      {may("GET /secrets/seal") && <SealState />}
    </>
  );
}

/** The rotations by the path of their secret. */
function useRotations() {
  return useList<{ rotations: Rotation[] }>("/secrets/rotations");
}

function Values() {
  const search: SecretSearch = useSearch({ strict: false });
  const navigate = useNavigate();
  const may = useMay();
  const [deleted, setDeleted] = useState<SecretUse | null>(null);
  const folder = search.folder ?? "secret/";
  const list = useInfiniteQuery({
    queryKey: ["secrets", folder, search.only],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) =>
      get<{ secrets: SecretUse[]; next: string | null }>("/secrets/uses", {
        folder,
        never_read: search.only === "unread" ? "true" : undefined,
        not_rotated_for: search.only === "stale" ? STALE_DAYS : undefined,
        limit: PAGE_ROWS,
        after: pageParam,
      }),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const rotations = useRotations().data?.rotations ?? [];
  const rows = list.data?.pages.flatMap((page) => page.secrets) ?? [];
  const narrow = (change: SecretSearch) => void navigate({ to: "/secrets", search: { ...search, ...change }, replace: true });
  return (
    <Section
      id="values"
      title="Stored values"
      lead="The last reader of each value, and the time of its last change."
      query={list}
      action={
        <search className="actions">
          <label>
            <span className="hidden">Folder</span>
            <input
              key={folder}
              className="narrow"
              defaultValue={folder}
              maxLength={512}
              onBlur={(event) => narrow({ folder: event.target.value === "secret/" ? undefined : event.target.value })}
              onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
            />
          </label>
          <label>
            <span className="hidden">Show</span>
            <select value={search.only ?? ""} onChange={(event) => narrow({ only: event.target.value || undefined })}>
              {Object.entries(ONLY).map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          </label>
        </search>
      }
    >
      <Rows
        empty={
          search.only ? (
            <Empty title="No value matches">Choose all values to see the others.</Empty>
          ) : (
            <Empty title="No value is stored in this folder">
              Store one: <code>ostiary secret put secret/app/db password=…</code>
            </Empty>
          )
        }
      >
        {rows.map((one) => {
          const rotation = rotations.find(({ path }) => path === one.path);
          const [state, tone] = stateOf(one, rotation);
          return (
            <Row
              key={one.path}
              name={<bdi>{one.path}</bdi>}
              state={state}
              tone={tone}
              action={
                <>
                  {rotation && <RotateButton rotation={rotation} />}
                  {may("POST /secrets/delete") && (
                    <button className="small danger" aria-label={`Delete ${one.path}`} onClick={() => setDeleted(one)}>
                      Delete
                    </button>
                  )}
                </>
              }
            >
              version {one.version}, changed <Time at={one.rotated_at} />
              {one.read_at !== null && (
                <>
                  ; last read by <bdi>{one.read_by}</bdi> <Time at={one.read_at} />
                </>
              )}
            </Row>
          );
        })}
      </Rows>
      <More pages={list}>Show more values</More>
      {deleted && (
        <ActionDialog
          title={`Delete ${deleted.path}`}
          verb="Delete the secret"
          isDangerous
          onClose={() => setDeleted(null)}
          onConfirm={() => post("/secrets/delete", { path: deleted.path, versions: "all" })}
        >
          <p>
            1 secret ends for good, with all its versions up to {deleted.version}. {deleted.read_by ? <><bdi>{deleted.read_by}</bdi> read it last.</> : "Its value was never read."}
          </p>
          <p>Who has read the value still has it: replace it at the service that accepts it.</p>
        </ActionDialog>
      )}
    </Section>
  );
}

function stateOf(use: SecretUse, rotation: Rotation | undefined): [string, Tone] {
  if (use.is_canary) return ["canary", "info"];
  if (rotation?.error) return ["rotation fails", "bad"];
  if (use.read_at === null) return ["never read", "warn"];
  return rotation ? ["rotates", "good"] : ["read", "plain"];
}

/** The place that accepts new values: a URL, a command of the server, or the registration of an OAuth client. */
function serviceOf({ url, command, registration }: Rotation): string {
  return url || registration || `the command ${command}`;
}

function RotateButton({ rotation }: { rotation: Rotation }) {
  const [isAsking, setAsking] = useState(false);
  if (!useMay()("POST /secrets/rotate")) return null;
  return (
    <>
      <button className="small" aria-label={`Rotate now: ${rotation.path}`} onClick={() => setAsking(true)}>
        Rotate now
      </button>
      {isAsking && (
        <ActionDialog
          title={`Rotate ${rotation.path}`}
          verb="Rotate now"
          isDangerous
          onClose={() => setAsking(false)}
          onConfirm={() => post("/secrets/rotate", { path: rotation.path })}
        >
          <p>
            1 value is replaced: the member <code>{rotation.member}</code>, once <bdi>{serviceOf(rotation)}</bdi> has accepted the new value.
          </p>
          <p>
            {rotation.grace > 0
              ? `The present value stays in force at the service for ${duration(rotation.grace)}.`
              : "The present value ends at the service at once: agents read the secret again."}
          </p>
        </ActionDialog>
      )}
    </>
  );
}

function Rotations() {
  const rotations = useRotations();
  return (
    <Section id="rotations" title="Rotations" lead="Values that the server replaces on a schedule, at the service that accepts them." query={rotations} next={rotations.data?.next}>
      <Rows
        empty={
          <Empty title="No value rotates">
            Let one rotate: <code>ostiary secret rotation put</code>
          </Empty>
        }
      >
        {(rotations.data?.rotations ?? []).map((one) => (
          <Row
            key={one.path}
            name={<bdi>{one.path}</bdi>}
            state={one.next_at === null ? "cancelled" : one.error ? "failing" : one.retire_at ? "old value in force" : "on schedule"}
            tone={one.next_at === null ? "warn" : one.error ? "bad" : one.retire_at ? "info" : "good"}
            action={<RotateButton rotation={one} />}
          >
            every {duration(one.period)} at <bdi>{serviceOf(one)}</bdi>; last <Time at={one.last_at} />{one.next_at !== null && <>, next <Time at={one.next_at} /></>}
            {one.retire_at && <>; the old value ends <Time at={one.retire_at} /></>}
            <Failure {...one} />
          </Row>
        ))}
      </Rows>
    </Section>
  );
}

/** The last error of work that the server repeats, with the number of attempts; nothing without an error. */
function Failure({ attempts, error }: { attempts: number; error: string }) {
  if (!error) return null;
  return (
    <bdi className="next-step">
      {count(attempts, "attempt")}: {error}
    </bdi>
  );
}

const LEASE_STATES: Record<string, Tone> = { live: "good", creating: "info", revoking: "warn" };

function Leases() {
  const may = useMay();
  const [revoked, setRevoked] = useState<Lease | null>(null);
  const leases = useList<{ leases: Lease[] }>("/leases");
  return (
    <Section id="leases" title="Leases" lead="Accounts and tokens that were made for one agent, and end with its task." query={leases} next={leases.data?.next}>
      <Rows empty={<Empty title="No lease is in force">A lease begins when an agent reads the credentials of a database or of a connected account.</Empty>}>
        {(leases.data?.leases ?? []).map((one) => {
          const isStuck = one.state === "revoking" && one.attempts >= STUCK_ATTEMPTS;
          return (
            <Row
              key={one.lease_id}
              name={
                <Link to="/agents/$name" params={{ name: one.agent_name }}>
                  <bdi>{one.agent_name}</bdi>
                </Link>
              }
              state={isStuck ? "stuck" : one.state}
              tone={isStuck ? "bad" : (LEASE_STATES[one.state] ?? "plain")}
              action={
                may("POST /leases/revoke") && (
                  <button className="small danger" aria-label={`${isStuck ? "Forget" : "Revoke"} the lease of ${one.agent_name} at ${one.database}`} onClick={() => setRevoked(one)}>
                    {isStuck ? "Forget" : "Revoke"}
                  </button>
                )
              }
            >
              <bdi>{one.username}</bdi> at <bdi>{one.database}</bdi>, since <Time at={one.issued_at} />, ends <Time at={one.expires_at} />
              <Failure {...one} />
            </Row>
          );
        })}
      </Rows>
      {revoked && <Revocation lease={revoked} onClose={() => setRevoked(null)} />}
    </Section>
  );
}

function Revocation({ lease, onClose }: { lease: Lease; onClose: () => void }) {
  const isStuck = lease.state === "revoking" && lease.attempts >= STUCK_ATTEMPTS;
  const what = lease.lease_id.startsWith("oauth/") ? "access token" : "account";
  return (
    <ActionDialog
      title={`${isStuck ? "Forget" : "Revoke"} the lease of ${lease.agent_name}`}
      verb={isStuck ? "Forget the lease" : "Revoke the lease"}
      isDangerous
      onClose={onClose}
      onConfirm={() => post("/leases/revoke", { lease_id: lease.lease_id, forget: isStuck })}
    >
      {isStuck ? (
        <p>
          1 lease is deleted here, but the {what} <bdi>{lease.username}</bdi> at <bdi>{lease.database}</bdi> may still exist. Remove it there yourself.
        </p>
      ) : (
        <p>
          1 {what} ends now: <bdi>{lease.username}</bdi> at <bdi>{lease.database}</bdi>. The agent <bdi>{lease.agent_name}</bdi> may ask for another one while its task lasts.
        </p>
      )}
    </ActionDialog>
  );
}

function SealState() {
  const may = useMay();
  const [isAsking, setAsking] = useState(false);
  const seal = useQuery({ queryKey: ["seal"], queryFn: () => get<Seal>("/secrets/seal") });
  return (
    <Section
      id="seal"
      title="Seal"
      lead="While the secrets are sealed, no value can be read or written. Stops and revocations go on."
      query={seal}
      action={
        may("POST /secrets/seal") &&
        seal.data?.sealed === false && (
          <button className="small danger" onClick={() => setAsking(true)}>
            Seal the secrets
          </button>
        )
      }
    >
      {seal.data && (
        <p className="small">
          <Badge tone={seal.data.sealed ? "bad" : "good"}>{seal.data.sealed ? "sealed" : "open"}</Badge>{" "}
          {seal.data.sealed ? (
            <>
              since <Time at={seal.data.sealed_at} />. Open them with the unseal key: <code>ostiary secret unseal</code>
            </>
          ) : (
            seal.data.wrapping_keys.map((key) => (
              <span key={key.number}>
                wrapping key {key.number} ({key.state}), made <Time at={key.created_at} />{" "}
              </span>
            ))
          )}
        </p>
      )}
      {isAsking && (
        <ActionDialog title="Seal the secrets" verb="Seal all secrets" isDangerous onClose={() => setAsking(false)} onConfirm={() => post("/secrets/seal")}>
          <p>Every stored value and every connected account of this server is closed to all agents and people, until someone brings the unseal key of the last seal.</p>
          <p>The server keeps nothing that opens them.</p>
        </ActionDialog>
      )}
    </Section>
  );
}

/** Certificates that the authority has issued, and the authorities themselves. */

import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { get, post } from "../api";
import { Empty, More, PageHead, Time, type Tone } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { REFRESH_MS, Row, Rows, Section, useList } from "../parts/sections";
import { every } from "../queries";
import { useMay } from "../session";

interface Certificate {
  serial: string;
  state: string;
  reason: string;
  profile: string;
  holder: string;
  holder_id: string;
  names: string[];
  not_after: number;
}

interface Authority {
  authority_id: string;
  kind: "root" | "intermediate" | "responder";
  state: string;
  subject: string;
  key_type: string;
  not_after: number;
  active_from: number | null;
}

const STATES: Record<string, Tone> = { live: "good", on_hold: "warn", revoked: "bad", active: "good", pending: "info" };
const COMPROMISED = { reason: "keyCompromise" };
const PAGE_ROWS = 50;

export function Certificates() {
  const may = useMay();
  return (
    <>
      <PageHead title="Certificates" lead="What this server has certified for agents, people and itself, and the authorities that sign." />
      <Issued />
      {may("GET /authorities") && <Authorities />}
    </>
  );
}

function Issued() {
  const may = useMay();
  const [revoked, setRevoked] = useState<Certificate | null>(null);
  const { holder }: { holder?: string } = useSearch({ strict: false });
  const navigate = useNavigate();
  const list = useInfiniteQuery({
    queryKey: ["certificates", holder],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) =>
      get<{ certificates: Certificate[]; next: string | null }>("/certificates", { holder, limit: PAGE_ROWS, after: pageParam }),
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: every(REFRESH_MS),
  });
  const rows = list.data?.pages.flatMap((page) => page.certificates) ?? [];
  return (
    <Section
      id="certificates"
      title="Issued certificates"
      lead="The newest first. A certificate ends with its agent and its task."
      query={list}
      action={
        <search className="actions">
          <label>
            <span className="hidden">Holder</span>
            <input
              key={holder}
              className="narrow"
              placeholder="agent or person"
              defaultValue={holder}
              maxLength={128}
              onBlur={(event) => void navigate({ to: "/certificates", search: { holder: event.target.value.trim() || undefined }, replace: true })}
              onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
            />
          </label>
        </search>
      }
    >
      <Rows
        empty={
          holder ? (
            <Empty title="No certificate of this holder">Remove the name to see the certificates of all holders.</Empty>
          ) : (
            <Empty title="No certificate is issued">
              Issue one: <code>ostiary cert issue --as agent.json --dir DIR</code>
            </Empty>
          )
        }
      >
        {rows.map((one) => (
          <Row
            key={one.serial}
            name={
              one.holder_id.startsWith("ag_") ? (
                <Link to="/agents/$name" params={{ name: one.holder }}>
                  <bdi>{one.holder}</bdi>
                </Link>
              ) : (
                <bdi>{one.holder || "this server"}</bdi>
              )
            }
            state={one.state === "on_hold" ? "on hold" : one.state}
            tone={STATES[one.state] ?? "plain"}
            action={
              may("POST /certificates/{serial}/revoke") &&
              ["live", "on_hold"].includes(one.state) && (
                <button className="small danger" aria-label={`Revoke ${one.serial}`} onClick={() => setRevoked(one)}>
                  Revoke
                </button>
              )
            }
          >
            <bdi>{one.names.join(" ")}</bdi>; {one.profile}, ends <Time at={one.not_after} />
            {one.reason && <> ({one.reason})</>}
          </Row>
        ))}
      </Rows>
      <More pages={list}>Show older certificates</More>
      {revoked && (
        <ActionDialog
          title="Revoke a certificate"
          verb="Revoke the certificate"
          isDangerous
          onClose={() => setRevoked(null)}
          onConfirm={() => post(`/certificates/${revoked.serial}/revoke`, {})}
        >
          <p>
            1 certificate of <bdi>{revoked.holder || "this server"}</bdi> ends for good, with everything that was obtained with it: <bdi>{revoked.names.join(" ")}</bdi>
          </p>
          <p>The holder may get another one. To stop an agent, suspend it instead.</p>
        </ActionDialog>
      )}
    </Section>
  );
}

function Authorities() {
  const may = useMay();
  const [rotated, setRotated] = useState<"root" | "intermediate" | null>(null);
  const [revoked, setRevoked] = useState<Authority | null>(null);
  const list = useList<{ authorities: Authority[] }>("/authorities");
  const authorities = list.data?.authorities ?? [];
  return (
    <Section
      id="authorities"
      title="Authorities"
      lead="The root that clients trust, the intermediate that signs certificates, and its OCSP responder."
      query={list}
      action={
        may("POST /authorities/rotate") &&
        authorities.length > 0 && (
          <span className="actions">
            <button className="small" onClick={() => setRotated("intermediate")}>
              Replace the intermediate
            </button>
            <button className="small" onClick={() => setRotated("root")}>
              Replace the root
            </button>
          </span>
        )
      }
    >
      <Rows
        empty={
          <Empty title="No authority exists yet">
            The first certificate creates the authorities. To choose their keys: <code>ostiary ca init</code>
          </Empty>
        }
      >
        {authorities.map((one) => (
          <Row
            key={one.authority_id}
            name={one.kind}
            state={one.state}
            tone={STATES[one.state] ?? "plain"}
            action={
              may("POST /authorities/{id}/revoke") &&
              one.kind === "intermediate" &&
              !["revoked", "pending"].includes(one.state) && (
                <button className="small danger" aria-label={`Revoke ${one.subject}`} onClick={() => setRevoked(one)}>
                  Revoke
                </button>
              )
            }
          >
            <bdi>{one.subject}</bdi>, {one.key_type}, ends <Time at={one.not_after} />
          </Row>
        ))}
      </Rows>
      {rotated && (
        <ActionDialog title={`Replace the ${rotated}`} verb={`Replace the ${rotated}`} isDangerous onClose={() => setRotated(null)} onConfirm={() => post("/authorities/rotate", { kind: rotated })}>
          {rotated === "root" ? (
            <p>1 new root is in the trust bundle at once, and signs after 10 minutes. The old root certifies it too, so clients with the old bundle go on.</p>
          ) : (
            <p>1 new intermediate signs at once. Certificates of the present one stay valid until they expire.</p>
          )}
        </ActionDialog>
      )}
      {revoked && (
        <ActionDialog
          title="Revoke an intermediate"
          verb="Revoke the intermediate"
          isDangerous
          onClose={() => setRevoked(null)}
          onConfirm={() => post(`/authorities/${revoked.authority_id}/revoke`, COMPROMISED)}
        >
          <p>
            Every certificate of <bdi>{revoked.subject}</bdi> ends for good, because its key may be known to others. A new intermediate replaces an active one at once.
          </p>
        </ActionDialog>
      )}
    </Section>
  );
}

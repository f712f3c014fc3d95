/** Connections: guards, resources, webhooks, signals and trust, each with its state, what to do next, and a test. */

import { useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { get, post, send } from "../api";
import { Badge, count, Empty, PageHead, Problem, Time, type Tone } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { ProbeButton, ProbeResult, useProbe } from "../parts/probe";
import { REFRESH_MS, Row, Rows, Section, useList } from "../parts/sections";
import { every } from "../queries";
import { useMay } from "../session";

const SOON_S = 30 * 86_400;

interface Resource {
  resource_id: string;
  name: string;
  uri: string;
  mode: string;
  catalogue_hash: string | null;
}

interface Guard {
  resource_id: string;
  stream: string;
  since: number;
  ms: number | null;
}

interface Webhook {
  webhook_id: string;
  url: string;
  form: string;
  events: string[];
  state: "ok" | "failing" | "gone";
  delivered: number;
  delivered_at: number | null;
  lost: number;
  attempts: number;
  failed: string | null;
  secret?: string;
}

interface Issuer {
  issuer_id: string;
  issuer: string;
  method: string;
  heard: number;
  heard_at: number | null;
  verified_at: number | null;
  trouble: string | null;
}

interface Stream {
  stream_id: string;
  receiver: string;
  method: string;
  status: string;
  delivered: number;
  delivered_at: number | null;
  lost: number;
  failed: string | null;
}

interface Anchor {
  name: string;
  subject: string;
  is_own: boolean;
  not_after: number;
}

interface TrustDomain {
  name: string;
  bundle_url: string;
  authorities: number;
  refreshed_at: number | null;
  failed: string;
}

interface ThreatList {
  name: string;
  url: string;
  count: number;
  refreshed_at: number | null;
  failed: string | null;
}

interface ListChange {
  count: number | null;
  new: number | null;
  gone: number | null;
  skipped: number | null;
  failed: string | null;
}

interface Line {
  name: string;
  state: "ok" | "weak" | "fail";
  saw: string;
  hint: string;
  ms: number;
}

export function Connections() {
  const may = useMay();
  return (
    <>
      <PageHead title="Connections" lead="What this server is connected to, whether it works, and what to do next." />
      {may("GET /doctor") && <Doctor />}
      {may("GET /feeds") && <Guards />}
      {may("GET /webhooks") && <Webhooks />}
      {may("GET /issuers") && <Issuers />}
      {may("GET /streams") && <Streams />}
      {may("GET /trust-anchors") && <Anchors />}
      {may("GET /trust-domains") && <TrustDomains />}
      {may("GET /threat-lists") && <ThreatLists />}
    </>
  );
}

const LINE_STATES: Record<Line["state"], [string, Tone]> = { ok: ["works", "good"], weak: ["weak", "warn"], fail: ["fails", "bad"] };
const GRAVEST = ["fail", "weak", "ok"];

/** Every experiment of `ostiary doctor`, performed when the person asks, since each visit is an entry in the ledger. */
function Doctor() {
  const check = useMutation({ mutationFn: () => get<{ lines: Line[] }>("/doctor") });
  const lines = check.data?.lines.toSorted((a, b) => GRAVEST.indexOf(a.state) - GRAVEST.indexOf(b.state));
  return (
    <Section
      id="check"
      title="Whole server"
      lead="Experiments with the real parts: keys, ledger, policies, guards, detectors, disk."
      query={check}
      action={
        <button className="primary small" onClick={() => check.mutate()} disabled={check.isPending}>
          Check everything now
        </button>
      }
    >
      {lines && (
        <ul className="rows wide" aria-label="Experiments">
          {lines.map((line) => (
            <Row key={line.name} name={line.name} state={LINE_STATES[line.state][0]} tone={LINE_STATES[line.state][1]} action={`${Math.round(line.ms)} ms`}>
              <bdi>{line.saw}</bdi>
              {line.hint && <bdi className="next-step">{line.hint}</bdi>}
            </Row>
          ))}
        </ul>
      )}
    </Section>
  );
}

function Guards() {
  const may = useMay();
  const resources = useList<{ resources: Resource[] }>("/resources");
  const guards = useList<{ guards: Guard[] }>("/feeds");
  const missing = useQuery({
    queryKey: ["list", "missing"],
    queryFn: () => get<{ missing: { resource: string; reported_at: number }[] }>("/feeds/missing"),
    refetchInterval: every(REFRESH_MS),
  });
  const test = useMutation({ mutationFn: () => post<{ guards: Guard[] }>("/feeds/test") });
  const failed = [resources, guards, missing].find((query) => query.isError)?.error ?? test.error;
  const rows = resources.data?.resources ?? [];
  return (
    <Section
      id="guards"
      title="Guards and resources"
      lead="A guard decides the calls of its resource. A guard that is not connected for long denies every call."
      query={{ isPending: resources.isPending || guards.isPending || missing.isPending, error: failed }}
      next={resources.data?.next ?? guards.data?.next}
      action={
        may("POST /feeds/test") &&
        (guards.data?.guards.length ?? 0) > 0 && (
          <button className="small" onClick={() => test.mutate()} disabled={test.isPending}>
            {test.isPending ? "Testing…" : "Test the guards now"}
          </button>
        )
      }
    >
      <Rows
        empty={
          <Empty title="No resources yet">
            Register one: <code>ostiary resource create NAME --uri URI --generate-key FILE</code>
          </Empty>
        }
      >
        {rows.map((one) => (
          <GuardRow
            key={one.resource_id}
            resource={one}
            guards={guards.data?.guards.filter((guard) => guard.resource_id === one.resource_id) ?? []}
            reportedAt={missing.data?.missing.find((lost) => lost.resource === one.name)?.reported_at}
            tested={test.data?.guards.filter((guard) => guard.resource_id === one.resource_id)}
          />
        ))}
      </Rows>
    </Section>
  );
}

interface GuardRowProps {
  resource: Resource;
  guards: Guard[];
  reportedAt: number | undefined;
  tested: Guard[] | undefined;
}

function GuardRow({ resource, guards, reportedAt, tested }: GuardRowProps) {
  const name = <bdi title={resource.uri}>{resource.name}</bdi>;
  const isWatching = resource.mode !== "enforce";
  const lost = tested?.filter((guard) => guard.ms === null).length ?? 0;
  const slowest = Math.max(...(tested ?? []).map((guard) => guard.ms ?? 0));
  const result = tested && tested.length > 0 && (
    <Badge tone={lost ? "bad" : "good"}>{lost ? `${lost} of ${tested.length} did not answer` : `in force after ${Math.round(slowest)} ms`}</Badge>
  );
  if (guards.length > 0) {
    return (
      <Row name={name} state={count(guards.length, "guard")} tone={isWatching ? "warn" : "good"} action={result}>
        connected <Time at={Math.min(...guards.map((guard) => guard.since))} />
        {resource.catalogue_hash === null && (
          <span className="next-step">
            No catalogue of tools: the guard proposes one at its start; review it with <code>ostiary catalogue review {resource.name}</code>
          </span>
        )}
        {isWatching && (
          <span className="next-step">
            Records what it would deny, and denies nothing: <code>ostiary enforce {resource.name}</code>
          </span>
        )}
      </Row>
    );
  }
  if (reportedAt !== undefined) {
    return (
      <Row name={name} state="lost" tone="bad" action={result}>
        last report <Time at={reportedAt} />
        <span className="next-step">Start the guard again, or look at its log.</span>
      </Row>
    );
  }
  return (
    <Row name={name} state="no guard" tone="plain" action={result}>
      <code>{resource.uri}</code>
    </Row>
  );
}

const FORMS = ["signed", "slack", "teams", "mattermost", "plain", "mail"];

function Webhooks() {
  const may = useMay();
  const webhooks = useList<{ webhooks: Webhook[] }>("/webhooks");
  const rows = webhooks.data?.webhooks ?? [];
  const [removed, setRemoved] = useState<Webhook | null>(null);
  const marks = Object.fromEntries(rows.map((one) => [one.webhook_id, markOf(one)]));
  const probe = useProbe(() => post("/webhooks/test"), marks, ["list", "/webhooks"]);
  return (
    <Section
      id="webhooks"
      title="Webhooks and alerts"
      lead="Programs and people who hear of events."
      query={{ isPending: webhooks.isPending, error: webhooks.error ?? probe.error }}
      action={rows.length > 0 && may("POST /webhooks/test") && <ProbeButton probe={probe}>Send a test event</ProbeButton>}
    >
      {rows.length === 0 && <Empty title="Nobody is alerted yet">Add a webhook or a mail address, so that people hear of incidents.</Empty>}
      <ul className="rows wide">
        {rows.map((one) => (
          <Row
            key={one.webhook_id}
            name={<bdi title={one.events.join(", ")}>{one.url}</bdi>}
            state={one.state}
            tone={one.state === "ok" ? "good" : "bad"}
            action={
              <>
                <ProbeResult probe={probe} id={one.webhook_id} mark={markOf(one)} />
                {may("DELETE /webhooks/{id}") && (
                  <button className="small danger" onClick={() => setRemoved(one)}>
                    Remove
                  </button>
                )}
              </>
            }
          >
            {one.form}, {one.delivered} delivered, last <Time at={one.delivered_at} />
            {one.failed && <bdi className="next-step">{one.failed}: look at the receiver.</bdi>}
            {one.lost > 0 && <span className="next-step">{count(one.lost, "event")} left out.</span>}
          </Row>
        ))}
      </ul>
      {may("POST /webhooks") && <NewWebhook />}
      {removed && (
        <ActionDialog
          title="Remove a webhook"
          verb="Remove"
          isDangerous
          onClose={() => setRemoved(null)}
          onConfirm={() => send("DELETE", `/webhooks/${encodeURIComponent(removed.webhook_id)}`)}
        >
          <p>
            <bdi>{removed.url}</bdi> hears of {count(removed.events.length, "kind")} of event no longer, and events that wait are dropped.
          </p>
        </ActionDialog>
      )}
    </Section>
  );
}

/** What a delivery changes, and a failed try too only if it was the last one. */
function markOf(one: { delivered: number; lost: number }): string {
  return `${one.delivered}.${one.lost}`;
}

function NewWebhook() {
  const add = useMutation({
    mutationFn: (form: FormData) => post<Webhook>("/webhooks", { url: form.get("url"), form: form.get("form") }),
    onSuccess: (_made, _form, _result, { client }) => client.invalidateQueries({ queryKey: ["list", "/webhooks"] }),
  });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    add.mutate(new FormData(event.currentTarget));
  };
  return (
    <details className="after">
      <summary>Add a webhook</summary>
      <form className="filters" onSubmit={submit}>
        <label className="field">
          URL, or <code>mailto:</code> and an address
          <input name="url" required maxLength={2000} placeholder="https://hooks.example/…" />
        </label>
        <label className="field">
          Form
          <select name="form">
            {FORMS.map((form) => (
              <option key={form}>{form}</option>
            ))}
          </select>
        </label>
        <div className="actions">
          <button className="primary" disabled={add.isPending}>
            Add
          </button>
        </div>
      </form>
      {add.isError && <Problem error={add.error} />}
      {add.data?.secret && (
        <div className="notice" role="status">
          <p>The secret that signs the messages, shown only now:</p>
          <pre className="code">{add.data.secret}</pre>
        </div>
      )}
    </details>
  );
}

function Issuers() {
  const issuers = useList<{ issuers: Issuer[] }>("/issuers");
  const rows = issuers.data?.issuers ?? [];
  return (
    <Section
      id="signals"
      title="Signals from others"
      lead="Identity providers whose security events stop people's agents here."
      query={issuers}
      next={issuers.data?.next}
    >
      <Rows
        empty={
          <Empty title="No issuer is trusted">
            Trust your identity provider: <code>ostiary signal trust https://idp.example.org --domain example.org</code>
          </Empty>
        }
      >
        {rows.map((one) => (
          <IssuerRow key={one.issuer_id} issuer={one} />
        ))}
      </Rows>
    </Section>
  );
}

function IssuerRow({ issuer }: { issuer: Issuer }) {
  const may = useMay();
  const mark = String(issuer.verified_at);
  const path = `/issuers/${encodeURIComponent(issuer.issuer_id)}/verify`;
  const probe = useProbe(() => post(path), { [issuer.issuer_id]: mark }, ["list", "/issuers"]);
  const isHeard = issuer.heard > 0 || issuer.verified_at !== null;
  return (
    <Row
      name={<bdi>{issuer.issuer}</bdi>}
      state={issuer.trouble ? "failing" : isHeard ? "heard" : "silent"}
      tone={issuer.trouble ? "bad" : isHeard ? "good" : "warn"}
      action={
        <>
          <ProbeResult probe={probe} id={issuer.issuer_id} mark={mark} />
          {may("POST /issuers/{id}/verify") && <ProbeButton probe={probe}>Ask for a verification</ProbeButton>}
        </>
      }
    >
      {issuer.method}, {count(issuer.heard, "signal")}, last <Time at={issuer.heard_at} />, verified <Time at={issuer.verified_at} />
      {probe.error ? <Problem error={probe.error} /> : null}
      {issuer.trouble && <bdi className="next-step">{issuer.trouble}</bdi>}
      {!issuer.trouble && !isHeard && <span className="next-step">Ask for a verification event: it proves the way from there to here.</span>}
    </Row>
  );
}

function Streams() {
  const streams = useList<{ streams: Stream[] }>("/streams");
  const rows = streams.data?.streams ?? [];
  return (
    <Section
      id="streams"
      title="Signals to others"
      lead="Systems that hear at once when an agent is stopped."
      query={streams}
      next={streams.data?.next}
    >
      <Rows
        empty={
          <Empty title="No system receives signals">
            A receiver is an agent with the scopes <code>ssf.read</code> and <code>ssf.manage</code>, and creates its stream itself.
          </Empty>
        }
      >
        {rows.map((one) => (
          <StreamRow key={one.stream_id} stream={one} />
        ))}
      </Rows>
    </Section>
  );
}

function StreamRow({ stream }: { stream: Stream }) {
  const may = useMay();
  const path = `/streams/${encodeURIComponent(stream.stream_id)}`;
  const probe = useProbe(() => post(`${path}/verify`), { [stream.stream_id]: markOf(stream) }, ["list", "/streams"]);
  const enable = useMutation({
    mutationFn: () => post(path, { status: "enabled" }),
    onSuccess: (_made, _form, _result, { client }) => client.invalidateQueries({ queryKey: ["list", "/streams"] }),
  });
  const isEnabled = stream.status === "enabled";
  return (
    <Row
      name={<bdi>{stream.receiver}</bdi>}
      state={stream.failed ? "failing" : stream.status}
      tone={stream.failed ? "bad" : isEnabled ? "good" : "warn"}
      action={
        <>
          <ProbeResult probe={probe} id={stream.stream_id} mark={markOf(stream)} />
          {isEnabled && may("POST /streams/{id}/verify") && <ProbeButton probe={probe}>Send a verification</ProbeButton>}
          {!isEnabled && may("POST /streams/{id}") && (
            <button className="small" onClick={() => enable.mutate()} disabled={enable.isPending}>
              Enable
            </button>
          )}
        </>
      }
    >
      {stream.method}, {count(stream.delivered, "signal")} delivered, last <Time at={stream.delivered_at} />
      {probe.error ? <Problem error={probe.error} /> : null}
      {stream.failed && <bdi className="next-step">{stream.failed}: look at the receiver.</bdi>}
      {stream.lost > 0 && <span className="next-step">{count(stream.lost, "signal")} left out.</span>}
      {enable.isError && <Problem error={enable.error} />}
    </Row>
  );
}

interface AnchorTest {
  failed: string | null;
  clients: number;
  certificate: { subject: string; refused: string | null } | null;
}

function Anchors() {
  const anchors = useQuery({ queryKey: ["list", "/trust-anchors"], queryFn: () => get<{ anchors: Anchor[] }>("/trust-anchors") });
  const rows = anchors.data?.anchors ?? [];
  return (
    <Section
      id="trust"
      title="Trust anchors"
      lead="Authorities whose certificates authenticate clients."
      query={anchors}
    >
      <Rows
        empty={
          <Empty title="No authority is trusted">
            Clients authenticate by keys. To accept certificates too: <code>ostiary trust-anchor add NAME FILE</code>
          </Empty>
        }
      >
        {rows.map((one) => <AnchorRow key={one.name} anchor={one} />)}
      </Rows>
    </Section>
  );
}

function AnchorRow({ anchor }: { anchor: Anchor }) {
  const may = useMay();
  const [isTrying, setTrying] = useState(false);
  const path = `/trust-anchors/${encodeURIComponent(anchor.name)}/test`;
  const test = useMutation({ mutationFn: () => post<AnchorTest>(path) });
  const left = anchor.not_after - Date.now() / 1000;
  return (
    <Row
      name={<bdi>{anchor.name}</bdi>}
      state={left < 0 ? "ended" : left < SOON_S ? "ends soon" : "in force"}
      tone={left < 0 ? "bad" : left < SOON_S ? "warn" : "good"}
      action={
        may("POST /trust-anchors/{name}/test") && (
          <>
            <button className="small" onClick={() => test.mutate()} disabled={test.isPending}>
              {test.isPending ? "Testing…" : "Test it now"}
            </button>
            <button className="small" onClick={() => setTrying(true)}>
              Try a certificate
            </button>
          </>
        )
      }
    >
      <bdi>{anchor.subject}</bdi>, {anchor.is_own ? "of this server" : "of others"}, ends <Time at={anchor.not_after} />
      {test.isError && <Problem error={test.error} />}
      {test.data && (
        <span className="block" role="status">
          <Badge tone={test.data.failed ? "bad" : "good"}>{test.data.failed ? "refused" : "accepted now"}</Badge>{" "}
          {test.data.failed ?? `Agents that authenticate by a certificate of a trust anchor: ${test.data.clients}.`}
        </span>
      )}
      {isTrying && <TrialDialog path={path} name={anchor.name} onClose={() => setTrying(false)} />}
    </Row>
  );
}

/** A certificate that a client would send, and whether the anchor, and an agent, would be accepted by it. */
function TrialDialog({ path, name, onClose }: { path: string; name: string; onClose: () => void }) {
  const [certificate, setCertificate] = useState("");
  const [agent, setAgent] = useState("");
  const [tried, setTried] = useState<AnchorTest["certificate"]>(null);
  return (
    <ActionDialog
      title={`Try a certificate at ${name}`}
      verb="Try"
      stays
      onClose={onClose}
      onConfirm={async () => setTried((await post<AnchorTest>(path, { certificate, agent: agent.trim() })).certificate)}
    >
      <p>Nothing changes. The certificate, followed by its chain, in PEM:</p>
      <textarea aria-label="Certificate in PEM" className="mono" value={certificate} onChange={(event) => setCertificate(event.target.value)} required spellCheck={false} />
      <label className="field">
        Agent that would authenticate with it
        <input value={agent} onChange={(event) => setAgent(event.target.value)} maxLength={200} autoComplete="off" />
        <span className="hint">Leave it empty to check only whether the certificate leads to the anchor.</span>
      </label>
      {tried && (
        <p className={tried.refused ? "notice bad" : "notice"} role="status">
          <Badge tone={tried.refused ? "bad" : "good"}>{tried.refused ? "refused" : "accepted"}</Badge> <bdi>{tried.subject}</bdi>
          {tried.refused && `: ${tried.refused}`}
        </p>
      )}
    </ActionDialog>
  );
}

function TrustDomains() {
  const domains = useList<{ trust_domains: TrustDomain[] }>("/trust-domains");
  const rows = domains.data?.trust_domains ?? [];
  return (
    <Section
      id="trust-domains"
      title="Trust domains"
      lead="SPIFFE trust domains of others whose workloads are recognised."
      query={domains}
      next={domains.data?.next}
    >
      <Rows
        empty={
          <Empty title="No other trust domain">
            Federate with one: <code>ostiary trust-domain add</code>
          </Empty>
        }
      >
        {rows.map((one) => (
          <TrustDomainRow key={one.name} domain={one} />
        ))}
      </Rows>
    </Section>
  );
}

function TrustDomainRow({ domain }: { domain: TrustDomain }) {
  const may = useMay();
  const refresh = useMutation({
    mutationFn: () => post(`/trust-domains/${encodeURIComponent(domain.name)}/refresh`),
    onSettled: (_made, _error, _form, _result, { client }) => client.invalidateQueries({ queryKey: ["list", "/trust-domains"] }),
  });
  return (
    <Row
      name={<bdi>{domain.name}</bdi>}
      state={domain.failed ? "failing" : "fresh"}
      tone={domain.failed ? "bad" : "good"}
      action={
        may("POST /trust-domains/{name}/refresh") && (
          <button className="small" onClick={() => refresh.mutate()} disabled={refresh.isPending}>
            Fetch the bundle now
          </button>
        )
      }
    >
      {count(domain.authorities, "certificate")}, fetched <Time at={domain.refreshed_at} />
      {domain.failed && <bdi className="next-step">{domain.failed}</bdi>}
      {refresh.isError && <Problem error={refresh.error} />}
    </Row>
  );
}

function ThreatLists() {
  const lists = useList<{ lists: ThreatList[] }>("/threat-lists");
  const rows = lists.data?.lists ?? [];
  return (
    <Section
      id="threats"
      title="Threat lists"
      lead="Hosts and indicators that are checked before each call."
      query={lists}
      next={lists.data?.next}
    >
      <Rows
        empty={
          <Empty title="No threat list">
            Add one: <code>ostiary threats add</code>
          </Empty>
        }
      >
        {rows.map((one) => <ThreatListRow key={one.name} list={one} />)}
      </Rows>
    </Section>
  );
}

function ThreatListRow({ list }: { list: ThreatList }) {
  const may = useMay();
  const test = useMutation({ mutationFn: () => post<ListChange>(`/threat-lists/${encodeURIComponent(list.name)}/test`) });
  return (
    <Row
      name={<bdi title={list.url}>{list.name}</bdi>}
      state={list.failed ? "failing" : "fresh"}
      tone={list.failed ? "bad" : "good"}
      action={
        list.url &&
        may("POST /threat-lists/{name}/test") && (
          <button className="small" onClick={() => test.mutate()} disabled={test.isPending}>
            {test.isPending ? "Testing…" : "Test it now"}
          </button>
        )
      }
    >
      {list.count.toLocaleString("en")} indicators, {list.url ? <>fetched <Time at={list.refreshed_at} /></> : "added as text"}
      {list.failed && <bdi className="next-step">{list.failed}</bdi>}
      {test.isError && <Problem error={test.error} />}
      {test.data && (
        <span className="block" role="status">
          <Badge tone={test.data.failed ? "bad" : "good"}>{test.data.failed ? "test failed" : "test passed"}</Badge>{" "}
          {test.data.failed ? <bdi>{test.data.failed}</bdi> : sayChange(test.data)}
        </span>
      )}
    </Row>
  );
}

function sayChange({ count: all, new: added, gone, skipped }: ListChange): string {
  const change = added || gone ? `${added} new, ${gone} would go` : "nothing would change";
  return `A fetch now has ${all?.toLocaleString("en")} indicators: ${change}${skipped ? `, ${skipped} cannot be checked` : ""}.`;
}

/** Connected accounts: whose account agents use at which provider, with which scopes, and which agents have access now. */

import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { BASE, post, send } from "../api";
import { Badge, count, Empty, PageHead, Time, type Tone } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { Row, Rows, Section, useList } from "../parts/sections";
import { useMay, useSession } from "../session";

interface Account {
  account_id: string;
  provider: string;
  person: string;
  scopes: string[];
  state: "active" | "broken" | "ending";
  connected_at: number;
  refreshed_at: number;
  attempts: number;
  error: string;
  agents: string[];
}

interface Provider {
  name: string;
  label: string;
  issuer: string;
  token_endpoint: string;
  scopes: string[];
  roles: string[];
  redirect_uri: string;
}

const STATES: Record<Account["state"], [string, Tone]> = {
  active: ["connected", "good"],
  broken: ["connect again", "bad"],
  ending: ["is being disconnected", "warn"],
};

export function Accounts() {
  const may = useMay();
  return (
    <>
      <PageHead title="Accounts" lead="Accounts of people at other providers, which their agents use with short access tokens.">
        <a className="button" href={`${BASE}/accounts`}>
          Your own accounts
        </a>
      </PageHead>
      <Connected />
      {may("GET /account-providers") && <Providers />}
    </>
  );
}

function Connected() {
  const may = useMay();
  const me = useSession().name;
  const accounts = useList<{ accounts: Account[] }>("/connected-accounts");
  const [ended, setEnded] = useState<Account | null>(null);
  return (
    <Section id="accounts" title="Connected accounts" lead="The password stays with the provider, and no agent gets the refresh token." query={accounts} next={accounts.data?.next}>
      <Rows
        empty={
          <Empty title="No account is connected">
            <a href={`${BASE}/accounts`}>Connect one of your own</a>
          </Empty>
        }
      >
        {(accounts.data?.accounts ?? []).map((one) => {
          const [state, tone] = STATES[one.state];
          return (
            <Row
              key={one.account_id}
              name={
                <>
                  <bdi>{one.person}</bdi>
                  {one.person === me && <span className="muted"> (you)</span>} <bdi className="muted small block">{one.provider}</bdi>
                </>
              }
              state={state}
              tone={tone}
              action={
                may("POST /connected-accounts/{account}/revoke") && (
                  <button className="small danger" aria-label={`${one.state === "ending" ? "Forget" : "Disconnect"} ${one.provider} of ${one.person}`} onClick={() => setEnded(one)}>
                    {one.state === "ending" ? "Forget" : "Disconnect"}
                  </button>
                )
              }
            >
              {one.agents.length === 0 ? (
                <span className="muted">No agent has access now</span>
              ) : (
                <>
                  {count(one.agents.length, "agent")} with access now:{" "}
                  {one.agents.map((name, at) => (
                    <span key={name}>
                      {at > 0 && ", "}
                      <Link to="/agents/$name" params={{ name }}>
                        <bdi>{name}</bdi>
                      </Link>
                    </span>
                  ))}
                </>
              )}
              <span className="block muted">
                {one.scopes.length > 0 && <><bdi>{one.scopes.join(", ")}</bdi>; </>}connected <Time at={one.connected_at} />, last used <Time at={one.refreshed_at} />
              </span>
              {one.error && <bdi className="next-step">{one.error}</bdi>}
            </Row>
          );
        })}
      </Rows>
      {ended && (
        <ActionDialog
          title={`Disconnect ${ended.provider} of ${ended.person}`}
          verb={ended.state === "ending" ? "Forget the account" : "Disconnect the account"}
          isDangerous
          onClose={() => setEnded(null)}
          onConfirm={() => post(`/connected-accounts/${encodeURIComponent(ended.account_id)}/revoke`, { forget: ended.state === "ending" })}
        >
          {ended.state === "ending" ? (
            <p>1 account is deleted here, although the provider has not revoked its refresh token. Remove the access there yourself.</p>
          ) : (
            <p>
              1 account ends, with the access of {count(ended.agents.length, "agent")}
              {ended.agents.length > 0 && <>: <bdi>{ended.agents.join(", ")}</bdi></>}. The refresh token is revoked at the provider.
            </p>
          )}
        </ActionDialog>
      )}
    </Section>
  );
}

function Providers() {
  const may = useMay();
  const providers = useList<{ providers: Provider[] }>("/account-providers");
  const [removed, setRemoved] = useState<Provider | null>(null);
  return (
    <Section id="account-providers" title="Providers" lead="Where people may connect accounts, and with which scopes." query={providers}>
      <Rows
        empty={
          <Empty title="No provider yet">
            Add one: <code>ostiary account-provider add NAME --preset github --client-id ID</code>
          </Empty>
        }
      >
        {(providers.data?.providers ?? []).map((one) => (
          <Row
            key={one.name}
            name={<bdi title={one.token_endpoint}>{one.label}</bdi>}
            state={one.roles.length ? "for some roles" : "for everyone"}
            tone="plain"
            action={
              <>
                <a className="button small" href={`${BASE}/accounts/${encodeURIComponent(one.name)}`} aria-label={`Connect your account at ${one.label}`}>
                  Connect
                </a>
                {may("DELETE /account-providers/{name}") && (
                  <button className="small danger" aria-label={`Remove ${one.label}`} onClick={() => setRemoved(one)}>
                    Remove
                  </button>
                )}
              </>
            }
          >
            <bdi>{one.scopes.join(", ") || "no scopes"}</bdi>
            {one.roles.length > 0 && <>; for {one.roles.map((role) => <Badge key={role}>{role}</Badge>)}</>}
            <span className="block muted">
              redirect URI <bdi>{one.redirect_uri}</bdi>
            </span>
          </Row>
        ))}
      </Rows>
      {removed && <Removal provider={removed} onClose={() => setRemoved(null)} />}
    </Section>
  );
}

/** The question before a provider goes with all its accounts, of which the first 200 are listed. */
function Removal({ provider, onClose }: { provider: Provider; onClose: () => void }) {
  const accounts = useList<{ accounts: Account[] }>("/connected-accounts").data;
  const number = accounts?.accounts.filter((one) => one.provider === provider.name).length ?? 0;
  return (
    <ActionDialog
      title={`Remove ${provider.label}`}
      verb="Remove the provider"
      isDangerous
      onClose={onClose}
      onConfirm={() => send("DELETE", `/account-providers/${encodeURIComponent(provider.name)}`)}
    >
      <p>
        1 provider ends, with {accounts?.next ? "at least " : ""}
        {count(number, "connected account")}, and the access of every agent that uses them.
      </p>
    </ActionDialog>
  );
}

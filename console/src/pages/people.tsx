/** People and roles: who may sign in, what each may do, and how people sign in. */

import { useInfiniteQuery, useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { BASE, get, post, send } from "../api";
import { Badge, Empty, Loading, More, PageHead, Problem, Time } from "../parts/basics";
import { ActionDialog } from "../parts/dialog";
import { useMay, useSession } from "../session";

const PAGE_ROWS = 100;
const MAX_ROLES = 1000;

interface Person {
  person_id: string;
  name: string;
  email: string | null;
  state: string;
  deputy: string | null;
}

interface Role {
  subject: string;
  name: string;
  role: string;
  source: string;
}

interface Provider {
  provider_id: string;
  name: string;
  label: string;
  protocol: string;
  issuer: string;
  login_url: string;
}

interface SetupLink {
  url: string;
  expires_at: number;
}

export function People() {
  const may = useMay();
  const [revoked, setRevoked] = useState<Role | null>(null);
  const persons = useInfiniteQuery({
    queryKey: ["persons"],
    queryFn: ({ pageParam }) => get<{ persons: Person[]; next: string | null }>("/persons", { limit: PAGE_ROWS, after: pageParam }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const roles = useQuery({
    queryKey: ["roles"],
    enabled: may("GET /roles"),
    queryFn: () => get<{ roles: Role[]; next: string | null }>("/roles", { limit: MAX_ROLES }),
  });
  const names = useQuery({ queryKey: ["role-names"], enabled: may("GET /roles/names"), queryFn: () => get<{ roles: string[] }>("/roles/names") });
  const rows = persons.data?.pages.flatMap((page) => page.persons) ?? [];
  const teamRoles = roles.data?.roles.filter((one) => one.subject.startsWith("tm_")) ?? [];
  const failure = persons.error ?? roles.error ?? names.error;
  return (
    <>
      <PageHead title="People" lead="Who may sign in, and what roles let each person see and do." />
      {failure && <Problem error={failure} />}
      {may("POST /persons") && <NewPerson />}
      <section className="card gap" aria-label="Persons" hidden={persons.isError}>
        {persons.isPending ? <Loading /> : persons.isError ? null : rows.length === 0 ? <Empty title="No persons yet">Add a person, then invite the person to sign in.</Empty> : (
          <ul className="rows wide">
            {rows.map((person) => (
              <PersonRow
                key={person.person_id}
                person={person}
                roles={roles.data?.roles.filter((one) => one.subject === person.person_id) ?? []}
                names={names.data?.roles ?? []}
                onRevoke={setRevoked}
              />
            ))}
          </ul>
        )}
        <More pages={persons}>Show more persons</More>
        {roles.data?.next && <p className="small muted after">Only the first {MAX_ROLES} roles are shown: <code>ostiary role list</code></p>}
      </section>
      {teamRoles.length > 0 && (
        <section className="card gap">
          <h2>Roles of teams</h2>
          <ul className="chips">
            {teamRoles.map((one) => (
              <RoleChip key={one.subject + one.role} role={one} label={`${one.name}: ${one.role}`} onRevoke={setRevoked} />
            ))}
          </ul>
        </section>
      )}
      {may("GET /login-providers") && <Providers />}
      {revoked && (
        <ActionDialog
          title={`Revoke ${revoked.role} from ${revoked.name}`}
          verb="Revoke the role"
          isDangerous
          onClose={() => setRevoked(null)}
          onConfirm={() => send("DELETE", `/roles/${encodeURIComponent(revoked.subject)}/${encodeURIComponent(revoked.role)}`)}
        >
          <p>
            <bdi>{revoked.name}</bdi> loses 1 role, with everything that it permits, at the next request.
          </p>
          {revoked.source && <p>A rule of the login provider gives it again at the next login.</p>}
        </ActionDialog>
      )}
    </>
  );
}

function RoleChip({ role, label, onRevoke }: { role: Role; label: string; onRevoke: (role: Role) => void }) {
  const may = useMay();
  return (
    <li>
      <bdi>{label}</bdi>
      {role.source && <span className="muted">by login provider</span>}
      {may("DELETE /roles/{subject}/{role}") && (
        <button className="link" aria-label={`Revoke ${role.role} from ${role.name}`} onClick={() => onRevoke(role)}>
          Revoke
        </button>
      )}
    </li>
  );
}

interface PersonRowProps {
  person: Person;
  roles: Role[];
  names: string[];
  onRevoke: (role: Role) => void;
}

function PersonRow({ person, roles, names, onRevoke }: PersonRowProps) {
  const may = useMay();
  const me = useSession().person_id;
  const path = `/persons/${encodeURIComponent(person.name)}`;
  const grant = useMutation({
    mutationFn: (role: string) => post("/roles", { subject: person.person_id, role }),
    onSuccess: (_made, _role, _result, { client }) => client.invalidateQueries(),
  });
  const invite = useMutation({ mutationFn: () => post<SetupLink>(`${path}/invite`) });
  const free = names.filter((name) => !roles.some((one) => one.role === name));
  return (
    <li>
      <span>
        <bdi>{person.name}</bdi>
        {person.person_id === me && <span className="muted"> (you)</span>}
        {person.email && <bdi className="muted small block">{person.email}</bdi>}
      </span>
      <Badge>{person.state}</Badge>
      <span>
        {roles.length === 0 ? <span className="muted">no role: answers questions about own agents only</span> : (
          <ul className="chips">
            {roles.map((one) => (
              <RoleChip key={one.role} role={one} label={one.role} onRevoke={onRevoke} />
            ))}
          </ul>
        )}
        {grant.isError && <Problem error={grant.error} />}
        {invite.isError && <Problem error={invite.error} />}
        {invite.data && (
          <span className="block">
            Give this link to the person; it works once and ends <Time at={invite.data.expires_at} />:
            <code className="block">{invite.data.url}</code>
          </span>
        )}
      </span>
      <span className="row-action">
        {may("POST /roles") && free.length > 0 && person.state === "active" && (
          <select aria-label={`Grant a role to ${person.name}`} value="" onChange={(event) => grant.mutate(event.target.value)} disabled={grant.isPending}>
            <option value="" disabled>
              Grant a role
            </option>
            {free.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        )}
        {may("POST /persons/{name}/invite") && person.state === "active" && person.person_id !== me && (
          <button className="small" onClick={() => invite.mutate()} disabled={invite.isPending}>
            Invite
          </button>
        )}
      </span>
    </li>
  );
}

function NewPerson() {
  const add = useMutation({
    mutationFn: (form: FormData) => post<Person>("/persons", { name: form.get("name"), email: form.get("email") || null }),
    onSuccess: (_made, _form, _result, { client }) => client.invalidateQueries({ queryKey: ["persons"] }),
  });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    add.mutate(new FormData(event.currentTarget));
  };
  return (
    <section className="card gap" aria-label="Add a person">
      <h2>Add a person</h2>
      <form className="filters" onSubmit={submit}>
        <label className="field">
          Name
          <input name="name" required maxLength={64} autoComplete="off" />
        </label>
        <label className="field">
          Mail address, if known
          <input name="email" type="email" maxLength={254} autoComplete="off" />
        </label>
        <div className="actions">
          <button className="primary" disabled={add.isPending}>
            Add
          </button>
        </div>
      </form>
      {add.isError && <Problem error={add.error} />}
      {add.data && (
        <p className="notice" role="status">
          <bdi>{add.data.name}</bdi> was added. Grant a role, and invite the person.
        </p>
      )}
    </section>
  );
}

function Providers() {
  const providers = useQuery({ queryKey: ["login-providers"], queryFn: () => get<{ providers: Provider[] }>("/login-providers") });
  return (
    <section className="card gap">
      <h2>How people sign in</h2>
      {providers.isPending ? <Loading /> : providers.isError ? <Problem error={providers.error} /> : providers.data.providers.length === 0 ? (
        <p className="muted">
          With a passkey, or a password and an authenticator app. To use the login of your company: <code>ostiary login-provider add</code>
        </p>
      ) : (
        <ul className="rows wide">
          {providers.data.providers.map((one) => (
            <li key={one.provider_id}>
              <bdi>{one.label || one.name}</bdi>
              <Badge tone="plain">{one.protocol}</Badge>
              <bdi className="muted">{one.issuer}</bdi>
              <span className="row-action">
                <a className="button small" href={one.login_url.startsWith("https:") ? one.login_url : `${BASE}/login`}>
                  Try it
                </a>
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

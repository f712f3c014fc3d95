"""`ostiary agent`: register agents, set their scopes and limits, and change their states."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.authorization.claims import SCOPE_ALIASES
from ostiary.cli.enrol import enrol
from ostiary.cli.files import key_of, read_json, read_text
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.session import PAGE, Here, Session
from ostiary.cli.spans import SECOND, parse_span
from ostiary.cli.usage import Usage
from ostiary.cli.workloads import workload
from ostiary.protocol.nearest import nearest_hint

agent = App(name="agent", help="Register, list and limit agents; suspend and decommission them.")
agent.command(enrol)
agent.command(workload)

Kind = Literal["assistant", "autonomous", "workflow", "service"]
Risk = Literal["low", "medium", "high", "critical"]
Condition = Literal["pending", "active", "suspended", "quarantined", "decommissioned"]


@agent.command(name="create")
def create(
    name: str,
    /,
    *,
    owner: str,
    purpose: str,
    scope: tuple[str, ...] = (),
    generate_key: Path | None = None,
    jwk: Path | None = None,
    kind: Kind = "assistant",
    risk_tier: Risk = "medium",
    provider: str = "",
    model: str = "",
    deputy: str | None = None,
    segment: str = "default",
    max_depth: int = 3,
    expires_in: int | None = None,
    undeclared: bool = False,
    redirect_uri: tuple[str, ...] = (),
    session: Here,
) -> None:
    """Register an agent: active with a key, pending without one.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; a name cannot be reused.
        owner: Name of the accountable person or team.
        purpose: Purpose of the agent, in words.
        scope: Scope of the standing task, as RESOURCE:CLASS; may be given several times.
        generate_key: Generate the key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
        kind: Kind of agent.
        risk_tier: How much damage the agent could do.
        provider: Provider of the model.
        model: Name of the model.
        deputy: Name of the person who becomes the owner of the agent when the owner leaves.
        segment: Segment of the agent.
        max_depth: Largest number of agents that may follow this agent in a delegation chain.
        expires_in: Seconds until the agent expires.
        undeclared: Accept scopes that no registered resource declares.
        redirect_uri: URI to which browsers return after people log in for the agent; may be given several times.
    """
    key = key_of(generate=generate_key, jwk=jwk) if generate_key or jwk else None
    body: dict[str, Any] = {
        "name": name,
        "owner": owner,
        "purpose": purpose,
        "scopes": split_words(scope),
        "kind": kind,
        "risk_tier": risk_tier,
        "provider": provider,
        "model": model,
        "deputy": deputy,
        "segment": segment,
        "max_depth": max_depth,
        "expires_in": expires_in,
        "jwk": key and key.public,
        "undeclared": undeclared,
    }
    created = session.api("POST", "/agents", body)
    if key is not None:
        key.save(created["agent_id"], issuer=session.agent.issuer)
    if redirect_uri:
        created |= {"client": session.api("PUT", f"/agents/{name}/client", {"redirect_uris": list(redirect_uri)})}
    session.show(created, _print)


@agent.command(name="list")
def list_agents(
    *,
    owner: str | None = None,
    state: Condition | None = None,
    kind: Kind | None = None,
    risk_tier: Risk | None = None,
    segment: str | None = None,
    text: str | None = None,
    unused: str | None = None,
    limit: int = PAGE,
    session: Here,
) -> None:
    """List agents with their last use. An agent is listed if it matches every given option.

    Args:
        owner: Name of the accountable person or team.
        state: State of the agents.
        kind: Kind of the agents.
        risk_tier: Risk tier of the agents.
        segment: Segment of the agents.
        text: Part of the name or of the purpose.
        unused: Span without a token, task, call or secret, such as 90d; decommissioned agents are left out.
        limit: Largest number of rows.
    """
    columns = {
        "name": "NAME",
        "state": "STATE",
        "owner": "OWNER",
        "scopes": "SCOPES",
        "last_used_at": "LAST USE",
        "agent_id": "ID",
    }
    query = {"owner": owner, "state": state, "kind": kind, "risk_tier": risk_tier, "segment": segment, "text": text}
    query |= {"unused": unused and str(parse_span(unused) // SECOND), "last_use": "true"}
    rows = session.pages("/agents", "agents", limit=limit, query=query, counts=True)
    is_filtered = any(value is not None for name, value in query.items() if name != "last_use")
    empty = "no agents match" if is_filtered else "no agents: ostiary agent create --help"
    session.show(rows, lambda rows: table([_row(row) for row in rows], columns, empty=empty))


@agent.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show an agent with its keys, its live certificates, its last use, and the resources for bearer tokens (`bearer`).

    Args:
        name: Name or id.
    """
    shown = session.api("GET", f"/agents/{name}") | session.api("GET", f"/agents/{name}/bearer")
    shown |= session.api("GET", f"/agents/{name}/secrets")
    certificates = session.api("GET", "/certificates", query={"holder": shown["agent_id"], "limit": 100})[
        "certificates"
    ]
    shown["certificates"] = [one for one in certificates if one["state"] == "live"]
    session.show(shown, _print)


@agent.command(name="allow")
def allow(name: str, /, *scope: str, undeclared: bool = False, session: Here) -> None:
    """Add scopes to the standing task of an agent.

    Args:
        name: Name or id.
        scope: One or more scopes, as RESOURCE:CLASS.
        undeclared: Accept scopes that no registered resource declares.
    """
    if not (scopes := split_words(scope)):
        raise Usage("no scope is named", hint=f"name one or more scopes: ostiary agent allow {name} RESOURCE:CLASS")
    _set_scopes(session, name, add=scopes, remove=[], undeclared=undeclared)


@agent.command(name="disallow")
def disallow(name: str, /, *scope: str, session: Here) -> None:
    """Remove scopes from the standing task of an agent. The agent's tokens, leases and other holdings end.

    Args:
        name: Name or id.
        scope: One or more scopes, as RESOURCE:CLASS.
    """
    if not (scopes := split_words(scope)):
        raise Usage("no scope is named", hint=f"name one or more scopes: ostiary agent disallow {name} RESOURCE:CLASS")
    _set_scopes(session, name, add=[], remove=scopes)


@agent.command(name="depth")
def depth(name: str, max_depth: int, /, *, session: Here) -> None:
    """Set the depth of delegation: how many agents may follow this agent in a chain.

    A task with a longer chain cannot be used.

    Args:
        name: Name or id.
        max_depth: 0 to 7; 0 forbids delegation.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"max_depth": max_depth}), _print)


@agent.command(name="segment")
def segment(name: str, segment: str, /, *, session: Here) -> None:
    """Move an agent into another segment. Tokens of the agent, and of agents to which it delegated, are revoked.

    Args:
        name: Name or id.
        segment: Name of the segment.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"segment": segment}), _print)


@agent.command(name="transfer")
def transfer(name: str, /, *, owner: str, deputy: str | None = None, session: Here) -> None:
    """Transfer an agent to another accountable person or team. The agent's tokens, leases and other holdings end.

    Args:
        name: Name or id of the agent.
        owner: Name of the new owner.
        deputy: Name of the person who becomes the owner of the agent when the new owner leaves; without it, the earlier
            deputy is removed.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"owner": owner, "deputy": deputy}), _print)


@agent.command(name="redirect")
def redirect(
    name: str,
    /,
    *uri: str,
    post_logout: tuple[str, ...] = (),
    backchannel_logout: str = "",
    remove: bool = False,
    session: Here,
) -> None:
    """Set the URIs to which browsers return after people log in for an agent; without a URI, show the present URIs.

    Args:
        name: Name or id of the agent.
        uri: Redirect URIs: https, http on 127.0.0.1, [::1] or localhost, or a scheme such as com.example.app:/callback.
        post_logout: URI to which people may go after a logout; may be given several times.
        backchannel_logout: URL that receives logout tokens.
        remove: Remove all URIs: people can no longer log in for the agent.
    """
    path = f"/agents/{name}/client"
    if remove and (uri or post_logout or backchannel_logout):
        raise Usage("`--remove` cannot be combined with URIs", hint="leave out the URIs, or leave out `--remove`")
    if not uri and (post_logout or backchannel_logout):
        raise Usage("a redirect URI is missing", hint="name all URIs of the agent: they replace the earlier ones")
    if not uri:
        session.show(session.api("DELETE" if remove else "GET", path), facts)
        return
    body = {"redirect_uris": list(uri), "post_logout_redirect_uris": list(post_logout)}
    session.show(session.api("PUT", path, body | {"backchannel_logout_uri": backchannel_logout}), facts)


@agent.command(name="mutual-tls")
def mutual_tls(
    name: str,
    /,
    *,
    subject_dn: str = "",
    dns: str = "",
    uri: str = "",
    ip: str = "",
    email: str = "",
    certificate: tuple[Path, ...] = (),
    bound: bool = False,
    remove: bool = False,
    session: Here,
) -> None:
    """Set the method by which an agent authenticates by certificate (mutual TLS); without an option, show the method.

    Either a trust anchor (`ostiary trust-anchor`) must have signed the certificate, and the certificate must have the
    subject that one of the options names; or `--certificate` must name the certificate itself (RFC 8705). A pending
    agent becomes active. A change revokes the tokens of the agent.

    Args:
        name: Name or id of the agent.
        subject_dn: Distinguished name of the certificate, such as CN=reports,O=Example.
        dns: The only DNS name among the subject alternative names of the certificate.
        uri: The only URI among the subject alternative names, such as spiffe://example.org/agent/reports.
        ip: The only IP address among the subject alternative names.
        email: The only mail address among the subject alternative names.
        certificate: PEM file of a self-signed certificate; may be given several times.
        bound: Bind every token to the certificate, also where a DPoP proof is sent.
        remove: Remove the method: the agent can no longer authenticate by certificate.
    """
    path = f"/agents/{name}/mutual-tls"
    names = {"subject_dn": subject_dn, "san_dns": dns, "san_uri": uri, "san_ip": ip, "san_email": email}
    subject = {f"tls_client_auth_{member}": value for member, value in names.items() if value}
    if remove:
        if subject or certificate:
            raise Usage(
                "`--remove` cannot be combined with a subject or a certificate",
                hint=f"use `--remove` alone: ostiary agent mutual-tls {name} --remove",
            )
        session.show(session.api("DELETE", path), facts)
        return
    if not subject and not certificate:
        session.show(session.api("GET", path), _print_mutual_tls)
        return
    body: dict[str, Any] = {**subject, "certificates": [read_text(file) for file in certificate]}
    body |= {"tls_client_certificate_bound_access_tokens": bound}
    session.show(session.api("PUT", path, body), _print_mutual_tls)


@agent.command(name="suspend")
def suspend(name: str, /, *, reason: str = "", session: Here) -> None:
    """Suspend an agent and revoke its tokens; its tasks wait. Undo: `ostiary agent resume`.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    _move(session, name, "suspend", reason)


@agent.command(name="resume")
def resume(name: str, /, *, reason: str = "", session: Here) -> None:
    """Resume a suspended agent.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    _move(session, name, "resume", reason)


@agent.command(name="quarantine")
def quarantine(name: str, /, *, reason: str = "", session: Here) -> None:
    """Quarantine a suspicious agent and revoke its tokens; its tasks wait. Undo: `ostiary agent release`.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    _move(session, name, "quarantine", reason)


@agent.command(name="release")
def release(name: str, /, *, reason: str = "", session: Here) -> None:
    """Release an agent from quarantine.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    _move(session, name, "release", reason)


@agent.command(name="decommission")
def decommission(name: str, /, *, reason: str = "", session: Here) -> None:
    """Decommission an agent, and end its tasks. This cannot be undone, and the name cannot be reused.

    Args:
        name: Name or id.
        reason: Reason; it is recorded in the ledger.
    """
    _move(session, name, "decommission", reason)


@agent.command(name="budget")
def budget(name: str, /, *, limits: Path | None = None, session: Here) -> None:
    """Set the daily budget of an agent; without `--limits`, show the budget and its rest for today. Days are in UTC.

    Args:
        name: Name or id.
        limits: JSON file of all limits, such as [{"kind": "calls", "limit": 100}]; [] removes all limits.
    """
    path = f"/agents/{name}/budget"
    shown = session.api("GET", path) if limits is None else session.api("PUT", path, {"limits": read_json(limits)})
    columns = {"id": "ID", "limit": "LIMIT", "left": "LEFT", "spent": "SPENT"}
    session.show(shown["budgets"], lambda rows: table(rows, columns, empty="no limit: ostiary agent budget --help"))


@agent.command(name="join-token")
def join_token(name: str, /, *, ttl: int = 3600, session: Here) -> None:
    """Create a one-time join token, with which a workload enrols the key of a pending agent. The token is shown once.

    Args:
        name: Name or id.
        ttl: Seconds until the token expires, at most 86400.
    """
    session.show(session.api("POST", f"/agents/{name}/join-token", {"ttl": ttl}), facts)


@agent.command(name="allow-bearer")
def allow_bearer(name: str, /, *, resource: str, session: Here) -> None:
    """Allow bearer tokens for an agent whose client cannot use DPoP, at one resource. A thief can use such a token.

    The tokens are valid for five minutes at most, and only the guards of that resource accept them
    (docs/how-to/clients.md).

    Args:
        name: Name or id.
        resource: Name or id of the resource; `ostiary` is this server's own API.
    """
    session.api("PUT", f"/agents/{name}/bearer/{resource}", {})
    show(name, session=session)


@agent.command(name="forbid-bearer")
def forbid_bearer(name: str, /, *, resource: str, session: Here) -> None:
    """Forbid bearer tokens for an agent at a resource; its bearer tokens for the resource are revoked.

    Args:
        name: Name or id.
        resource: Name or id of the resource.
    """
    session.api("DELETE", f"/agents/{name}/bearer/{resource}")
    show(name, session=session)


@agent.command(name="create-secret")
def create_secret(name: str, /, *, days: int = 90, session: Here) -> None:
    """Create a client secret for an agent whose client cannot use a key. The secret is shown once.

    For the agent's own work, the secret gets only bearer tokens, and only for resources that `ostiary agent
    allow-bearer` named. The secret also authenticates an agent that signs people in (docs/how-to/clients.md).

    Args:
        name: Name or id.
        days: Days until the secret expires, at most 365.
    """
    exemptions = session.api("GET", f"/agents/{name}/bearer")["bearer"]
    session.show(session.api("POST", f"/agents/{name}/secrets", {"ttl": days * 86_400}), facts)
    if not exemptions:
        session.warn(f"no resource accepts the secret yet: ostiary agent allow-bearer {name} --resource RESOURCE")


@agent.command(name="revoke-secret")
def revoke_secret(name: str, id: str, /, *, session: Here) -> None:
    """Revoke a client secret, all bearer tokens of its agent, and the tokens that the agent got with any client secret.

    Args:
        name: Name or id.
        id: Id of the secret, from `ostiary agent show`.
    """
    session.api("DELETE", f"/agents/{name}/secrets/{id}")
    show(name, session=session)


@agent.command(name="allow-words")
def allow_words(name: str, /, *, session: Here) -> None:
    """Let an agent itself state the person's words when the agent starts a task. A hijacked agent can state any words.

    Args:
        name: Name or id.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"speaks": True}), _print)


@agent.command(name="forbid-words")
def forbid_words(name: str, /, *, session: Here) -> None:
    """Refuse later tasks in which an agent itself states the person's words. Present tasks stay.

    Args:
        name: Name or id.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"speaks": False}), _print)


def split_words(texts: Iterable[str]) -> list[str]:
    """Split each text at white space: `a b` and `c` become `a`, `b`, `c`."""
    return [word for text in texts for word in text.split()]


def _row(agent: dict[str, Any]) -> dict[str, Any]:
    return agent | {"last_used_at": agent["last_used_at"] or "never"}


def _set_scopes(session: Session, name: str, *, add: list[str], remove: list[str], undeclared: bool = False) -> None:
    before = session.api("GET", f"/agents/{name}")["scopes"]
    removed = {SCOPE_ALIASES.get(scope, scope) for scope in remove}
    scopes = sorted({*before, *add} - removed)
    session.show(session.api("PATCH", f"/agents/{name}", {"scopes": scopes, "undeclared": undeclared}), _print)
    for scope in sorted(removed - {*before}):
        session.remark(f"`{name}` did not have the scope `{scope}`; {nearest_hint(scope, before)}".rstrip("; "))
    changed, undo = ({*add} - {*before}, "disallow") if add else (removed & {*before}, "allow --undeclared")
    if changed and not session.as_json:
        verb, *option = undo.split()
        out.print("undo: ostiary agent", verb, name, *sorted(changed), *option, markup=False)


def _move(session: Session, name: str, verb: str, reason: str) -> None:
    moved = session.api("POST", f"/agents/{name}/{verb}", {"why": reason})
    session.show(moved, lambda agent: _print({key: agent[key] for key in agent if key not in ("seq", "committed_at")}))


def _print_mutual_tls(shown: dict[str, Any]) -> None:
    """Print a method with the thumbprints of its certificates."""
    facts({**shown, "certificates": [one["thumbprint"] for one in shown["certificates"]]})


def _print(agent: dict[str, Any]) -> None:
    """Print an agent with the thumbprints of its keys, its certificates, exemptions for bearer tokens and secrets."""
    certificates = {"certificates": [one["serial"] for one in agent["certificates"]]} if "certificates" in agent else {}
    access = {
        name: [f"{one[member]} {word} {moment(one[time])}Z" for one in agent[name]]
        for name, member, word, time in (
            ("bearer", "resource", "since", "since"),
            ("secrets", "secret_id", "until", "expires_at"),
        )
        if name in agent
    }
    facts({**agent, "keys": [key["kid"] for key in agent["keys"]], **certificates, **access})

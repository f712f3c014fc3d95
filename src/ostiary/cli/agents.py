"""`ostiary agent`: register agents, say what they may, move them through their states."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.authorization.claims import SCOPE_ALIASES
from ostiary.cli.enrol import enrol
from ostiary.cli.files import key_of, read_json
from ostiary.cli.paper import err, facts, out, table
from ostiary.cli.session import PAGE, Here, Session, Usage
from ostiary.protocol.nearest import nearest_hint

agent = App(name="agent", help="Agents: register, list, say what they may, suspend, decommission.")
agent.command(enrol)

Kind = Literal["assistant", "autonomous", "workflow", "service"]
Risk = Literal["low", "medium", "high", "critical"]


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
    session: Here,
) -> None:
    """Register an agent; with a key it is active at once, without one it is pending.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; never given to another.
        owner: Name of the person or team that answers for it.
        purpose: What it is for, in words.
        scope: What its standing task allows, as RESOURCE:CLASS; may be given several times.
        generate_key: Make its key and write the private one here (0600).
        jwk: Register the public key in this JWK file instead.
        kind: What sort of agent it is.
        risk_tier: How much harm it could do.
        provider: Who runs the model.
        model: Which model it is.
        deputy: Name of the person who takes over when the owner leaves.
        segment: Segment that it lives in.
        max_depth: How many agents may come after it, one behind the other, in what it hands on.
        expires_in: Seconds after which it ends by itself.
        undeclared: Accept scopes that no registered resource declares.
    """
    key = key_of(generate=generate_key, jwk=jwk) if generate_key or jwk else None
    body: dict[str, Any] = {
        "name": name, "owner": owner, "purpose": purpose, "scopes": words(scope), "kind": kind, "risk_tier": risk_tier,
        "provider": provider, "model": model, "deputy": deputy, "segment": segment, "max_depth": max_depth,
        "expires_in": expires_in, "jwk": key and key.public, "undeclared": undeclared,
    }  # fmt: skip
    created = session.api("POST", "/agents", body)
    if key is not None:
        key.save(created["agent_id"], issuer=session.agent.issuer)
    session.show(created, _print)


@agent.command(name="list")
def list_agents(*, owner: str | None = None, limit: int = PAGE, session: Here) -> None:
    """List agents.

    Args:
        owner: Only those for which this person or team answers.
        limit: How many at most.
    """
    columns = {"name": "NAME", "state": "STATE", "owner": "OWNER", "scopes": "SCOPES", "agent_id": "ID"}
    found = session.pages("/agents", "agents", limit=limit, query={"owner": owner})
    session.show(found, lambda rows: table(rows, columns, empty="no agents: ostiary agent create --help"))


@agent.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show one agent with its keys, and the resources for which it may have bearer tokens (`bearer`).

    Args:
        name: Name or id.
    """
    found = session.api("GET", f"/agents/{name}") | session.api("GET", f"/agents/{name}/bearer")
    found |= session.api("GET", f"/agents/{name}/secrets")
    session.show(found, _print)


@agent.command(name="allow")
def allow(name: str, /, *scope: str, undeclared: bool = False, session: Here) -> None:
    """Add scopes to what an agent's standing task allows.

    Args:
        name: Name or id.
        scope: One or more, as RESOURCE:CLASS.
        undeclared: Accept scopes that no registered resource declares.
    """
    _set_scopes(session, name, add=words(scope), remove=[], undeclared=undeclared)


@agent.command(name="disallow")
def disallow(name: str, /, *scope: str, session: Here) -> None:
    """Take scopes from what an agent's standing task allows.

    Args:
        name: Name or id.
        scope: One or more, as RESOURCE:CLASS.
    """
    _set_scopes(session, name, add=[], remove=words(scope))


@agent.command(name="depth")
def depth(name: str, max_depth: int, /, *, session: Here) -> None:
    """Say how many agents may come after this one in what it hands on; counts from now on, 0 forbids it.

    Args:
        name: Name or id.
        max_depth: 0 to 7.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"max_depth": max_depth}), _print)


@agent.command(name="segment")
def segment(name: str, segment: str, /, *, session: Here) -> None:
    """Move an agent into another segment; its tokens end, and those that came through it.

    Args:
        name: Name or id.
        segment: Name of the segment.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"segment": segment}), _print)


@agent.command(name="transfer")
def transfer(name: str, /, *, owner: str, deputy: str | None = None, session: Here) -> None:
    """Let another person or team answer for an agent.

    Args:
        name: Name or id of the agent.
        owner: Name of the new owner.
        deputy: Name of the person who takes over when the new owner leaves.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"owner": owner, "deputy": deputy}), _print)


@agent.command(name="suspend")
def suspend(name: str, /, *, why: str = "", session: Here) -> None:
    """Stop an agent for now: what it holds dies; `resume` lets it begin again.

    Args:
        name: Name or id.
        why: For the ledger.
    """
    _move(session, name, "suspend", why)


@agent.command(name="resume")
def resume(name: str, /, *, why: str = "", session: Here) -> None:
    """Let a suspended agent act again.

    Args:
        name: Name or id.
        why: For the ledger.
    """
    _move(session, name, "resume", why)


@agent.command(name="quarantine")
def quarantine(name: str, /, *, why: str = "", session: Here) -> None:
    """Isolate an agent that is suspected; only `release` ends it.

    Args:
        name: Name or id.
        why: For the ledger.
    """
    _move(session, name, "quarantine", why)


@agent.command(name="release")
def release(name: str, /, *, why: str = "", session: Here) -> None:
    """Let an agent out of quarantine.

    Args:
        name: Name or id.
        why: For the ledger.
    """
    _move(session, name, "release", why)


@agent.command(name="decommission")
def decommission(name: str, /, *, why: str = "", session: Here) -> None:
    """End an agent for good. Its name is never given to another.

    Args:
        name: Name or id.
        why: For the ledger.
    """
    _move(session, name, "decommission", why)


@agent.command(name="budget")
def budget(name: str, /, *, limits: Path | None = None, session: Here) -> None:
    """Show what is left today of an agent's budget for each day (UTC), or say what it is from now on.

    Args:
        name: Name or id.
        limits: JSON file of all limits, such as [{"kind": "calls", "limit": 100}]; [] takes them away.
    """
    path = f"/agents/{name}/budget"
    said = session.api("GET", path) if limits is None else session.api("PUT", path, {"limits": read_json(limits)})
    columns = {"limit": "LIMIT", "left": "LEFT", "spent": "SPENT", "id": "ID"}
    session.show(said["budgets"], lambda rows: table(rows, columns, empty="no limit: ostiary agent budget --help"))


@agent.command(name="join-token")
def join_token(name: str, /, *, ttl: int = 3600, session: Here) -> None:
    """Make a one-time token with which a workload enrols a pending agent's key; it is shown once.

    Args:
        name: Name or id.
        ttl: Seconds until it is worthless.
    """
    session.show(session.api("POST", f"/agents/{name}/join-token", {"ttl": ttl}), facts)


@agent.command(name="allow-bearer")
def allow_bearer(name: str, /, *, resource: str, session: Here) -> None:
    """Let an agent whose client cannot do DPoP have bearer tokens for one resource; whoever sees one can use it.

    They are valid for five minutes at most, and the guards of that resource alone accept them (docs/how-to/clients.md).

    Args:
        name: Name or id.
        resource: Name or id of the resource; `ostiary` is this server's own API.
    """
    session.api("PUT", f"/agents/{name}/bearer/{resource}", {})
    show(name, session=session)


@agent.command(name="forbid-bearer")
def forbid_bearer(name: str, /, *, resource: str, session: Here) -> None:
    """Withdraw the exemption of an agent at a resource; the bearer tokens that it holds for it end now.

    Args:
        name: Name or id.
        resource: Name or id of the resource.
    """
    session.api("DELETE", f"/agents/{name}/bearer/{resource}")
    show(name, session=session)


@agent.command(name="create-secret")
def create_secret(name: str, /, *, days: int = 90, session: Here) -> None:
    """Make a client secret for an agent whose client knows nothing better; it is shown once.

    It gets bearer tokens for the resources where the agent is exempt, and nothing else (docs/how-to/clients.md).

    Args:
        name: Name or id.
        days: Days until it expires, at most 365.
    """
    session.show(session.api("POST", f"/agents/{name}/secrets", {"ttl": days * 86_400}), facts)


@agent.command(name="revoke-secret")
def revoke_secret(name: str, id: str, /, *, session: Here) -> None:
    """Revoke a client secret of an agent; the bearer tokens that the agent holds end now.

    Args:
        name: Name or id.
        id: Id of the secret; `ostiary agent show` has it.
    """
    session.api("DELETE", f"/agents/{name}/secrets/{id}")
    show(name, session=session)


@agent.command(name="allow-words")
def allow_words(name: str, /, *, session: Here) -> None:
    """Let an agent say what its person asked of a task; whoever hijacks it says whatever they need.

    Args:
        name: Name or id.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"speaks": True}), _print)


@agent.command(name="forbid-words")
def forbid_words(name: str, /, *, session: Here) -> None:
    """Ignore what an agent says that its person asked; counts for tasks that start from now on.

    Args:
        name: Name or id.
    """
    session.show(session.api("PATCH", f"/agents/{name}", {"speaks": False}), _print)


def words(given: Iterable[str]) -> list[str]:
    """`a b` and `c` are a, b and c."""
    return [word for text in given for word in text.split()]


def _set_scopes(session: Session, name: str, *, add: list[str], remove: list[str], undeclared: bool = False) -> None:
    if not add and not remove:
        raise Usage("which scopes?", hint=f"ostiary agent allow {name} RESOURCE:CLASS")
    before = session.api("GET", f"/agents/{name}")["scopes"]
    taken = {SCOPE_ALIASES.get(scope, scope) for scope in remove}
    scopes = sorted({*before, *add} - taken)
    session.show(session.api("PATCH", f"/agents/{name}", {"scopes": scopes, "undeclared": undeclared}), _print)
    for scope in sorted(taken - {*before}):
        err.print(
            f"`{name}` did not have the scope `{scope}`; {nearest_hint(scope, before)}".rstrip("; "), markup=False
        )
    changed, undo = ({*add} - {*before}, "disallow") if add else (taken & {*before}, "allow --undeclared")
    if changed and not session.as_json:
        verb, *option = undo.split()
        out.print("undo: ostiary agent", verb, name, *sorted(changed), *option, markup=False)


def _move(session: Session, name: str, verb: str, why: str) -> None:
    session.show(session.api("POST", f"/agents/{name}/{verb}", {"why": why}), _print)


def _print(agent: dict[str, Any]) -> None:
    """The keys by their names alone."""
    facts({**agent, "keys": [key["kid"] for key in agent["keys"]]})

"""`ostiary owner`, `agent`, `resource`: who exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from ostiary.cli.session import Session, facts, table
from ostiary.core import canonical, jose
from ostiary.core.errors import Conflict, Invalid, Refused
from ostiary.keys import save_key

Hidden = Annotated[Session, Parameter(parse=False)]

owner = App(name="owner", help="Persons who answer for agents.")
agent = App(name="agent", help="Agents: register, list, suspend, decommission.")
key = App(name="key", help="Keys of an agent: add, rotate, revoke.")
resource = App(name="resource", help="Protected servers, their guards' keys and their catalogues of tools.")


def add_to(app: App) -> None:
    agent.command(key)
    for part in (owner, agent, resource):
        app.command(part)


@owner.command(name="create")
def owner_create(name: str, *, email: str, deputy: str | None = None, session: Hidden) -> None:
    """Register a person.

    Parameters
    ----------
    email: Where the person is reached.
    deputy: Name of the person who takes over when this one leaves.
    """
    body = {"name": name, "email": email} | ({"deputy": deputy} if deputy else {})
    session.show(session.api("POST", "/persons", body), facts)


@owner.command(name="list")
def owner_list(*, session: Hidden) -> None:
    """List persons."""
    columns = {"name": "NAME", "email": "EMAIL", "state": "STATE", "person_id": "ID"}
    found = session.api("GET", "/persons")["persons"]
    session.show(found, lambda rows: table(rows, columns, empty="nobody yet: ostiary owner create NAME --email E"))


@agent.command(name="create")
def agent_create(
    name: str,
    *,
    owner: str,
    purpose: str,
    scope: Annotated[list[str], Parameter(negative="")] = [],  # noqa: B006 because cyclopts reads it as the default
    kind: str = "assistant",
    segment: str | None = None,
    expires_in: int | None = None,
    generate_key: Path | None = None,
    jwk: Path | None = None,
    session: Hidden,
) -> None:
    """Register an agent; with a key it is active at once, without one it is pending.

    Parameters
    ----------
    owner: Name of the person or team that answers for it.
    purpose: What it is for, in words.
    scope: What its standing task allows, as resource:class; may be given several times.
    kind: assistant, autonomous or service.
    segment: Segment that it lives in.
    expires_in: Seconds after which it ends by itself.
    generate_key: Make a key pair and write the private JWK here (0600).
    jwk: Register this public JWK instead.
    """
    if generate_key is not None and jwk is not None:
        raise Invalid("--generate-key and --jwk exclude each other", code="usage")
    body: dict[str, Any] = {"name": name, "owner": owner, "purpose": purpose, "scopes": scope, "kind": kind}
    body |= {"segment": segment} if segment else {}
    body |= {"expires_in": expires_in} if expires_in else {}
    private = _fresh_key(generate_key)
    if private is not None:
        body["jwk"] = dict(private.public.jwk)
    elif jwk is not None:
        body["jwk"] = _read_json(jwk)
    created = session.api("POST", "/agents", body)
    if private is not None and generate_key is not None:
        save_key(generate_key, private, client_id=created["agent_id"], issuer=session.url)
    session.show(created, facts)


@agent.command(name="list")
def agent_list(*, session: Hidden) -> None:
    """List agents."""
    columns = {"name": "NAME", "state": "STATE", "owner": "OWNER", "scopes": "SCOPES", "agent_id": "ID"}
    found = session.api("GET", "/agents", query={"limit": 1000})["agents"]
    session.show(found, lambda rows: table(rows, columns, empty="no agents yet: ostiary agent create --help"))


@agent.command(name="show")
def agent_show(name: str, *, session: Hidden) -> None:
    """Show one agent."""
    session.show(session.api("GET", f"/agents/{name}"), facts)


@agent.command(name="suspend")
def agent_suspend(name: str, *, session: Hidden) -> None:
    """Stop an agent for now: what it holds dies; `resume` lets it begin again."""
    session.show(session.api("POST", f"/agents/{name}/suspend", {}), facts)


@agent.command(name="resume")
def agent_resume(name: str, *, session: Hidden) -> None:
    """Let a suspended agent act again."""
    session.show(session.api("POST", f"/agents/{name}/resume", {}), facts)


@agent.command(name="decommission")
def agent_decommission(name: str, *, session: Hidden) -> None:
    """End an agent for good. Its name is never given to another."""
    session.show(session.api("POST", f"/agents/{name}/decommission", {}), facts)


@agent.command(name="join-token")
def agent_join_token(name: str, *, ttl: int = 3600, session: Hidden) -> None:
    """A one-time token with which a workload enrols the agent's first key; it is shown once.

    Parameters
    ----------
    ttl: Seconds until it is worthless.
    """
    session.show(session.api("POST", f"/agents/{name}/join-token", {"ttl": ttl}), facts)


@key.command(name="add")
def key_add(name: str, *, generate_key: Path | None = None, jwk: Path | None = None, session: Hidden) -> None:
    """Register one more key of an agent; both work until the old one is revoked."""
    if (generate_key is None) == (jwk is None):
        raise Invalid("give either --generate-key FILE or --jwk FILE", code="usage")
    private = _fresh_key(generate_key)
    public = dict(private.public.jwk) if private is not None else _read_json(jwk) if jwk is not None else {}
    added = session.api("POST", f"/agents/{name}/keys", {"jwk": public})
    if private is not None and generate_key is not None:
        save_key(generate_key, private, client_id=added["agent_id"], issuer=session.url)
    session.show(added, facts)


@resource.command(name="create")
def resource_create(
    name: str,
    *,
    uri: str,
    catalogue: Path | None = None,
    mode: str = "enforce",
    segment: str | None = None,
    generate_key: Path | None = None,
    session: Hidden,
) -> None:
    """Register a protected server.

    Parameters
    ----------
    uri: Its resource identifier (RFC 8707): https, or http on this machine.
    catalogue: JSON of its tools: our own form, or the result of an MCP tools/list.
    mode: enforce, or watch: decide and record, but let every call through.
    generate_key: Make the key of its guard and write the private JWK here (0600).
    """
    body: dict[str, Any] = {"name": name, "uri": uri, "mode": mode}
    body |= {"segment": segment} if segment else {}
    body |= {"catalogue": _read_json(catalogue)} if catalogue else {}
    private = _fresh_key(generate_key)
    if private is not None:
        body["jwk"] = dict(private.public.jwk)
    created = session.api("POST", "/resources", body)
    if private is not None and generate_key is not None:
        save_key(generate_key, private, client_id=created["resource_id"], issuer=session.url)
    session.show(created, facts)


@resource.command(name="list")
def resource_list(*, session: Hidden) -> None:
    """List resources."""
    columns = {"name": "NAME", "uri": "URI", "mode": "MODE", "resource_id": "ID"}
    found = session.api("GET", "/resources")["resources"]
    session.show(found, lambda rows: table(rows, columns, empty="no resources yet: ostiary resource create --help"))


@resource.command(name="show")
def resource_show(name: str, *, session: Hidden) -> None:
    """Show one resource with its catalogue."""
    session.show(session.api("GET", f"/resources/{name}"), facts)


@resource.command(name="catalogue")
def resource_catalogue(name: str, file: Path, *, session: Hidden) -> None:
    """Replace a resource's catalogue of tools."""
    session.show(session.api("PUT", f"/resources/{name}/catalogue", {"catalogue": _read_json(file)}), facts)


@resource.command(name="mode")
def resource_mode(name: str, mode: str, *, session: Hidden) -> None:
    """Switch between `enforce` and `watch`."""
    session.show(session.api("PUT", f"/resources/{name}/mode", {"mode": mode}), facts)


def _fresh_key(path: Path | None) -> jose.PrivateKey | None:
    """A new key for that path; refuses before anything is registered when the file exists."""
    if path is None:
        return None
    if path.exists():
        raise Conflict(f"{path} exists", hint="name another file; keys are never overwritten")
    return jose.generate("ES256")


def _read_json(path: Path) -> Any:
    try:
        return canonical.parse(path.read_bytes(), max_bytes=4 << 20)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", code="usage") from None
    except Refused as refusal:
        raise Invalid(f"{path}: {refusal.message}", code="usage") from None

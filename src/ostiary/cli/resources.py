"""`ostiary resource`: protected servers, the keys of their guards, and their catalogues of tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.authorization.catalogue import Catalogue, listing_of
from ostiary.catalogue_advisor.changes import Change, accept, diff
from ostiary.catalogue_advisor.reading import Reading, propose_catalogue
from ostiary.cli.agents import split_words
from ostiary.cli.files import key_of, read_json, write_new
from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import PAGE, Here, Session
from ostiary.cli.usage import Usage
from ostiary.protocol import canonical

resource = App(name="resource", help="Register protected servers, their guards' keys and their tools.")

Mode = Literal["enforce", "watch"]
Registration = Literal["document", "dynamic"]


@resource.command(name="create")
def create(
    name: str,
    /,
    *,
    uri: str,
    catalogue: Path | None = None,
    data_class: tuple[str, ...] | None = None,
    generate_key: Path | None = None,
    jwk: Path | None = None,
    mode: Mode = "enforce",
    segment: str = "default",
    session: Here,
) -> None:
    """Register a protected server.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; scopes begin with the name.
        uri: Resource identifier (RFC 8707): https, or http on this machine.
        catalogue: JSON file of the tools: an Ostiary catalogue, or results of an MCP server's list methods.
        data_class: Data class that every tool handles, such as personal; may be given several times.
        generate_key: Generate the key of the guard and write the private key to this file (0600).
        jwk: Register the public key in this JWK file as the key of the guard instead.
        mode: `watch` decides, records and allows every call; `enforce` denies.
        segment: Segment of the resource.
    """
    key = key_of(generate=generate_key, jwk=jwk) if generate_key or jwk else None
    body: dict[str, Any] = {"name": name, "uri": uri, "mode": mode, "segment": segment, "jwk": key and key.public}
    body["catalogue"] = _uploaded(catalogue) if catalogue else None
    body["data_classes"] = None if data_class is None else split_words(data_class)
    created = session.api("POST", "/resources", body)
    if key is not None:
        key.save(created["resource_id"], issuer=session.agent.issuer)
    session.show(created, facts)


@resource.command(name="list")
def list_resources(*, limit: int = PAGE, session: Here) -> None:
    """List resources.

    Args:
        limit: Largest number of rows.
    """
    columns = {"name": "NAME", "uri": "URI", "mode": "MODE", "segment": "SEGMENT", "resource_id": "ID"}
    rows = session.pages("/resources", "resources", limit=limit)
    session.show(rows, lambda rows: table(rows, columns, empty="no resources: ostiary resource create --help"))


@resource.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show a resource with its catalogue.

    Args:
        name: Name or id.
    """
    shown = session.api("GET", f"/resources/{name}") | session.api("GET", f"/resources/{name}/secrets")
    session.show(shown, _print)


@resource.command(name="create-secret")
def create_secret(name: str, /, *, days: int = 90, session: Here) -> None:
    """Create a client secret, with which a server without a guard introspects its tokens. The secret is shown once.

    Args:
        name: Name or id of the resource.
        days: Days until the secret expires, at most 365.
    """
    session.show(session.api("POST", f"/resources/{name}/secrets", {"ttl": days * 86_400}), facts)


@resource.command(name="revoke-secret")
def revoke_secret(name: str, id: str, /, *, session: Here) -> None:
    """Revoke a client secret of a resource.

    Args:
        name: Name or id of the resource.
        id: Id of the secret, from `ostiary resource show`.
    """
    session.api("DELETE", f"/resources/{name}/secrets/{id}")
    show(name, session=session)


@resource.command(name="allow-bearer")
def allow_bearer(
    name: str, /, *, registration: tuple[Registration, ...] = ("document", "dynamic"), session: Here
) -> None:
    """Allow bearer tokens for clients that registered themselves, at one resource. A thief can use such a token.

    MCP clients that cannot use DPoP need this. The tokens are valid for five minutes at most, and only the guards of
    that resource accept them (docs/how-to/clients.md).

    Args:
        name: Name or id.
        registration: `document` for clients with a metadata document, `dynamic` for self-registered clients;
            may be given several times.
    """
    for one in registration:
        allowed = session.api("PUT", f"/resources/{name}/bearer/{one}", {})
    session.show(allowed, facts)


@resource.command(name="forbid-bearer")
def forbid_bearer(
    name: str, /, *, registration: tuple[Registration, ...] = ("document", "dynamic"), session: Here
) -> None:
    """Forbid bearer tokens for clients that registered themselves, at one resource; their tokens are revoked.

    Args:
        name: Name or id.
        registration: `document` or `dynamic`; may be given several times.
    """
    for one in registration:
        allowed = session.api("DELETE", f"/resources/{name}/bearer/{one}")
    session.show(allowed, facts)


@resource.command(name="catalogue")
def set_catalogue(name: str, file: Path, /, *, session: Here) -> None:
    """Replace the catalogue of a resource.

    Args:
        name: Name or id.
        file: JSON file of the tools: an Ostiary catalogue, or results of an MCP server's list methods.
    """
    session.show(session.api("PUT", f"/resources/{name}/catalogue", {"catalogue": _uploaded(file)}), facts)


@resource.command(name="read")
def read(file: Path, /, *, name: str, write: Path | None = None, session: Here) -> None:
    """Propose a catalogue from the lists of an MCP server, with a reason for each line. The server stores nothing.

    Review and correct the catalogue; then `ostiary resource catalogue NAME FILE` puts it in force.

    Args:
        file: JSON file of the results of MCP list methods (`tools/list`, `resources/list`, `resources/templates/list`,
            `prompts/list`), in one object or a list.
        name: Name of the resource.
        write: New file for the catalogue.
    """
    proposed = _read(name, file)
    if write is not None:
        write_new(write, json.dumps(proposed.catalogue.render(), indent=2) + "\n")
    lines = [asdict(line) for line in proposed.lines]
    columns = {"tool": "TOOL", "member": "MEMBER", "value": "VALUE", "why": "REASON"}
    shown = {"catalogue": proposed.catalogue.render(), "lines": lines}
    session.show(shown, lambda value: table(value["lines"], columns, empty="the server lists no tools"))


@resource.command(name="diff")
def show_diff(name: str, file: Path, /, *, session: Here) -> None:
    """Compare the present tools of a server with its approved catalogue. Calls of new and changed tools are denied.

    Args:
        name: Name or id.
        file: JSON file of the results of MCP list methods (`tools/list`, `resources/list`, `resources/templates/list`,
            `prompts/list`), in one object or a list.
    """
    approved, listed, _ = _approved_and_listed(session, name, file)
    columns = {"tool": "TOOL", "verdict": "VERDICT", "what": "CHANGE", "was": "BEFORE", "now": "NOW"}
    changes = [_change_body(change) for change in diff(approved, listed)]
    session.show(changes, lambda rows: table(rows, columns, empty="the tools are as approved"))


@resource.command(name="accept")
def accept_changes(name: str, file: Path, /, *, tool: tuple[str, ...] = (), session: Here) -> None:
    """Accept the new and changed tools of a server into its catalogue. The owner's statements about a tool stay.

    Args:
        name: Name or id.
        file: JSON file of the results of MCP list methods, as given to `ostiary resource diff`.
        tool: Name of a tool; may be given several times. By default, all new and changed tools.
    """
    approved, listed, was = _approved_and_listed(session, name, file)
    body = {"catalogue": accept(approved, listed, tool).render(), "was": was}
    session.show(session.api("PUT", f"/resources/{name}/catalogue", body), facts)


@resource.command(name="classify")
def classify(name: str, /, *data_class: str, session: Here) -> None:
    """Classify a resource: set the data classes that every tool of it handles.

    Args:
        name: Name or id.
        data_class: All data classes, such as personal health; without one, the resource has none. The catalogue may add
            classes to single tools.
    """
    body = {"data_classes": split_words(data_class)}
    session.show(session.api("PUT", f"/resources/{name}/data-classes", body), facts)


@resource.command(name="mode")
def set_mode(name: str, mode: Mode, /, *, session: Here) -> None:
    """Switch a resource between watch mode and enforcement.

    Args:
        name: Name or id.
        mode: `watch` decides, records and allows every call; `enforce` denies.
    """
    session.show(session.api("PUT", f"/resources/{name}/mode", {"mode": mode}), facts)


@resource.command(name="key")
def set_key(name: str, /, *, generate_key: Path | None = None, jwk: Path | None = None, session: Here) -> None:
    """Replace the key of a resource's guard. The earlier key is revoked at once.

    Args:
        name: Name or id.
        generate_key: Generate the key and write the private key to this file (0600).
        jwk: Register the public key in this JWK file instead.
    """
    key = key_of(generate=generate_key, jwk=jwk)
    changed = session.api("PUT", f"/resources/{name}/key", {"jwk": key.public})
    key.save(changed["resource_id"], issuer=session.agent.issuer)
    session.show(changed, facts)


def _uploaded(file: Path) -> Any:
    """Return an Ostiary catalogue, or the lists of an MCP server in one object."""
    value = read_json(file)
    return listing_of(value) if isinstance(value, list) else value


def _read(name: str, file: Path) -> Reading:
    return propose_catalogue(name, read_json(file))


def _print(resource: dict[str, Any]) -> None:
    """Print a resource with its client secrets, then a table of its tools."""
    secrets = [f"{one['secret_id']} until {moment(one['expires_at'])}Z" for one in resource["secrets"]]
    facts({**resource, "secrets": secrets, "catalogue": None})
    columns = {"name": "TOOL", "effect": "EFFECT", "kinds": "KINDS OF ARGUMENTS", "description": "DESCRIPTION"}
    if resource["catalogue"] is not None:
        table(resource["catalogue"]["tools"], columns, empty="the catalogue has no tools")


def _change_body(change: Change) -> dict[str, str]:
    """Return a change as `--json` prints it."""
    return {
        "tool": change.tool,
        "verdict": change.verdict,
        "what": change.member,
        "was": change.was,
        "now": change.now,
    }


def _approved_and_listed(session: Session, name: str, file: Path) -> tuple[Catalogue, Catalogue, str | None]:
    """Return the approved catalogue, the catalogue of the tools in `file`, and the digest of the approved catalogue.
    Raises Usage for a resource without a catalogue, Malformed or Invalid for a file without a list of tools.
    """
    shown = session.api("GET", f"/resources/{name}")
    if shown["catalogue"] is None:
        raise Usage(
            f"`{name}` has no catalogue yet",
            hint=f"create a catalogue from the file: ostiary resource read {file} --name {name}",
        )
    approved = Catalogue.parse(canonical.encode(shown["catalogue"], floats=True))
    return approved, _read(approved.resource, file).catalogue, shown["catalogue_hash"]

"""`ostiary resource`: protected servers, their guards' keys, their catalogues of tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.authorization.catalogue import Catalogue, listing_of
from ostiary.catalogue_advisor.changes import accept, diff
from ostiary.catalogue_advisor.reading import Reading
from ostiary.catalogue_advisor.reading import read as propose
from ostiary.cli.agents import words
from ostiary.cli.files import key_of, read_json, write_new
from ostiary.cli.paper import facts, table
from ostiary.cli.session import PAGE, Here, Session, Usage
from ostiary.protocol import canonical

resource = App(name="resource", help="Protected servers, their guards' keys and their catalogues of tools.")

Mode = Literal["enforce", "watch"]


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
        name: Lower-case letters, digits, `.`, `_` and `-`; scopes begin with it.
        uri: Its resource identifier (RFC 8707): https, or http on this machine.
        catalogue: JSON of its tools: our own form, or the results of an MCP server's list methods.
        data_class: Data class that every tool of it handles, such as personal; may be given several times.
        generate_key: Make the key of its guard and write the private one here (0600).
        jwk: Register the public key in this JWK file as its guard's instead.
        mode: watch decides and records, and lets every call through.
        segment: Segment that it lives in.
    """
    key = key_of(generate=generate_key, jwk=jwk) if generate_key or jwk else None
    body: dict[str, Any] = {"name": name, "uri": uri, "mode": mode, "segment": segment, "jwk": key and key.public}
    body["catalogue"] = _uploaded(catalogue) if catalogue else None
    body["data_classes"] = None if data_class is None else words(data_class)
    created = session.api("POST", "/resources", body)
    if key is not None:
        key.save(created["resource_id"], issuer=session.agent.issuer)
    session.show(created, facts)


@resource.command(name="list")
def list_resources(*, limit: int = PAGE, session: Here) -> None:
    """List resources.

    Args:
        limit: How many at most.
    """
    columns = {"name": "NAME", "uri": "URI", "mode": "MODE", "segment": "SEGMENT", "resource_id": "ID"}
    found = session.pages("/resources", "resources", limit=limit)
    session.show(found, lambda rows: table(rows, columns, empty="no resources: ostiary resource create --help"))


@resource.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show one resource with its catalogue.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/resources/{name}"), facts)


@resource.command(name="catalogue")
def set_catalogue(name: str, file: Path, /, *, session: Here) -> None:
    """Replace a resource's catalogue of tools.

    Args:
        name: Name or id.
        file: JSON of its tools: our own form, or the results of an MCP server's list methods.
    """
    session.show(session.api("PUT", f"/resources/{name}/catalogue", {"catalogue": _uploaded(file)}), facts)


@resource.command(name="read")
def read(file: Path, /, *, name: str, write: Path | None = None, session: Here) -> None:
    """Propose a catalogue from what an MCP server lists, with a reason for each line; its owner confirms it.

    Nothing changes: look it through, correct it, and `ostiary resource catalogue NAME FILE` puts it in force.

    Args:
        file: JSON of the results of MCP list methods (`tools/list`, `resources/list`, `resources/templates/list`,
            `prompts/list`), in one object or a list.
        name: Name of the resource.
        write: Write the catalogue here; an existing file is not touched.
    """
    proposed = _read(name, file)
    if write is not None:
        write_new(write, json.dumps(proposed.catalogue.render(), indent=2) + "\n")
    lines = [asdict(line) for line in proposed.lines]
    columns = {"tool": "TOOL", "member": "MEMBER", "value": "VALUE", "why": "WHY"}
    shown = {"catalogue": proposed.catalogue.render(), "lines": lines}
    session.show(shown, lambda found: table(found["lines"], columns, empty="the server lists no tools"))


@resource.command(name="diff")
def show_diff(name: str, file: Path, /, *, session: Here) -> None:
    """Show what a server says of its tools now beside what its owner approved. A tool that has changed is denied.

    Args:
        name: Name or id.
        file: JSON of the results of MCP list methods (`tools/list`, `resources/list`, `resources/templates/list`,
            `prompts/list`), in one object or a list.
    """
    approved, listed, _ = _approved_and_listed(session, name, file)
    columns = {"tool": "TOOL", "verdict": "", "what": "WHAT", "was": "WAS", "now": "NOW"}
    changes = [asdict(change) for change in diff(approved, listed)]
    session.show(changes, lambda rows: table(rows, columns, empty="the server says what its owner approved"))


@resource.command(name="accept")
def accept_changes(name: str, file: Path, /, *, tool: tuple[str, ...] = (), session: Here) -> None:
    """Approve what a server says of its tools now; what its owner has said of them stays.

    Args:
        name: Name or id.
        file: JSON of the results of MCP list methods: the very one that `ostiary resource diff` was shown.
        tool: Only this tool; may be given several times. Without, all that are new or changed.
    """
    approved, listed, was = _approved_and_listed(session, name, file)
    body = {"catalogue": accept(approved, listed, tool).render(), "was": was}
    session.show(session.api("PUT", f"/resources/{name}/catalogue", body), facts)


@resource.command(name="classify")
def classify(name: str, /, *data_class: str, session: Here) -> None:
    """Say which data classes every tool of a resource handles; without one, none beside the tools' own.

    Args:
        name: Name or id.
        data_class: All of them, such as personal health; a tool's catalogue may say more.
    """
    body = {"data_classes": words(data_class)}
    session.show(session.api("PUT", f"/resources/{name}/data-classes", body), facts)


@resource.command(name="mode")
def set_mode(name: str, mode: Mode, /, *, session: Here) -> None:
    """Switch between enforcing and watching.

    Args:
        name: Name or id.
        mode: watch decides and records, and lets every call through.
    """
    session.show(session.api("PUT", f"/resources/{name}/mode", {"mode": mode}), facts)


@resource.command(name="key")
def set_key(name: str, /, *, generate_key: Path | None = None, jwk: Path | None = None, session: Here) -> None:
    """Give a resource's guard another key; the one before is worthless at once.

    Args:
        name: Name or id.
        generate_key: Make the key and write the private one here (0600).
        jwk: Register the public key in this JWK file instead.
    """
    key = key_of(generate=generate_key, jwk=jwk)
    changed = session.api("PUT", f"/resources/{name}/key", {"jwk": key.public})
    key.save(changed["resource_id"], issuer=session.agent.issuer)
    session.show(changed, facts)


def _uploaded(file: Path) -> Any:
    """A catalogue in our own form, or a listing of an MCP server in one object."""
    said = read_json(file)
    return listing_of(said) if isinstance(said, list) else said


def _read(name: str, file: Path) -> Reading:
    return propose(name, read_json(file))


def _approved_and_listed(session: Session, name: str, file: Path) -> tuple[Catalogue, Catalogue, str | None]:
    """With the digest of the catalogue that is approved. Raises Usage, Malformed, Invalid."""
    found = session.api("GET", f"/resources/{name}")
    if found["catalogue"] is None:
        raise Usage(f"`{name}` has no catalogue yet", hint=f"ostiary resource read {file} --name {name}")
    approved = Catalogue.parse(canonical.encode(found["catalogue"], floats=True))
    return approved, _read(approved.resource, file).catalogue, found["catalogue_hash"]

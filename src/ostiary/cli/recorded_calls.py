"""Recorded calls and registered resources, for `suggest`, `enforce` and `catalogue`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from ostiary.authorization.catalogue import Catalogue
from ostiary.cli.output import progress
from ostiary.cli.session import PAGE, Session
from ostiary.cli.usage import Usage
from ostiary.protocol.errors import Refused

MAX_ENTRIES = 100_000
ACTIONS = ("tool.call", "tool.undecided")


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource with its catalogue, if it has one."""

    facts: dict[str, Any]
    catalogue: Catalogue | None

    @property
    def name(self) -> str:
        """Return the name of the resource."""
        return str(self.facts["name"])

    @property
    def uri(self) -> str:
        """Return the resource identifier (RFC 8707), a URI."""
        return str(self.facts["uri"])


def entries(session: Session, *, since: int, **filters: str | None) -> list[dict[str, Any]]:
    """Return the ledger entries of calls since `since` (microseconds), newest first. `filters`: parameters of the
    search, such as `agent`. Raises Usage for more than MAX_ENTRIES calls.
    """
    calls = list[dict[str, Any]]()
    with progress() as shown:
        bar = shown.add_task("reading calls", total=None)
        for action in ACTIONS:
            query = {**filters, "action": action, "since": since}
            limit = MAX_ENTRIES + 1 - len(calls)
            calls += session.pages(
                "/audit",
                "entries",
                limit=limit,
                query=query,
                cursor="before",
                progress=lambda done: shown.update(bar, completed=done),
            )
            if len(calls) > MAX_ENTRIES:
                raise Usage(f"there are more than {MAX_ENTRIES} calls", hint="choose a later start with --since")
    return sorted(calls, key=lambda entry: -entry["index"])


def resources(session: Session, uris: Iterable[str]) -> dict[str, Resource]:
    """Return the registered resources with these URIs, by URI."""
    selected = set(uris)
    listed = session.pages("/resources", "resources", limit=100 * PAGE)
    return {one["uri"]: resource(session, one["name"]) for one in listed if one["uri"] in selected}


def resource(session: Session, name: str) -> Resource:
    """Return a resource with its catalogue. Raises ServerRefused for an unknown resource, and Usage for a catalogue
    that cannot be read.
    """
    facts = session.api("GET", f"/resources/{name}")
    text = facts.pop("catalogue")
    try:
        catalogue = None if text is None else Catalogue.parse(msgspec.json.encode(text))
    except Refused as refusal:
        raise Usage(
            f"the catalogue of `{name}` cannot be read: {refusal.message}",
            hint=f"replace the catalogue: ostiary resource catalogue {name} FILE",
        ) from None
    return Resource(facts, catalogue)

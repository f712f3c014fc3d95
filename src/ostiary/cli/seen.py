"""What the ledger and the registry say about an agent's calls, as `suggest` and `enforce` need it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from ostiary.authorization.catalogue import Catalogue
from ostiary.cli.session import PAGE, Session, Usage
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
        return str(self.facts["name"])

    @property
    def uri(self) -> str:
        return str(self.facts["uri"])


def entries(session: Session, *, since: int, **filters: str | None) -> list[dict[str, Any]]:
    """The entries of calls since then (microseconds), newest first. Raises Usage for more than one can look through."""
    found = list[dict[str, Any]]()
    for action in ACTIONS:
        query = {**filters, "action": action, "since": since}
        found += session.pages("/audit", "entries", limit=MAX_ENTRIES + 1 - len(found), query=query, cursor="before")
        if len(found) > MAX_ENTRIES:
            raise Usage(f"there are more than {MAX_ENTRIES} calls", hint="shorten the time with --since")
    return sorted(found, key=lambda entry: -entry["index"])


def resources(session: Session, uris: Iterable[str]) -> dict[str, Resource]:
    """Those of them that are registered, by URI."""
    wanted = set(uris)
    listed = session.pages("/resources", "resources", limit=100 * PAGE)
    return {one["uri"]: resource(session, one["name"]) for one in listed if one["uri"] in wanted}


def resource(session: Session, name: str) -> Resource:
    """Raises ServerRefused."""
    facts = session.api("GET", f"/resources/{name}")
    text = facts.pop("catalogue")
    try:
        catalogue = None if text is None else Catalogue.parse(msgspec.json.encode(text))
    except Refused as refusal:
        raise Usage(f"the catalogue of `{name}` cannot be read: {refusal.message}") from None
    return Resource(facts, catalogue)

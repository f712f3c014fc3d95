"""Between the ids that the ledger keeps and the names that people use."""

from __future__ import annotations

import re

from ostiary.agent import ServerRefused
from ostiary.cli.session import Session

_ID = re.compile(r"(ag|pe|pp|rs|te)_[0-9a-f]{32}")
_KINDS = {"ag": "agents", "pe": "persons", "pp": "peps", "rs": "resources", "te": "teams"}
_CALLED = {"agent": ("agents", "agent_id"), "person": ("persons", "person_id"), "resource": ("resources", "uri")}


class Names:
    """Names by id, each looked up when it is first needed."""

    def __init__(self, session: Session) -> None:
        self._session, self._known = session, dict[str, str]()

    def __call__(self, word: str) -> str:
        """The name behind an id; anything else as it is."""
        id = _ID.fullmatch(word)
        if id is None:
            return word
        if word not in self._known:
            try:
                self._known[word] = self._session.api("GET", f"/{_KINDS[id[1]]}/{word}")["name"]
            except ServerRefused:
                self._known[word] = word  # the ledger remembers what is no more
        return self._known[word]


def id_of(session: Session, kind: str, name: str | None) -> str | None:
    """What the ledger calls an agent, a person or a resource: its id, or a resource's URI. Raises ServerRefused."""
    if name is None or name.startswith(("ag_", "pe_")) or "://" in name:
        return name
    path, member = _CALLED[kind]
    return str(session.api("GET", f"/{path}/{name}")[member])

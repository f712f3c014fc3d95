"""Names for ids: the ledger contains ids, and people use names."""

from __future__ import annotations

import re

from ostiary.cli.ids import ID_DIGITS, LISTS
from ostiary.cli.session import Session
from ostiary.protocol.errors import Refused

_SHOWN = ("ag", "pe", "pp", "rs", "te")
"""Kinds of ids in place of which commands show names."""
_ID = re.compile(rf"({'|'.join(_SHOWN)})_[0-9a-f]{{{ID_DIGITS}}}")
_MEMBERS = {"agent": ("agents", "agent_id"), "person": ("persons", "person_id"), "resource": ("resources", "uri")}


class Names:
    """The names of ids. Each name is requested from the server once, when it is first needed."""

    def __init__(self, session: Session) -> None:
        self._session, self._known = session, dict[str, str]()

    def __call__(self, word: str) -> str:
        """Return the name of an id; any other text unchanged."""
        id = _ID.fullmatch(word)
        if id is None:
            return word
        if word not in self._known:
            try:
                self._known[word] = self._session.api("GET", f"{LISTS[id[1]].path}/{word}")["name"]
            except Refused:
                self._known[word] = word  # the caller may not read the object
        return self._known[word]

    def with_id(self, id: str | None) -> str:
        """Return `name (id)`; the id alone if the object has no name, or the caller may not read the name."""
        name = self(id or "")
        return name if name == (id or "") else f"{name} ({id})"

    def in_text(self, text: str) -> str:
        """Return `text` with the name in place of each id."""
        return _ID.sub(lambda match: self(match[0]), text)


def id_of(session: Session, kind: str, name: str | None) -> str | None:
    """Return the text by which the ledger refers to the object `name` of this kind: the id of an agent or a person, the
    URI of a resource; None without a name. Raises ServerRefused if there is no such object.

    An id, a prefix of an id and a URI are returned unchanged: the request that follows completes a prefix.
    """
    if name is None or name.startswith(("ag_", "pe_")) or "://" in name:
        return name
    path, member = _MEMBERS[kind]
    return str(session.api("GET", f"/{path}/{name}")[member])

"""Pages of the secrets whose paths begin with a text, in the order of their creation or of their paths."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader
from ostiaryd.secrets.model.request import MAX_NUMBER
from ostiaryd.secrets.store import keyvalue as store
from ostiaryd.secrets.store.keyvalue import Creation

SEARCHED = 1000
"""Maximum number of rows that one page searches for the order of creation."""
_AFTER = b"\x01"
"""A byte that sorts directly after the end of a path and before each longer path, because no path contains a control
character.
"""


class SecretPage(NamedTuple):
    """The paths of a page, and the place after which the next page begins; None: there is no next page."""

    paths: list[str]
    place: bytes | None


def page_by_name(
    reader: Reader, mount: str, prefix: str, *, after: bytes | None, limit: int, is_descending: bool
) -> SecretPage:
    """Return a page of at most `limit` paths that begin with `prefix`, in the order of their bytes, or, if
    `is_descending`, in the opposite order. `after`: the cursor of the page before; None for the first page.
    """
    first, end = prefix.encode(), prefix.encode() + b"\xff"
    if after is not None and is_descending:
        end = min(end, after)
    elif after is not None:
        first = max(first, after + _AFTER)
    paths = store.paths(reader, mount, first=first, end=end, limit=limit, is_descending=is_descending)
    return SecretPage([path.decode() for path in paths], paths[-1] if len(paths) == limit else None)


def page_by_creation(
    reader: Reader, mount: str, prefix: str, *, after: bytes | None, limit: int, is_descending: bool
) -> SecretPage:
    """Return a page of at most `limit` paths that begin with `prefix`, in the order in which their secrets were
    created, or, if `is_descending`, in the opposite order. `after`: the cursor of the page before; None for the first
    page.

    If more than `SEARCHED` paths begin with `prefix`, the page may be short or empty, because one page searches so many
    secrets of the mount at most.
    """
    start = _read_place(after) if after is not None else Creation(*((MAX_NUMBER, b"") if is_descending else (-1, b"")))
    first, end = prefix.encode(), prefix.encode() + b"\xff"
    creations = store.creations(reader, mount, first=first, end=end, limit=SEARCHED + 1)
    if len(creations) <= SEARCHED:
        rest = sorted(
            (one for one in creations if (one < start if is_descending else one > start)), reverse=is_descending
        )
        page = rest[:limit]
        return SecretPage([one.path.decode() for one in page], _place(page[-1]) if len(rest) > limit else None)
    searched = store.creations_after(reader, mount, start, limit=SEARCHED, is_descending=is_descending)
    page = [one for one in searched if one.path.startswith(first)][:limit]
    last = page[-1] if len(page) == limit else searched[-1] if len(searched) == SEARCHED else None
    return SecretPage([one.path.decode() for one in page], None if last is None else _place(last))


def _place(creation: Creation) -> bytes:
    return b"%d %s" % creation


def _read_place(place: bytes) -> Creation:
    created_at, _, path = place.partition(b" ")
    return Creation(int(created_at), path)

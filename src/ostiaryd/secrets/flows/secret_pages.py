"""Pages of the secrets whose paths begin with a text, in the order of their paths or of one of their times."""

from __future__ import annotations

from typing import NamedTuple

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.secrets import store
from ostiaryd.secrets.model.request import MAX_NUMBER
from ostiaryd.secrets.store.keyvalue import PathTime

SEARCHED = 1000
"""Maximum number of rows that one page searches for the order of creation."""
MAX_SORTED = 10_000
"""Maximum number of secrets that are sorted by a time that changes."""
_AFTER = b"\x01"
"""A byte that sorts directly after the end of a path and before each longer path, because no path contains a control
character.
"""


class SecretPage(NamedTuple):
    """The paths of a page, and the cursor (`after`) with which the next page begins; None: there is no next page."""

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
    paths = store.keyvalue.paths(reader, mount, first=first, end=end, limit=limit, is_descending=is_descending)
    return SecretPage([path.decode() for path in paths], paths[-1] if len(paths) == limit else None)


def page_by_time(
    reader: Reader, mount: str, prefix: str, *, column: str, after: bytes | None, limit: int, is_descending: bool
) -> SecretPage:
    """Return a page of at most `limit` paths that begin with `prefix`, in the order of the time `column` (`created_at`,
    `updated_at` or `read_at`) of their secrets, or, if `is_descending`, in the opposite order. `after`: the cursor of
    the page before; None for the first page.

    If more than `SEARCHED` paths begin with `prefix`, a page by `created_at` reads the next `SEARCHED` secrets of the
    whole mount. Such a page can be short or empty and still have a next page. Raises Invalid for `updated_at` and
    `read_at` if more than `MAX_SORTED` paths begin with `prefix`.
    """
    start = _read_place(after) if after is not None else PathTime(*((MAX_NUMBER, b"") if is_descending else (-1, b"")))
    first, end = prefix.encode(), prefix.encode() + b"\xff"
    most = SEARCHED if column == "created_at" else MAX_SORTED
    times = store.keyvalue.times(reader, mount, column, first=first, end=end, limit=most + 1)
    if len(times) <= most:
        rest = sorted((one for one in times if (one < start if is_descending else one > start)), reverse=is_descending)
        page = rest[:limit]
        return SecretPage([one.path.decode() for one in page], _place(page[-1]) if len(rest) > limit else None)
    if column != "created_at":
        raise Invalid(
            f"more than {MAX_SORTED} secrets cannot be sorted by this date",
            hint="list one folder by the filter name, or sort by created-date or name",
        )
    searched = store.keyvalue.creations_after(reader, mount, start, limit=SEARCHED, is_descending=is_descending)
    page = [one for one in searched if one.path.startswith(first)][:limit]
    last = page[-1] if len(page) == limit else searched[-1] if len(searched) == SEARCHED else None
    return SecretPage([one.path.decode() for one in page], None if last is None else _place(last))


def _place(at: PathTime) -> bytes:
    return b"%d %s" % at


def _read_place(place: bytes) -> PathTime:
    time, _, path = place.partition(b" ")
    return PathTime(int(time), path)

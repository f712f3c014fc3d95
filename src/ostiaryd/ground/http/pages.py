"""Lists in pages: `?limit=` rows (1 to 1000, 100 by default), `?after=` the cursor of the page before.

A page is at most `MAX_PAGE_BYTES` large: it ends before the first row that would exceed the limit, and its cursor
continues with that row. If a row is larger than `MAX_ROW_BYTES`, its long members are left out, and `cut` lists their
names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Headers, Reply

T = TypeVar("T")
MAX_ROWS = 1000
DEFAULT_ROWS = 100
MAX_PAGE_BYTES = 1 << 20
MAX_ROW_BYTES = 128 << 10
MAX_MEMBER_BYTES = 4 << 10
CHUNK = 100
"""Number of rows that are read from the database at once, so that a page of large rows does not read many
rows in vain.
"""
MAX_CURSOR = 512
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Page:
    """The page that a client requests: at most `limit` rows after the cursor `after`, from the first row on if `after`
    is empty.
    """

    limit: int
    after: str


def parse_page(limit: str | None, after: str | None) -> Page:
    """Return the requested page, parsed from the query parameters. Raises Invalid for a malformed parameter."""
    if after is not None and len(after) > MAX_CURSOR:
        raise Invalid(
            f"`after` has more than {MAX_CURSOR} characters, so it is not a cursor",
            hint="send the `next` of the previous page",
        )
    if limit is None:
        return Page(DEFAULT_ROWS, after or "")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MAX_ROWS):
        raise Invalid(f"`limit` must be 1 to {MAX_ROWS}")
    return Page(int(limit), after or "")


def fill_page(
    kind: str,
    page: Page,
    read: Callable[[Page], Sequence[T]],
    render: Callable[[T], Mapping[str, object]],
    *,
    cursor: Callable[[T], str],
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return `{kind: [rows], "next": cursor}` as JSON, and the members of `extra`. `next` is null after the last row. A
    full page always has a `next`, even if the following page is empty. A page also ends before the first row that would
    exceed `MAX_PAGE_BYTES`.

    `read` returns the rows after the cursor of its page, at most as many as the page requests.
    """
    rows: list[bytes] = []
    after, size, more = page.after, len(kind) + MAX_CURSOR, True
    while more and len(rows) < page.limit:
        count = min(CHUNK, page.limit - len(rows))
        chunk = read(Page(count, after))
        for one in chunk:
            row = _encode_row(render(one))
            size += len(row) + 1
            if size > MAX_PAGE_BYTES:
                return _encode_page(kind, rows, after, extra)
            rows.append(row)
            after = cursor(one)
        more = len(chunk) == count
    return _encode_page(kind, rows, after if more else None, extra)


def encode_rows(
    kind: str,
    rows: Sequence[T],
    render: Callable[[T], Mapping[str, object]],
    *,
    cursor: Callable[[T], str],
    following: str | None,
) -> bytes:
    """Return `{kind: [rows], "next": following}` as JSON. If the rows exceed the size limit, the page ends before the
    first row that does not fit, and `next` is the cursor of the row before.
    """
    encoded: list[bytes] = []
    size = len(kind) + MAX_CURSOR
    for place, one in enumerate(rows):
        row = _encode_row(render(one))
        size += len(row) + 1
        if size > MAX_PAGE_BYTES:
            return _encode_page(kind, encoded, cursor(rows[place - 1]), None)
        encoded.append(row)
    return _encode_page(kind, encoded, following, None)


async def reply_page(
    call: Call,
    kind: str,
    read: Callable[[Reader, Page], Sequence[T]],
    render: Callable[[Reader, T], Mapping[str, object]],
    *,
    cursor: Callable[[T], str],
    headers: Headers | None = None,
    count: Callable[[Reader], int] | None = None,
) -> Reply:
    """Return the reply to a request for a page of rows. If `count` is given, the reply contains the number of all rows
    as the member `total`. Raises Invalid for a wrong query.
    """
    page = parse_page(call.query_one("limit"), call.query_one("after"))

    def fill(reader: Reader) -> bytes:
        return fill_page(
            kind,
            page,
            lambda part: read(reader, part),
            lambda row: render(reader, row),
            cursor=cursor,
            extra=None if count is None else {"total": count(reader)},
        )

    return Reply(200, await call.world.db.scan(fill), headers=headers or [])


async def reply_short_list(
    call: Call,
    kind: str,
    read: Callable[[Reader], Sequence[T]],
    render: Callable[[Reader, T], Mapping[str, object]],
    *,
    cursor: Callable[[T], str],
) -> Reply:
    """Return the reply to a request for a page of a short list, of which `read` reads all rows. If the row at which the
    cursor points no longer exists, the page is empty. Raises Invalid for a wrong query.
    """

    def read_page(reader: Reader, page: Page) -> Sequence[T]:
        rows, start = read(reader), 0
        if page.after:
            start = next((number for number, row in enumerate(rows, 1) if cursor(row) == page.after), len(rows))
        return rows[start : start + page.limit]

    return await reply_page(call, kind, read_page, render, cursor=cursor)


def _encode_row(row: Mapping[str, object]) -> bytes:
    if len(encoded := _encode(row)) <= MAX_ROW_BYTES:
        return encoded
    long = [name for name, value in row.items() if len(_encode(value)) > MAX_MEMBER_BYTES]
    return _encode({name: value for name, value in row.items() if name not in long} | {"cut": long})


def _encode_page(kind: str, rows: Sequence[bytes], following: str | None, extra: Mapping[str, Any] | None) -> bytes:
    more = b"".join(b',"%b":%b' % (name.encode(), _encode(value)) for name, value in (extra or {}).items())
    return b'{"%b":[%b],"next":%b%b}' % (kind.encode(), b",".join(rows), _encode(following), more)

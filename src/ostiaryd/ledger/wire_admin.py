"""The ledger for administrators: search, one entry, and its receipt."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypedDict

import msgspec

from ostiary.protocol.checkpoint import parse_checkpoint
from ostiary.protocol.errors import Invalid, NotFound
from ostiary.protocol.note import parse_note
from ostiary.protocol.receipt import make_receipt
from ostiary.protocol.tiles import hashes_from
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.pages import Page, fill_page, parse_page
from ostiaryd.ground.http.routes import PageBody, Query, Route
from ostiaryd.ledger import store

_WORDS = {"about", "agent", "task", "person", "resource", "action", "outcome", "data_class", "reads", "total"}
MAX_COUNTED = 100_000
"""Maximum number of entries that a search counts."""
_NUMBERS = {"since", "until", "after", "before", "limit"}


class EntryBody(TypedDict):
    """An entry of the ledger: its index, its time in microseconds, and the members that the act filled."""

    index: int
    at: int
    action: str


class ReceiptBody(TypedDict):
    """An entry as it is in the log, and its C2SP tlog-proof."""

    index: int
    entry: str
    proof: str


async def search(call: Call) -> Reply:
    """Search the ledger, newest entry first.

    `after=INDEX` returns later entries, oldest first; `before=INDEX` the page before. `next` is the INDEX with which
    the list continues in the same direction. `reads=no` leaves out the tokens issued for this server's own API.
    `total=true` adds the number of all matching entries, null for more than 100,000.
    """
    filters: dict[str, str | int] = {}
    for name, values in parse_form(call.query.encode("latin-1")).items():
        if name not in _WORDS | _NUMBERS:
            raise Invalid(f"`{name[:100]}` is no filter", hint=f"filters: {', '.join(sorted(_WORDS | _NUMBERS))}")
        if len(values) != 1:
            raise Invalid(f"the filter `{name}` was sent {len(values)} times", hint="send it once")
        filters[name] = _number(name, values[0]) if name in _NUMBERS else values[0]
    if (reads := filters.pop("reads", "yes")) not in ("yes", "no"):
        raise Invalid("`reads` must be `yes` or `no`")
    if (counts := filters.pop("total", "false")) not in ("true", "false"):
        raise Invalid("`total` must be `true` or `false`")
    if reads == "no":
        filters["without_reads_of"] = f"{call.world.config.issuer}/api/v1"
    limit = parse_page(None if "limit" not in filters else str(filters.pop("limit")), None).limit
    direction = "after" if "after" in filters else "before"

    def read(reader: Reader, page: Page) -> list[tuple[int, bytes]]:
        page_filters = filters | ({direction: int(page.after)} if page.after else {})
        return store.search(reader, page_filters, limit=page.limit)

    def fill(reader: Reader) -> bytes:
        return fill_page(
            "entries",
            Page(limit, ""),
            partial(read, reader),
            lambda row: _render(*row),
            cursor=lambda row: str(row[0]),
            extra={"total": store.count(reader, filters, most=MAX_COUNTED)} if counts == "true" else None,
        )

    return Reply(200, await call.world.db.scan(fill))


async def entry(call: Call) -> Reply:
    """Show one entry of the ledger."""
    index = _number("index", call.params["index"])
    body = store.body(call.world.db.read(), index)
    if body is None:
        raise NotFound(f"the ledger has no entry {index}")
    return reply(_render(index, body))


async def proof(call: Call) -> Reply:
    """Return a receipt of an entry: a C2SP tlog-proof with the bytes of the entry."""
    index = _number("index", call.params["index"])
    return reply(await call.world.db.scan(lambda reader: _prove(reader, index)))


def _prove(reader: Reader, index: int) -> ReceiptBody:
    body = store.body(reader, index)
    if body is None:
        raise NotFound(f"the ledger has no entry {index}")
    _, note = store.head(reader)
    size = parse_checkpoint(parse_note(note.encode()).text).size
    receipt = make_receipt(index, size=size, note=note.encode(), hash_at=hashes_from(store.rows(reader)))
    return {"index": index, "entry": body.decode(), "proof": receipt.render().decode()}


def _render(index: int, body: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return {"index": index, **decoded}


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18) and text != "-1":
        raise Invalid(f"`{name}` is not a number of up to 18 digits")
    return int(text)


FILTERS = (
    *(Query(name, f"Entries with this `{name}`.") for name in sorted(_WORDS - {"about", "reads", "total"})),
    Query("about", "Entries about the agent with this id that others made."),
    Query("since", "Entries from this time on, in microseconds.", int),
    Query("until", "Entries before this time, in microseconds.", int),
    Query("after", "Entries behind this index, oldest first.", int),
    Query("before", "Entries in front of this index, newest first.", int),
    Query("reads", "`no` leaves out tokens issued for this server's own API."),
    Query("total", "`true` adds the number of all matching entries.", Literal["true", "false"]),
    Query("limit", "Entries of the page: 1 to 1000, 100 by default.", int),
)

ROUTES = (
    Route("GET", "/api/v1/audit", search, "ostiary:read", answers={200: PageBody("entries", EntryBody)}, query=FILTERS),
    Route("GET", "/api/v1/audit/{index}", entry, "ostiary:read", answers={200: EntryBody}),
    Route("GET", "/api/v1/audit/{index}/proof", proof, "ostiary:read", answers={200: ReceiptBody}),
)

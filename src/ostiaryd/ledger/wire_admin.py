"""The ledger for administrators: search, one entry, and its receipt."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import cache, partial
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
from ostiaryd.ground.http.pages import Page, fill_page, parse_page, reply_page
from ostiaryd.ground.http.routes import PAGE, PageBody, Query, Route
from ostiaryd.ledger import store

MAX_COUNTED = 100_000
"""Maximum number of entries that a search counts."""
MAX_RECEIPTS = 200
"""Maximum number of receipts in a page."""
MAX_RECEIPT_BYTES = 450_000
"""Number of bytes of receipts after which a page ends. JSON can double the size, and a response may have at most 1 MiB.
"""
PROOF_BYTES = 1_500
_EXACT = ("action", "agent", "data_class", "outcome", "person", "resource", "task")
FILTERS = (
    *(Query(name, f"Entries with this `{name}`.") for name in _EXACT),
    Query("about", "Entries about the agent with this id, made by another party."),
    Query("since", "Entries from this time on, in microseconds since the epoch.", int),
    Query("until", "Entries before this time, in microseconds since the epoch.", int),
    Query("after", "Entries with a higher index, oldest first.", int),
    Query("before", "Entries with a lower index, newest first.", int),
    Query("reads", "`no` leaves out tokens issued for this server's own API."),
    Query("total", "`true` adds the number of all matching entries.", Literal["true", "false"]),
    Query("limit", "Number of entries in the page: 1 to 1000, 100 by default.", int),
)
"""The query parameters of a search. The condition of a filter is in `ostiaryd.ledger.store.tree`."""
_NAMES = {one.name for one in FILTERS}
_NUMBERS = {one.name for one in FILTERS if one.type is int}


class EntryBody(TypedDict):
    """An entry of the ledger: its index, its time in microseconds since the epoch, and the members that the act
    filled.
    """

    index: int
    at: int
    action: str


class ReceiptBody(TypedDict):
    """A receipt: the bytes of an entry, and the C2SP tlog-proof of their inclusion."""

    index: int
    entry: str
    proof: str


class ReceiptsBody(TypedDict):
    """A page of receipts under one checkpoint, the newest entry first. `next` is the value of `before` for the next
    page.
    """

    receipts: list[ReceiptBody]
    next: str | None


class KeptCheckpointBody(TypedDict):
    """A stored checkpoint: the number of entries, the time in microseconds since the epoch, and the note (C2SP
    tlog-checkpoint).
    """

    size: int
    at: int
    note: str


async def search(call: Call) -> Reply:
    """Search the ledger, newest entry first.

    `after=INDEX` returns entries with a higher index, oldest first; `before=INDEX` returns entries with a lower index.
    `next` is the INDEX that continues the list in the same direction. `reads=no` leaves out the tokens issued for this
    server's own API. `total=true` adds the number of all matching entries, null if there are more than 100,000.
    """
    filters, limit = _parse_search(call, _NAMES)
    if (counts := filters.pop("total", "false")) not in ("true", "false"):
        raise Invalid("`total` must be `true` or `false`")
    direction = "after" if "after" in filters else "before"

    def read(reader: Reader, page: Page) -> list[tuple[int, bytes]]:
        page_filters = filters | ({direction: int(page.after)} if page.after else {})
        return store.search_entries(reader, page_filters, limit=page.limit)

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


def _parse_search(call: Call, names: AbstractSet[str]) -> tuple[dict[str, str | int], int]:
    """Return the filters of a search, each one of `names`, and the number of entries of its page. Raises Invalid for
    an unknown, repeated or malformed filter.
    """
    filters: dict[str, str | int] = {}
    for name, values in parse_form(call.query.encode("latin-1")).items():
        if name not in names:
            raise Invalid(f"`{name[:100]}` is not a filter", hint=f"filters: {', '.join(sorted(names))}")
        if len(values) != 1:
            raise Invalid(f"the filter `{name}` was sent {len(values)} times", hint="send each filter once")
        filters[name] = _number(name, values[0]) if name in _NUMBERS else values[0]
    if (reads := filters.pop("reads", "yes")) not in ("yes", "no"):
        raise Invalid("`reads` must be `yes` or `no`")
    if reads == "no":
        filters["without_reads_of"] = f"{call.world.config.issuer}/api/v1"
    limit = parse_page(None if "limit" not in filters else str(filters.pop("limit")), None).limit
    return filters, limit


async def list_receipts(call: Call) -> Reply:
    """Return the receipts of the entries that match a search, newest entry first, all under the same checkpoint.

    The filters are the filters of the search, except `after` and `total`. A page has at most 200 receipts, and fewer if
    the receipts are large.
    """
    filters, limit = _parse_search(call, _NAMES - {"total"})
    if "after" in filters:
        raise Invalid(
            "receipts are listed from the newest entry on, so `after` is not supported",
            hint="use `before` for the next page",
        )

    def read(reader: Reader) -> ReceiptsBody:
        matches = store.search_entries(reader, filters, limit=min(limit, MAX_RECEIPTS) + 1)
        prove, receipts, size = _prover(reader), list[ReceiptBody](), 0
        for index, body in matches[: min(limit, MAX_RECEIPTS)]:
            size += len(body) + PROOF_BYTES
            if receipts and size > MAX_RECEIPT_BYTES:
                break
            receipts.append(prove(index, body))
        is_more = len(receipts) < len(matches)
        return {"receipts": receipts, "next": str(receipts[-1]["index"]) if is_more else None}

    return reply(await call.world.db.scan(read))


async def list_checkpoints(call: Call) -> Reply:
    """List the checkpoints that the server stores once an hour, the largest first.

    To compare two of them, a client reads the tiles of the log: the later tree must extend the earlier tree.
    """
    after = call.query_one("after") or "0"
    if _number("after", after) < 0:
        raise Invalid("`after` is not a cursor", hint="send the `next` of the previous page")
    return await reply_page(
        call,
        "checkpoints",
        store.checkpoints,
        lambda _, one: one._asdict(),
        cursor=lambda one: str(one.size),
    )


async def entry(call: Call) -> Reply:
    """Show one entry of the ledger."""
    index = _number("index", call.params["index"])
    body = store.get_entry_body(call.world.db.read(), index)
    if body is None:
        raise NotFound(f"the ledger has no entry {index}", hint="`ostiary audit search` lists entries with their index")
    return reply(_render(index, body))


async def proof(call: Call) -> Reply:
    """Return a receipt of an entry: the bytes of the entry with a C2SP tlog-proof."""
    index = _number("index", call.params["index"])
    return reply(await call.world.db.scan(lambda reader: _prove(reader, index)))


def _prove(reader: Reader, index: int) -> ReceiptBody:
    body = store.get_entry_body(reader, index)
    if body is None:
        raise NotFound(f"the ledger has no entry {index}", hint="`ostiary audit search` lists entries with their index")
    return _prover(reader)(index, body)


def _prover(reader: Reader) -> Callable[[int, bytes], ReceiptBody]:
    """Return a function that takes an index and the bytes of the entry, and returns the entry's receipt under the
    present checkpoint.
    """
    note = store.get_head(reader)[1].encode()
    size, hash_at = parse_checkpoint(parse_note(note).text).size, cache(hashes_from(store.get_hash_reader(reader)))

    def prove(index: int, body: bytes) -> ReceiptBody:
        receipt = make_receipt(index, size=size, note=note, hash_at=hash_at)
        return {"index": index, "entry": body.decode(), "proof": receipt.render().decode()}

    return prove


def _render(index: int, body: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return {"index": index, **decoded}


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18) and text != "-1":
        raise Invalid(f"`{name}` is not a number of up to 18 digits")
    return int(text)


ROUTES = (
    Route("GET", "/api/v1/audit", search, "ostiary:read", answers={200: PageBody("entries", EntryBody)}, query=FILTERS),
    Route(
        "GET",
        "/api/v1/audit/receipts",
        list_receipts,
        "ostiary:read",
        answers={200: ReceiptsBody},
        query=tuple(one for one in FILTERS if one.name not in ("after", "total")),
    ),
    Route(
        "GET",
        "/api/v1/audit/checkpoints",
        list_checkpoints,
        "ostiary:read",
        answers={200: PageBody("checkpoints", KeptCheckpointBody)},
        query=PAGE,
    ),
    Route("GET", "/api/v1/audit/{index}", entry, "ostiary:read", answers={200: EntryBody}),
    Route("GET", "/api/v1/audit/{index}/proof", proof, "ostiary:read", answers={200: ReceiptBody}),
)

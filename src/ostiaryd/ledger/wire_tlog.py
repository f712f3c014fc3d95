"""The log for everybody: C2SP tlog-tiles v0.1.0 under `/ledger/v1`.

The checkpoint, the key and the hashes are public; the entries are for who may read the ledger.
"""

from __future__ import annotations

from ostiary.protocol.errors import NotFound, Refused
from ostiary.protocol.tiles import WIDTH, Bundle, Tile, parse_path, render_bundle, tile_width
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger import store

_IMMUTABLE = (b"cache-control", b"public, max-age=31536000, immutable")


async def checkpoint(call: Call) -> Reply:
    """The newest signed checkpoint."""
    _, note = store.head(call.world.db.read())
    if not note:
        raise NotFound("the ledger is empty")
    return Reply(200, note.encode(), "text/plain; charset=utf-8", [NO_STORE])


async def key(call: Call) -> Reply:
    """The public key of the log, as a C2SP vkey."""
    vkey = store.log_key(call.world.db.read(), call.world.keys).vkey
    return Reply(200, f"{vkey}\n".encode(), "text/plain; charset=utf-8", [NO_STORE])


async def tile(call: Call) -> Reply:
    """A tile of hashes or a bundle of entries, by its path; those that no tree of this size has are not found."""
    try:
        wanted = parse_path(call.path.removeprefix("/ledger/v1/"))
    except Refused as refusal:
        raise NotFound(refusal.message) from None
    data = await call.world.db.scan(lambda reader: _read(reader, wanted))
    headers = [_IMMUTABLE] if wanted.width == WIDTH else [NO_STORE]
    return Reply(200, data, "application/octet-stream", headers)


def _read(reader: Reader, wanted: Tile | Bundle) -> bytes:
    level = wanted.level if isinstance(wanted, Tile) else 0
    frontier, _ = store.head(reader)
    if wanted.width > tile_width(level, wanted.index, frontier.size):
        raise NotFound("the ledger has no such tile yet")
    start = wanted.index * WIDTH
    if isinstance(wanted, Bundle):
        return render_bundle(store.bodies(reader, start, wanted.width))
    return b"".join(store.rows(reader)(level, start, wanted.width))


ROUTES = (
    Route("GET", "/ledger/v1/checkpoint", checkpoint, ""),
    Route("GET", "/ledger/v1/key", key, ""),
    Route("GET", "/ledger/v1/tile/entries/{path:path}", tile, "ostiary:read"),
    Route("GET", "/ledger/v1/tile/{path:path}", tile, ""),
)

"""The log for anyone to verify: C2SP tlog-tiles v0.1.0 under `/ledger/v1`.

The checkpoint, the key and the hashes are public. Only callers that may read the ledger get entries.
"""

from __future__ import annotations

from ostiary.protocol.errors import NotFound, Refused
from ostiary.protocol.tiles import WIDTH, Bundle, Tile, parse_path, render_bundle, tile_width
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply
from ostiaryd.ground.http.routes import NOT_FOUND, TEXT, Content, Route
from ostiaryd.ledger import store

_IMMUTABLE = (b"cache-control", b"public, max-age=31536000, immutable")


async def checkpoint(call: Call) -> Reply:
    """Return the newest signed checkpoint of the log."""
    _, note = store.get_head(call.world.db.read())
    if not note:
        raise NotFound("the ledger is empty")
    return Reply(200, note.encode(), "text/plain; charset=utf-8", [NO_STORE])


async def key(call: Call) -> Reply:
    """Return the public key of the log as a C2SP vkey."""
    vkey = store.get_log_key(call.world.db.read(), call.world.keys).vkey
    return Reply(200, f"{vkey}\n".encode(), "text/plain; charset=utf-8", [NO_STORE])


async def tile(call: Call) -> Reply:
    """Return the tile of hashes or the bundle of entries that the path names (C2SP tlog-tiles).

    If the tree is not yet large enough for the tile, the response is 404.
    """
    try:
        tile = parse_path(call.path.removeprefix("/ledger/v1/"))
    except Refused as refusal:
        raise NotFound(refusal.message) from None
    data = await call.world.db.scan(lambda reader: _read(reader, tile))
    headers = [_IMMUTABLE] if tile.width == WIDTH else [NO_STORE]
    return Reply(200, data, "application/octet-stream", headers)


def _read(reader: Reader, tile: Tile | Bundle) -> bytes:
    level = tile.level if isinstance(tile, Tile) else 0
    frontier, _ = store.get_head(reader)
    if tile.width > tile_width(level, tile.index, frontier.size):
        raise NotFound("the ledger has no such tile yet")
    start = tile.index * WIDTH
    if isinstance(tile, Bundle):
        return render_bundle(store.list_entry_bodies(reader, start, tile.width))
    return b"".join(store.get_hash_reader(reader)(level, start, tile.width))


BYTES = Content(media_types=("application/octet-stream",))

ROUTES = (
    Route("GET", "/ledger/v1/checkpoint", checkpoint, "", errors=(NOT_FOUND,), answers={200: TEXT}),
    Route("GET", "/ledger/v1/key", key, "", answers={200: TEXT}),
    Route("GET", "/ledger/v1/tile/entries/{path:path}", tile, "ostiary:read", answers={200: BYTES}),
    Route("GET", "/ledger/v1/tile/{path:path}", tile, "", answers={200: BYTES}),
)

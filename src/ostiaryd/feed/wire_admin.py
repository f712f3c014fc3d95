"""Which guards are connected, how far each is, and when a revocation was in force at each."""

from __future__ import annotations

from typing import Any

from ostiary.core.errors import Invalid
from ostiaryd.feed.flows import Streams
from ostiaryd.feed.flows.streams import Stream
from ostiaryd.ground.http import Call, Reply, reply
from ostiaryd.registry.model import READ

MAX_WAIT_MS = 10_000
SECOND = 1_000_000


async def feeds(call: Call) -> Reply:
    """The connected guards. With `?seq=` of a revocation: waits until all have it in force, at most `?wait_ms=`.

    With `?since=` (its `committed_at`, microseconds) each guard has `ms`: how long after that it said so.
    """
    streams = call.world.keep(Streams)
    seq, since = _number(call, "seq"), _number(call, "since")
    if seq is None:
        return reply({"guards": [_render(stream, streams.position, None) for stream in streams.connected]})
    wait_ms = min(_number(call, "wait_ms") or 0, MAX_WAIT_MS)
    settled = await streams.settled(seq, within_s=wait_ms / 1000)
    return reply({"guards": [_render(stream, seq, since) for stream in settled]})


def _render(stream: Stream, seq: int, since: int | None) -> dict[str, Any]:
    at = stream.applied_at(seq)
    return {
        "guard": stream.resource.name,
        "resource_id": stream.resource.resource_id,
        "stream": stream.id,
        "since": stream.since // SECOND,
        "seq": stream.applied[-1][0] if stream.applied else None,
        "applied": at is not None,
        "ms": None if at is None or since is None else max(0, at - since) / 1000,
    }


def _number(call: Call, name: str) -> int | None:
    text = call.query_one(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid(f"`{name}` must be a number")
    return int(text)


ROUTES = (("GET", "/api/v1/feeds", feeds, READ),)

"""Which guards are connected, how far each is, and when a revocation was in force at each."""

from __future__ import annotations

from typing import Any

from ostiary.core.errors import Invalid
from ostiaryd.feed.flows import Guard, Guards
from ostiaryd.ground.http import Call, Reply, reply
from ostiaryd.registry.model import READ

MAX_WAIT_MS = 10_000
SECOND = 1_000_000


async def feeds(call: Call) -> Reply:
    """The connected guards of all servers of the database. With `?seq=` of a revocation: waits until all have it in
    force, at most `?wait_ms=`.

    With `?since=` (its `committed_at`, microseconds) each guard has `ms`: how long after that it said so.
    """
    guards = call.world.keep(Guards)
    seq, since = _number(call, "seq"), _number(call, "since")
    if seq is None:
        await guards.refresh()
        return reply({"guards": [_render(guard, guard.position, None) for guard in guards.all]})
    wait_ms = min(_number(call, "wait_ms") or 0, MAX_WAIT_MS)
    settled = await guards.settled(seq, within_s=wait_ms / 1000)
    return reply({"guards": [_render(guard, seq, since) for guard in settled]})


def _render(guard: Guard, seq: int, since: int | None) -> dict[str, Any]:
    at = guard.applied_at(seq)
    return {
        "guard": guard.resource,
        "resource_id": guard.resource_id,
        "stream": guard.stream,
        "since": guard.since // SECOND,
        "seq": guard.applied[-1][0] if guard.applied else None,
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

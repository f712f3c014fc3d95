"""Streams of signals to others, for administrators."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import behind, reply_page
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.signals.flows import streams
from ostiaryd.signals.model.sets import PUSH, SECOND
from ostiaryd.signals.model.streams import Status, Stream
from ostiaryd.signals.store import streams as store


async def list_streams(call: Call) -> Reply:
    """All streams of signals to others, and how each of them does."""
    return await reply_page(
        call,
        "streams",
        lambda reader, page: behind(store.streams(reader), lambda one: one.stream_id)(page),
        lambda _, one: _render_stream(one),
        cursor=lambda one: one.stream_id,
    )


class NewStatus(msgspec.Struct, forbid_unknown_fields=True):
    status: Status
    reason: str = ""


async def set_stream(call: Call) -> Reply:
    """Enable, pause or disable a stream; its receiver is told (SSF 8.1.5)."""
    new = call.json(NewStatus)
    stream = await registry.act_as(
        call, "stream.set",
        lambda act: streams.set_status(act, call.params["id"], new.status, reason=new.reason, by=None),
    )  # fmt: skip
    return reply(_render_stream(stream))


def _render_stream(stream: Stream) -> dict[str, Any]:
    return {
        "stream_id": stream.stream_id,
        "receiver": stream.receiver,
        "method": "push" if stream.method == PUSH else "poll",
        "status": stream.status,
        "events": stream.delivers,
        "description": stream.description,
        "delivered": stream.delivered,
        "delivered_at": stream.delivered_at and stream.delivered_at / SECOND,
        "lost": stream.lost,
        "failed": stream.failed,
    }


ROUTES = (
    Route("GET", "/api/v1/streams", list_streams, READ),
    Route("POST", "/api/v1/streams/{id}", set_stream, ADMIN, body=NewStatus),
)

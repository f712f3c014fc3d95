"""Streams of signals to receivers, for administrators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.signals import store
from ostiaryd.signals.flows import streams
from ostiaryd.signals.model.sets import PUSH, SECOND
from ostiaryd.signals.model.streams import Status, Stream


class StreamBody(TypedDict):
    """A stream of signals to a receiver and the state of its deliveries."""

    stream_id: str
    receiver: str
    method: Literal["push", "poll"]
    status: str
    events: Sequence[str]
    description: str
    delivered: int
    delivered_at: float | None
    lost: int
    failed: str | None


async def list_streams(call: Call) -> Reply:
    """List the streams of signals to receivers and the state of their deliveries."""
    return await reply_short_list(
        call,
        "streams",
        store.streams.streams,
        lambda _, one: _render_stream(one),
        cursor=lambda one: one.stream_id,
    )


class StreamState(msgspec.Struct, forbid_unknown_fields=True):
    status: Status
    reason: str = ""


async def set_stream(call: Call) -> Reply:
    """Enable, pause or disable a stream; if the status changes, the receiver gets an event about this (SSF 8.1.5)."""
    new = call.json(StreamState)
    stream = await registry.act_as(
        call,
        "stream.set",
        lambda act: streams.set_status(act, call.params["id"], new.status, reason=new.reason, by=None),
    )
    return reply(_render_stream(stream))


async def verify_stream(call: Call) -> Reply:
    """Send a verification event to the receiver of a stream (SSF 8.1.4.1).

    When the event is delivered, `delivered_at` changes.
    """
    await registry.act_as(
        call, "stream.verify", lambda act: streams.send_verification(act, call.params["id"], None, by=None)
    )
    return reply({})


def _render_stream(stream: Stream) -> StreamBody:
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
    Route("GET", "/api/v1/streams", list_streams, READ, answers={200: PageBody("streams", StreamBody)}, query=PAGE),
    Route("POST", "/api/v1/streams/{id}", set_stream, ADMIN, body=StreamState, answers={200: StreamBody}),
    Route(
        "POST",
        "/api/v1/streams/{id}/verify",
        verify_stream,
        ADMIN,
        errors=(streams.TooSoon("a stream can be verified at most once in 60 seconds"),),
        answers={200: EmptyBody},
    ),
)

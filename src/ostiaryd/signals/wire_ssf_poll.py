"""Delivery of signals to receivers that poll: RFC 8936. A signal is sent again until the receiver acknowledges it.

POST /api/v1/ssf/poll/{stream}    {"maxEvents", "returnImmediately", "ack": [jti], "setErrs": {jti: {"err", ..}}}
200                               {"sets": {jti: token}, "moreAvailable"}
"""

from __future__ import annotations

import asyncio
from typing import NotRequired, TypedDict

import msgspec

from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SSF_READ
from ostiaryd.signals import store
from ostiaryd.signals.flows import delivery, streams
from ostiaryd.signals.model.sets import POLL, Signal, render_set
from ostiaryd.signals.model.streams import MOST_AT_ONCE, Stream, StreamId, jti, number_of
from ostiaryd.signals.wire_ssf import SSF

WAIT_S = 25.0
"""Maximum seconds for which a poll waits for a signal."""
LOOK_S = 0.25
MAX_WAITING = 100
"""maximum number of polls that wait at the same time"""
MAX_ACKS = 10 * MOST_AT_ONCE


class SetError(msgspec.Struct):
    err: str
    description: str = ""


class Poll(msgspec.Struct, rename="camel"):
    """The body of a poll (RFC 8936 section 2.2)."""

    max_events: int | None = None
    return_immediately: bool = False
    ack: list[str] = []
    set_errs: dict[str, SetError] = {}


class PollBody(TypedDict):
    """Security event tokens by their `jti` (RFC 8936 section 2.3)."""

    sets: dict[str, str]
    moreAvailable: NotRequired[bool]


class Waiting:
    """The number of polls that wait now. Used only on the event loop."""

    def __init__(self, _: World) -> None:
        self.count = 0


async def poll(call: Call) -> Reply:
    """Settle the signals that the receiver acknowledges, and return its next signals (RFC 8936)."""
    body, world = call.json(Poll), call.world
    stream = streams.find(world.db.read(), call.params["id"], by=call.caller)
    if stream.method != POLL:
        raise Forbidden(
            "this stream is delivered by push, not by poll", hint="change `delivery.method` of the stream to poll"
        )
    if body.max_events is not None and body.max_events < 0:
        raise Invalid("`maxEvents` is less than 0")
    if len(body.ack) + len(body.set_errs) > MAX_ACKS:
        raise Invalid(f"`ack` and `setErrs` name more than {MAX_ACKS} tokens together")
    await _acknowledge(call, stream.stream_id, body)
    most = MOST_AT_ONCE if body.max_events is None else min(body.max_events, MOST_AT_ONCE)
    call.has_acted = False  # the caller, or the receiver, may be stopped while the poll waits
    signals, has_more = await _wait(world, stream.stream_id, most, waits=not body.return_immediately)
    delivery.check_entitled(world.db.read(), stream, now=world.now())
    sets = await asyncio.to_thread(_render_all, world, stream, signals)
    return reply({"sets": sets} | ({"moreAvailable": True} if has_more else {}), headers=[NO_STORE])


async def _acknowledge(call: Call, id: StreamId, body: Poll) -> None:
    """Mark the acknowledged signals as settled, without a ledger entry; record the signals that the receiver refused,
    which are not sent again.
    """
    numbers = [number for one in body.ack if (number := number_of(id, one)) is not None]
    if numbers:
        await call.world.writer.submit(lambda tx: delivery.record_settled(tx, id, numbers))
    if body.set_errs:
        await registry.act_as(call, "stream.refused", lambda act: delivery.skip_refused(act, id, _errors(id, body)))


def _errors(id: StreamId, body: Poll) -> dict[int, str]:
    numbered = {number_of(id, one): f"{error.err}: {error.description}"[:200] for one, error in body.set_errs.items()}
    return {number: why for number, why in numbered.items() if number is not None}


async def _wait(world: World, id: StreamId, most: int, *, waits: bool) -> tuple[list[tuple[int, int, Signal]], bool]:
    """Return at most `most` pending signals, and whether there are more. With `waits`, wait up to `WAIT_S` for a
    signal, unless `MAX_WAITING` polls wait already.
    """
    polls, tries, last_head = world.get_singleton(Waiting), round(WAIT_S / LOOK_S), -1
    if not waits or polls.count >= MAX_WAITING:
        tries = 0
    polls.count += 1
    try:
        while True:
            head = outbox.highest_number(world.db.read())
            signals, has_more = await _list_pending(world, id, most) if head != last_head else ([], False)
            if signals or has_more or tries <= 0 or store.streams.get(world.db.read(), id) is None:
                return signals, has_more
            tries, last_head = tries - 1, head
            await asyncio.sleep(LOOK_S)
    finally:
        polls.count -= 1


async def _list_pending(world: World, id: StreamId, most: int) -> tuple[list[tuple[int, int, Signal]], bool]:
    if (stream := store.streams.get(world.db.read(), id)) is None:
        return [], False
    await skip_unconcerned(world, stream)
    return await world.db.scan(lambda reader: delivery.list_pending(reader, stream, limit=most))


async def skip_unconcerned(world: World, stream: Stream) -> None:
    """Store a later position of a stream if no signal is pending for the stream, and more than `delivery.PASSED`
    signals for other receivers follow the stored position. The next search for pending signals then begins after these
    signals.
    """
    if await world.db.scan(lambda reader: delivery.has_passed(reader, stream)):
        await world.writer.submit(lambda tx: delivery.record_settled(tx, stream.stream_id, ()))


def _render_all(world: World, stream: Stream, signals: list[tuple[int, int, Signal]]) -> dict[str, str]:
    return {jti(stream.stream_id, number): render(world, stream, number, at, signal) for number, at, signal in signals}


def render(world: World, stream: Stream, number: int, at: int, signal: Signal) -> str:
    """Return the signal as a signed token for the receiver of this stream, with the algorithm that receivers must
    support (RS256).
    """
    return render_set(
        signal,
        issuer=world.config.issuer,
        audience=stream.receiver,
        jti=jti(stream.stream_id, number),
        at=at,
        key=world.keys.signer("token", "RS256"),
    )


ROUTES = (Route("POST", "/api/v1/ssf/poll/{id}", poll, SSF_READ, body=Poll, protocol=SSF, answers={200: PollBody}),)

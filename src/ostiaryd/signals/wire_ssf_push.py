"""Delivery of signals to receivers by push: RFC 8935. Each stream sends one signal at a time, in order.

    POST ENDPOINT    Content-Type: application/secevent+jwt    Authorization: the receiver's value    the token

A receiver answers 202 (any 2xx counts). A signal may arrive more than once; the receiver discards duplicates by `jti`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed, Refused
from ostiaryd.ground.database import Reader
from ostiaryd.ground.outbound.fetch import Answer, send_request
from ostiaryd.ground.process.running import RunningTasks
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.signals import store
from ostiaryd.signals.flows import delivery, streams
from ostiaryd.signals.model.sets import MEDIA_TYPE, Signal
from ostiaryd.signals.model.streams import Stream
from ostiaryd.signals.wire_ssf_poll import render, skip_unconcerned

log = logging.getLogger("ostiary")
MAX_ERROR = 4096


class Pushers(RunningTasks):
    """The running pushes, by stream."""


async def push_due(world: World) -> None:
    """Start a push to each stream whose push is due and not running. Returns before the pushes end."""
    now = world.now()
    for stream in await world.db.scan(store.streams.streams):
        if stream.is_due(now):
            world.get_singleton(Pushers).begin(stream.stream_id, partial(_push_all, world, stream))


async def _push_all(world: World, stream: Stream) -> None:
    """Push the pending signals of a stream in order, until none is left or a push fails."""
    try:
        again: Stream | None = stream
        while again is not None and await push_next(world, again):
            again = store.streams.get(world.db.read(), stream.stream_id)
    except Exception:
        log.exception("pushing to the stream %s failed", stream.stream_id)


async def push_next(world: World, stream: Stream) -> bool:
    """Push the next signal of a stream. Return whether the next signal may follow: the receiver accepted this signal,
    or its last attempt failed.
    """

    def look(reader: Reader) -> list[tuple[int, int, Signal]]:
        delivery.check_entitled(reader, stream, now=world.now())
        return delivery.list_pending(reader, stream, limit=1)[0]

    try:
        signals = await world.db.scan(look)
    except Refused:  # the receiver may not get signals any more; `ostiary doctor` shows this
        return False
    if not signals:
        await skip_unconcerned(world, stream)
        return False
    number, at, signal = signals[0]
    claimed = await world.writer.submit(lambda tx: delivery.claim_push(tx, stream))
    if claimed is None:
        return False
    why, is_final = await _push(world, claimed, await asyncio.to_thread(render, world, claimed, number, at, signal))
    if not why:
        await world.writer.submit(lambda tx: delivery.record_push(tx, claimed, number))
        return True
    if delivery.is_over(claimed, is_final=is_final):
        await act(world, "stream.give_up", lambda act: delivery.give_up(act, claimed, number, why=why))
        return True
    await world.writer.submit(lambda tx: delivery.postpone(tx, claimed, why=why, is_final=is_final))
    return False


async def _push(world: World, stream: Stream, token: str) -> tuple[str, bool]:
    """Return the error as a sentence (empty after success), and whether the receiver answered with a permanent
    error.
    """
    headers = {"content-type": MEDIA_TYPE, "accept": "application/json"}
    try:
        if stream.sealed is not None:
            headers["authorization"] = streams.open_header(stream, world.keys)
        answer = await send_request(
            "POST",
            stream.endpoint,
            body=token.encode(),
            headers=headers,
            within_s=delivery.PUSH_S,
            max_bytes=MAX_ERROR,
            private=world.config.private,
        )
    except Refused as refusal:
        return refusal.message, False
    if 200 <= answer.status < 300:
        return "", False
    code = _error(answer)
    return f"the remote server answers {answer.status}" + (f" {code}" if code else ""), code == "invalid_request"


def _error(answer: Answer) -> str:
    """Return the error code (`err`) of the receiver's response (RFC 8935 section 2.3); empty if there is no known code.
    The rest of the response is dropped.
    """
    if answer.status != 400:
        return ""
    try:
        content = canonical.parse(answer.body, max_bytes=MAX_ERROR)
    except Malformed:
        return ""
    code = content.get("err") if isinstance(content, dict) else None
    return code if isinstance(code, str) and code in CODES else ""


CODES = frozenset(
    {
        "invalid_request",
        "invalid_key",
        "invalid_issuer",
        "invalid_audience",
        "authentication_failed",
        "access_denied",
        "invalid_state",
    }
)
"""The error codes of RFC 8935 section 2.4, and of SSF 1.0 section 8.1.4.1."""

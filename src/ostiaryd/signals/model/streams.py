"""Streams of signals to receivers: OpenID SSF 1.0 section 8, delivered by push (RFC 8935) or poll (RFC 8936).

Signals are numbered messages of the outbox. A signal is settled for a stream if the receiver has it, if it is lost, or
if it does not concern the stream. A stream stores the number up to which all signals are settled (`settled_to`). A
receiver that polls may acknowledge in any order, so the stream also stores the settled numbers above (`beyond`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NewType

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid
from ostiaryd.notifications.model.webhooks import DELAYS_S, REJECTED_TRIES
from ostiaryd.signals.model.sets import (
    CREDENTIAL_CHANGE,
    POLL,
    PUSH,
    RISK_LEVEL_CHANGE,
    SESSION_REVOKED,
    STREAM_UPDATED,
    VERIFICATION,
    Signal,
    Subject,
)

StreamId = NewType("StreamId", str)
TOPIC = "signal"
SUPPORTED = (SESSION_REVOKED, CREDENTIAL_CHANGE, RISK_LEVEL_CHANGE)
SECOND = 1_000_000
MAX_STREAMS = 20
MAX_OF_RECEIVER = 5
MAX_EVENTS = 64
MAX_REMOVED = 1000
MAX_TEXT = 1000
MAX_HEADER = 4096
MIN_VERIFICATION_S = 60
KEPT = 7 * 86_400 * SECOND
"""Microseconds for which a signal is kept for delivery; the same time applies to a paused stream."""
WINDOW = 1000
"""Number of signals after `settled_to` that the server reads for a stream. A receiver that never acknowledges the
oldest signals gets no further signals than these.
"""
MOST_AT_ONCE = 100

Status = Literal["enabled", "paused", "disabled"]


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """The delivery of a stream: push (SSF section 7.1.1) or poll (7.1.2). `authorization_header` is the value that the
    receiver expects with a push.
    """

    method: str
    endpoint_url: str | None = None
    authorization_header: str | None = None


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of signals to a receiver. `receiver` is the id of the client that owns the stream. `due_at` (time of the
    next push) and `attempts` belong to the next signal. Times are microseconds since the epoch.

    `last`: None while the stream is enabled; otherwise the number of the last signal that is still sent. `delivered`
    and `lost` count signals.
    """

    stream_id: StreamId
    receiver: str
    description: str
    requested: tuple[str, ...] | None
    method: str
    endpoint: str
    sealed: bytes | None
    """The encrypted value of the Authorization header that the receiver expects with a push."""
    status: Status
    reason: str
    created_at: int
    settled_to: int
    beyond: tuple[int, ...] = ()
    last: int | None = None
    verified_at: int = 0
    attempts: int = 0
    due_at: int = 0
    busy_until: int = 0
    delivered: int = 0
    delivered_at: int | None = None
    lost: int = 0
    failed: str = ""

    @property
    def delivers(self) -> tuple[str, ...]:
        """Return the event types that the stream delivers (SSF 8.1.1 `events_delivered`)."""
        return SUPPORTED if self.requested is None else tuple(one for one in SUPPORTED if one in self.requested)

    def is_due(self, now: int) -> bool:
        """Return whether a push to the receiver may start at `now` (microseconds)."""
        return self.method == PUSH and now >= self.due_at and now >= self.busy_until


def check_delivery(delivery: Delivery) -> Delivery:
    """Check the method, the header and the presence of a push endpoint of a stream's delivery; return the delivery. The
    caller checks the URL of the endpoint. Raises Invalid if a check fails.
    """
    if delivery.method == POLL:
        return delivery
    if delivery.method != PUSH:
        raise Invalid(f"`delivery.method` must be {PUSH} or {POLL}")
    if not delivery.endpoint_url:
        raise Invalid("push needs an `endpoint_url`")
    header = delivery.authorization_header
    if header is not None and not (0 < len(header) <= MAX_HEADER and header.isascii() and header.isprintable()):
        raise Invalid(f"`authorization_header` must be printable ASCII of 1 to {MAX_HEADER} characters")
    return delivery


def check_requested(events: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Check the number and length of the requested event types. Unknown types are stored, and have no effect (SSF
    8.1.1). Raises Invalid for too many types, and for a type that is empty or too long.
    """
    if events is not None and len(events) > MAX_EVENTS:
        raise Invalid(f"`events_requested` has {len(events)} event types; the limit is {MAX_EVENTS}")
    if events is not None and any(not 0 < len(one) <= MAX_TEXT for one in events):
        raise Invalid(f"an event type in `events_requested` must have 1 to {MAX_TEXT} characters")
    return events


def jti(stream: StreamId, number: int) -> str:
    """Return the `jti` of the token for signal `number` on this stream: the same `jti` at each attempt to deliver the
    signal.
    """
    return f"{stream.removeprefix('st_')}.{number}"


def number_of(stream: StreamId, unverified_jti: str) -> int | None:
    """Return the number of the signal that a receiver names by `jti`; None if the `jti` is not of this stream."""
    id, _, number = unverified_jti.partition(".")
    if id != stream.removeprefix("st_") or not number.isdecimal() or not number.isascii() or len(number) > 18:
        return None
    return int(number)


def concerns(stream: Stream, signal: Signal, removed: frozenset[bytes]) -> bool:
    """Return whether the stream delivers the signal. `removed`: the canonical forms of the subjects that the receiver
    has removed.
    """
    if signal.stream:
        return signal.stream == stream.stream_id
    if signal.event not in stream.delivers:
        return False
    parts = (signal.subject, *(part for part in signal.subject.values() if isinstance(part, dict)))
    return not any(canonical_form(part) in removed for part in parts)


def canonical_form(subject: Subject) -> bytes:
    """Return the canonical form of a subject; simple subjects match if their canonical forms are identical (SSF
    8.1.3.1).
    """
    return canonical.encode(subject, floats=True)


def about_stream(stream: StreamId, event: str, claims: Mapping[str, Any]) -> Signal:
    """Return a signal that only this stream gets: a verification event (SSF 8.1.4) or a change of the stream's status
    (8.1.5).
    """
    assert event in (VERIFICATION, STREAM_UPDATED)
    return Signal(event=event, subject={"format": "opaque", "id": stream}, claims=dict(claims), stream=stream)


def settle(stream: Stream, done: frozenset[int], *, waiting: list[int], seen_to: int) -> Stream:
    """Return the stream with the signals `done` marked as settled.

    `done` includes the numbers in `stream.beyond`. `waiting`: the numbers of the stream's pending signals and those in
    `stream.beyond`, in order. `seen_to`: the number of the last signal that was examined.
    """
    left = [number for number in waiting if number not in done]
    settled_to = left[0] - 1 if left else max(stream.settled_to, seen_to)
    beyond = tuple(number for number in waiting if number in done and number > settled_to)
    return msgspec.structs.replace(stream, settled_to=settled_to, beyond=beyond)


def after_failed_push(stream: Stream, *, failed: str, is_final: bool, now: int, jitter: float) -> tuple[Stream, bool]:
    """Return the stream after a failed push, and whether no further attempt follows.

    `failed`: the error. `is_final`: the receiver answered with a permanent error. `jitter`: 0 to 1; the delay grows by
    `jitter` tenths of its length.
    """
    attempts = stream.attempts + 1
    if attempts >= (REJECTED_TRIES if is_final else len(DELAYS_S) + 1):
        return msgspec.structs.replace(
            stream, attempts=0, due_at=now, busy_until=0, lost=stream.lost + 1, failed=failed
        ), True
    due = now + round(DELAYS_S[attempts - 1] * SECOND * (1 + jitter / 10))
    return msgspec.structs.replace(stream, attempts=attempts, due_at=due, busy_until=0, failed=failed), False

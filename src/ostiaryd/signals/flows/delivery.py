"""The delivery of a stream's signals to its receiver, by push (RFC 8935) or poll (RFC 8936), and the count of signals
that are lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from ostiary.protocol.errors import Forbidden, Refused
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.notifications.model.webhooks import STALLED_S
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SSF_READ
from ostiaryd.signals import store
from ostiaryd.signals.flows import signals
from ostiaryd.signals.model.sets import POLL, Signal
from ostiaryd.signals.model.streams import SECOND, WINDOW, Stream, StreamId, after_failed_push, concerns, settle

PUSH_S = 15
"""Maximum seconds of one push."""
PASSED = 50
"""Number of signals for other receivers after which a stream stores its position, so that the next search begins after
these signals.
"""
SHOWN = 16


def list_pending(reader: Reader, stream: Stream, *, limit: int) -> tuple[list[tuple[int, int, Signal]], bool]:
    """Return at most `limit` pending signals of the stream (signals that concern the stream and are not settled),
    oldest first, as (number, time in microseconds, signal), and whether there are more.
    """
    window = [one for one in _window(reader, stream)[0] if stream.last is None or one[0] <= stream.last]
    return window[:limit], len(window) > limit


def record_settled(tx: Tx, id: StreamId, done: Collection[int], *, is_lost: bool = False, failed: str = "") -> None:
    """Record that the receiver has the signals with the numbers `done`, or, with `is_lost`, that these signals are
    lost: they could not be delivered because of the error `failed`, and are never sent again. Numbers that are not
    pending are ignored. The stored position of the stream moves on, also past signals for other receivers.
    """
    stream = store.streams.get(tx, id)
    if stream is None:
        return
    waits, seen_to = _window(tx, stream)
    numbers = [number for number, _, _ in waits]
    all_done = frozenset(done) | frozenset(stream.beyond)
    after = settle(stream, all_done, waiting=sorted([*numbers, *stream.beyond]), seen_to=seen_to)
    if count := len(all_done & frozenset(numbers)):
        after = replace(after, attempts=0, due_at=0, failed=failed)
        if is_lost:
            after = replace(after, lost=after.lost + count)
        else:
            after = replace(after, delivered=after.delivered + count, delivered_at=tx.now)
    if after != stream:
        store.streams.update(tx, after)


def _window(reader: Reader, stream: Stream) -> tuple[list[tuple[int, int, Signal]], int]:
    """Return the pending signals of the stream as (number, time, signal), and the number of the last signal that was
    examined. At most `WINDOW` signals are examined.
    """
    removed = store.streams.removed_subjects(reader, stream.stream_id)
    signals_waiting = signals.list_signals(reader, stream.settled_to, count=WINDOW)
    waits = [one for one in signals_waiting if concerns(stream, one[2], removed) and one[0] not in stream.beyond]
    return waits, signals_waiting[-1][0] if signals_waiting else stream.settled_to


def has_passed(reader: Reader, stream: Stream) -> bool:
    """Return whether a later position of the stream must be stored: the stream has no pending signal, and more than
    `PASSED` signals for other receivers follow its stored position.
    """
    waits, seen_to = _window(reader, stream)
    return not waits and seen_to > stream.settled_to + PASSED


def check_entitled(reader: Reader, stream: Stream, *, now: int) -> None:
    """Check that the receiver of a stream may still get signals, since a stream outlives the token that created the
    stream.

    Raises NotFound if the agent is unknown, Forbidden if the agent is not active at `now` (microseconds) or lacks the
    scope `SSF_READ`.
    """
    receiver = registry.active_agent(reader, stream.receiver, now=now)
    if SSF_READ not in receiver.scopes:
        raise Forbidden(f"agent `{receiver.name}` lacks the scope {SSF_READ}")


def claim_push(tx: Tx, stream: Stream) -> Stream | None:
    """Claim the push of the stream's next signal for this process, and return the stream; None if another process has
    the claim or has sent the signal, or the next attempt is not due.
    """
    if not store.streams.claim(tx, stream, until=tx.now + (PUSH_S + 5) * SECOND):
        return None
    return store.streams.get(tx, stream.stream_id)


def record_push(tx: Tx, claimed: Stream, number: int) -> None:
    """Record that signal `number` was pushed. If another process has taken over the claim meanwhile, nothing is
    recorded, and the other process sends the signal again.
    """
    if (stream := _claimed(tx, claimed)) is not None:
        store.streams.update(tx, replace(stream, busy_until=0))
        record_settled(tx, stream.stream_id, (number,))


def postpone(tx: Tx, claimed: Stream, *, why: str, is_final: bool) -> None:
    """Schedule the next attempt to push the stream's next signal. The caller must have checked that this failed attempt
    was not the last (`is_over`).

    `why`: the error. `is_final`: the receiver answered with a permanent error.
    """
    if (stream := _claimed(tx, claimed)) is not None:
        jitter = tx.random(1)[0] / 255
        store.streams.update(tx, after_failed_push(stream, failed=why, is_final=is_final, now=tx.now, jitter=jitter)[0])


def give_up(act: Act, claimed: Stream, number: int, *, why: str) -> None:
    """Skip signal `number` after its last attempt failed with the error `why`, and count the signal as lost. The act's
    ledger entry names the signal.
    """
    registry.fill_entry(act, object=claimed.stream_id, signal=number, failed=why)
    if (stream := _claimed(act.tx, claimed)) is not None:
        store.streams.update(act.tx, replace(stream, busy_until=0))
        record_settled(act.tx, stream.stream_id, (number,), is_lost=True, failed=why)


def is_over(stream: Stream, *, is_final: bool) -> bool:
    """Return whether a failed attempt to push the stream's next signal is the last. `is_final`: the receiver answered
    with a permanent error, which leaves fewer attempts.
    """
    return after_failed_push(stream, failed="", is_final=is_final, now=0, jitter=0)[1]


def skip_refused(act: Act, id: StreamId, errors: Mapping[int, str]) -> None:
    """Skip the signals that a polling receiver reports as errors (RFC 8936 2.4.3): count these signals as lost, and
    never send them again. `errors`: the receiver's error by the number of the signal.
    """
    shown = {str(number): why for number, why in list(errors.items())[:SHOWN]}
    registry.fill_entry(act, object=id, count=len(errors), refused=shown)
    record_settled(act.tx, id, errors, is_lost=True, failed=next(iter(errors.values()), ""))


def _claimed(tx: Tx, claimed: Stream) -> Stream | None:
    """Return the present state of the stream if this process still has the claim; otherwise None."""
    stream = store.streams.get(tx, claimed.stream_id)
    return stream if stream is not None and stream.busy_until == claimed.busy_until else None


def describe_problems(reader: Reader, *, now: int) -> list[str]:
    """Return a sentence for each stream that has a problem: its receiver may not get signals, a signal has waited for
    more than `STALLED_S` seconds, or signals were lost.
    """
    return [
        f"{one.stream_id}: {wrong}"
        for one in store.streams.streams(reader)
        if (wrong := _describe_problem(reader, one, now=now))
    ]


def _describe_problem(reader: Reader, stream: Stream, *, now: int) -> str:
    try:
        check_entitled(reader, stream, now=now)
    except Refused as refusal:
        return f"the receiver may not get signals: {refusal.message}"
    oldest = list_pending(reader, stream, limit=1)[0]
    if oldest and now - oldest[0][1] > STALLED_S * SECOND:
        waits = (now - oldest[0][1]) // SECOND
        why = stream.failed or ("not polled" if stream.method == POLL else "not tried")
        return f"a signal has waited for {waits} s: {why}"
    return f"{stream.lost} signals could not be delivered and were skipped" if stream.lost else ""

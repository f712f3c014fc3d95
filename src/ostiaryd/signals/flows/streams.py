"""Operations on streams of signals: one function for each verb. Only the receiver that created a stream may change it
(SSF section 8), and administrators may set its status.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ledger.flows import Act
from ostiaryd.notifications.model.webhooks import origin
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.signals import store
from ostiaryd.signals.flows import signals
from ostiaryd.signals.model.sets import POLL, PUSH, STREAM_UPDATED, VERIFICATION, parse_subject
from ostiaryd.signals.model.streams import (
    MAX_OF_RECEIVER,
    MAX_REMOVED,
    MAX_STREAMS,
    MAX_TEXT,
    MIN_VERIFICATION_S,
    SECOND,
    Delivery,
    Status,
    Stream,
    StreamId,
    about_stream,
    canonical_form,
    check_delivery,
    check_requested,
)

_PURPOSE = "authorization headers of streams"
PUSH_S = 15
"""Maximum seconds of one push."""
PASSED = 500


class TooSoon(Conflict):
    """A second verification of a stream was requested within a minute (SSF 8.1.4.2)."""

    code = "too_many_requests"


class RequestedStream(msgspec.Struct, frozen=True):
    """The members of a stream's configuration that a receiver supplies (SSF 8.1.1). UNSET: the request does not contain
    the member.
    """

    events_requested: tuple[str, ...] | UnsetType | None = UNSET
    delivery: Delivery | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


def create(act: Act, requested: RequestedStream, *, by: Caller, config: Config) -> Stream:
    """Create a stream to the receiver `by`, for events from now on; return the stream. Raises Invalid for an invalid
    configuration, Conflict if the receiver or the server has the maximum number of streams (`too_many_streams`).
    """
    id = StreamId(act.new_id("st"))
    registry.fill_entry(act, object=id)
    if len(store.streams.streams_of(act.tx, by.id)) >= MAX_OF_RECEIVER:
        raise Conflict(
            f"the receiver has {MAX_OF_RECEIVER} streams, which is the limit",
            hint="change or delete one of these streams",
            code="too_many_streams",
        )
    if store.streams.count(act.tx) >= MAX_STREAMS:
        raise Conflict(
            f"the server has {MAX_STREAMS} streams to receivers, which is the limit",
            hint="a receiver must delete a stream first; `ostiary signal streams` lists the streams",
            code="too_many_streams",
        )
    if store.streams.count(act.tx) == 0:
        signals.start_at_end_of_feed(act.tx)
    blank = Stream(
        stream_id=id,
        receiver=by.id,
        description="",
        requested=None,
        method=POLL,
        endpoint="",
        sealed=None,
        status="enabled",
        reason="",
        created_at=act.now,
        settled_to=outbox.highest_number(act.tx),
    )
    made = _configured(act.tx, blank, requested, config=config)
    store.streams.insert(act.tx, made)
    _note(act, made)
    return made


def change(act: Act, id: str, requested: RequestedStream, *, by: Caller, config: Config) -> Stream:
    """Set the members that the request contains, and keep the other members (PATCH); return the stream. Raises NotFound
    for an unknown stream, Invalid for an invalid configuration.
    """
    changed = _configured(act.tx, _noted(act, id, by), requested, config=config)
    store.streams.update(act.tx, changed)
    _note(act, changed)
    return changed


def replace_configuration(act: Act, id: str, requested: RequestedStream, *, by: Caller, config: Config) -> Stream:
    """Set the members that the request contains, and reset the other members to their defaults (PUT); return the
    stream. Raises NotFound for an unknown stream, Invalid for an invalid configuration.
    """
    full = {name: None if value is UNSET else value for name, value in msgspec.structs.asdict(requested).items()}
    return change(act, id, RequestedStream(**full), by=by, config=config)


def delete(act: Act, id: str, *, by: Caller) -> None:
    """Delete a stream. Raises NotFound for an unknown stream."""
    store.streams.delete(act.tx, _noted(act, id, by).stream_id)


def find(reader: Reader, id: str, *, by: Caller | None) -> Stream:
    """Return a stream of the receiver `by`, or, if `by` is None for an administrator, any stream. Raises NotFound if
    there is none.
    """
    stream = store.streams.get(reader, id)
    if stream is None or (by is not None and stream.receiver != by.id):
        lister = "`ostiary signal streams`" if by is None else "GET /api/v1/ssf/streams"
        raise NotFound("stream not found", hint=f"{lister} lists the streams")
    return stream


def set_status(act: Act, id: str, status: Status, *, reason: str, by: Caller | None) -> Stream:
    """Enable, pause or disable a stream (SSF 8.1.2); return the stream.

    A paused stream keeps its signals for later; a disabled stream drops them. If an administrator (`by` is None)
    changes the status, the receiver gets an event about the change. Raises NotFound for an unknown stream.
    """
    stream = _noted(act, id, by)
    registry.fill_entry(act, object=stream.stream_id, was=stream.status, status=status)
    now = outbox.highest_number(act.tx)
    forgets = "disabled" in (stream.status, status)
    changed = replace(
        stream,
        status=status,
        reason=reason[:MAX_TEXT],
        last=None if status == "enabled" else 0,
        settled_to=now if forgets else stream.settled_to,
        beyond=() if forgets else stream.beyond,
        due_at=0,
        attempts=0,
    )
    if by is None and status != stream.status:
        claims = {"status": status} | ({"reason": changed.reason} if reason else {})
        signals.queue_signal(act.tx, about_stream(stream.stream_id, STREAM_UPDATED, claims))
        if status != "enabled":
            changed = replace(changed, last=outbox.highest_number(act.tx))
    store.streams.update(act.tx, changed)
    return changed


def send_verification(act: Act, id: str, state: str | None, *, by: Caller | None) -> None:
    """Send a verification event over the stream (SSF 8.1.4), at the request of the receiver or of an administrator
    (`by` is None). `state`: the text that the event repeats, if any.

    Raises NotFound for an unknown stream; TooSoon within a minute of the previous verification.
    """
    stream = _noted(act, id, by)
    if act.now < stream.verified_at + MIN_VERIFICATION_S * SECOND:
        raise TooSoon(f"a stream can be verified at most once in {MIN_VERIFICATION_S} seconds")
    store.streams.update(act.tx, replace(stream, verified_at=act.now))
    claims = {} if state is None else {"state": state}
    signals.queue_signal(act.tx, about_stream(stream.stream_id, VERIFICATION, claims))


def remove_subject(act: Act, id: str, subject: object, *, by: Caller) -> None:
    """Send the receiver no further signals about a subject (SSF 8.1.3.3). Raises NotFound for an unknown stream,
    SetRefused for a malformed subject, Conflict if the limit is reached (`too_many_subjects`).
    """
    stream = _noted(act, id, by)
    spelling = canonical_form(parse_subject(subject))
    if len(store.streams.removed_subjects(act.tx, stream.stream_id)) >= MAX_REMOVED:
        raise Conflict(
            f"{MAX_REMOVED} subjects were removed from this stream, which is the limit",
            hint="add a subject again, or delete the stream",
            code="too_many_subjects",
        )
    store.streams.remove_subject(act.tx, stream.stream_id, spelling)


def add_subject(act: Act, id: str, subject: object, *, by: Caller) -> None:
    """Send the receiver signals about a removed subject again. A stream has all subjects except the removed subjects.
    Raises NotFound for an unknown stream, SetRefused for a malformed subject.
    """
    stream = _noted(act, id, by)
    store.streams.restore_subject(act.tx, stream.stream_id, canonical_form(parse_subject(subject)))


def _configured(tx: Tx, stream: Stream, requested: RequestedStream, *, config: Config) -> Stream:
    if requested.events_requested is not UNSET:
        stream = replace(stream, requested=check_requested(requested.events_requested))
    if requested.description is not UNSET:
        stream = replace(stream, description=(requested.description or "")[:MAX_TEXT])
    if requested.delivery is UNSET:
        return stream
    delivery = check_delivery(requested.delivery or Delivery(POLL))
    if delivery.method == POLL:
        return replace(stream, method=POLL, endpoint="", sealed=None)
    endpoint = check_named(delivery.endpoint_url or "", of="`endpoint_url`", private=config.private)
    header, key = delivery.authorization_header, tx.keys.value_key(_PURPOSE)
    sealed = None if header is None else key.seal(header.encode(), context=_context(stream), random=tx.random)
    return replace(stream, method=PUSH, endpoint=endpoint, sealed=sealed, due_at=0, attempts=0)


def open_header(stream: Stream, keys: Keyring) -> str:
    """Return the decrypted Authorization header of a stream, whose `sealed` must not be None. Raises Conflict if
    another root key encrypted the header.
    """
    assert stream.sealed is not None
    return keys.open_value(stream.sealed, purpose=_PURPOSE, context=_context(stream)).decode()


def _context(stream: Stream) -> bytes:
    return f"stream of signals|{stream.stream_id}".encode()


def _noted(act: Act, id: str, by: Caller | None) -> Stream:
    registry.fill_entry(act, object=id[:64])
    return find(act.tx, id, by=by)


def _note(act: Act, stream: Stream) -> None:
    """Write the stream into the entry, with only the origin of its endpoint, since the endpoint's path may contain a
    secret.
    """
    registry.fill_entry(
        act,
        object=stream.stream_id,
        method=stream.method,
        receiver=stream.receiver,
        origin=origin(stream.endpoint) if stream.endpoint else "",
        events=list(stream.delivers),
    )

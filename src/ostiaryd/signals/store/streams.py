"""Tables of the streams of signals to receivers, and of the subjects that receivers have removed."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.signals.model.streams import Stream, StreamId

_COLUMNS = (
    "stream_id, receiver, description, requested, method, endpoint, sealed, status, reason, created_at, settled_to, "
    "beyond, last, verified_at, attempts, due_at, busy_until, delivered, delivered_at, lost, failed"
)
_VALUES = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
_SET = ", ".join(f"{name} = :{name}" for name in _COLUMNS.split(", ")[1:])
_ALL = sql(f"select {_COLUMNS} from ssf_stream order by stream_id")
_GET = sql(f"select {_COLUMNS} from ssf_stream where stream_id = :id")
_OF = sql(f"select {_COLUMNS} from ssf_stream where receiver = :receiver order by stream_id")
_ANY = sql("select count(*) from ssf_stream")
_INSERT = sql(f"insert into ssf_stream ({_COLUMNS}) values ({_VALUES})")
_UPDATE = sql(f"update ssf_stream set {_SET} where stream_id = :stream_id")
_CLAIM = sql(
    """update ssf_stream set busy_until = :until
       where stream_id = :id and busy_until <= :now and due_at <= :now and settled_to = :settled_to"""
)
_DELETE_REMOVED = sql("delete from ssf_removed where stream = :stream")
_DELETE = sql("delete from ssf_stream where stream_id = :id")
_REMOVED = sql("select subject from ssf_removed where stream = :stream")
_REMOVE = sql(
    "insert into ssf_removed (stream, subject) values (:stream, :subject) on conflict (stream, subject) do nothing"
)
_RESTORE = sql("delete from ssf_removed where stream = :stream and subject = :subject")


def streams(reader: Reader) -> list[Stream]:
    """Return all streams."""
    return [_stream(row) for row in reader.all(_ALL)]


def streams_of(reader: Reader, receiver: str) -> list[Stream]:
    """Return the streams of a receiver."""
    return [_stream(row) for row in reader.all(_OF, receiver=receiver)]


def get(reader: Reader, id: str) -> Stream | None:
    """Return the stream with this id; None if there is none."""
    row = reader.one(_GET, id=id)
    return None if row is None else _stream(row)


def count(reader: Reader) -> int:
    """Return the number of streams."""
    row = reader.one(_ANY)
    assert row is not None
    return int(row[0])


def insert(tx: Tx, stream: Stream) -> None:
    """Insert a new stream."""
    tx.run(_INSERT, **_columns(stream))


def update(tx: Tx, stream: Stream) -> None:
    """Update a stream."""
    tx.run(_UPDATE, **_columns(stream))


def delete(tx: Tx, id: StreamId) -> None:
    """Delete a stream and its removed subjects."""
    tx.run(_DELETE_REMOVED, stream=id)
    tx.run(_DELETE, id=id)


def claim(tx: Tx, stream: Stream, *, until: int) -> bool:
    """Claim the push of the next signal for this process until `until` (microseconds). Return False if another process
    has the claim or has settled signals since `stream` was read, or the push is not due.
    """
    return tx.run(_CLAIM, id=stream.stream_id, until=until, now=tx.now, settled_to=stream.settled_to) == 1


def removed_subjects(reader: Reader, id: StreamId) -> frozenset[bytes]:
    """Return the canonical forms of the subjects that the receiver has removed from the stream."""
    return frozenset(bytes(subject) for (subject,) in reader.all(_REMOVED, stream=id))


def remove_subject(tx: Tx, id: StreamId, subject: bytes) -> None:
    """Store that the receiver has removed a subject from the stream."""
    tx.run(_REMOVE, stream=id, subject=subject)


def restore_subject(tx: Tx, id: StreamId, subject: bytes) -> None:
    """Delete the record that the receiver has removed a subject."""
    tx.run(_RESTORE, stream=id, subject=subject)


def _columns(stream: Stream) -> dict[str, object]:
    columns = {name: getattr(stream, name) for name in _COLUMNS.split(", ")}
    requested = None if stream.requested is None else " ".join(stream.requested)
    return columns | {"requested": requested, "beyond": " ".join(map(str, stream.beyond))}


def _stream(row: Row) -> Stream:
    columns = dict(zip(_COLUMNS.split(", "), row, strict=True))
    requested, sealed = columns["requested"], columns["sealed"]
    return Stream(
        **columns
        | {
            "requested": None if requested is None else tuple(requested.split()),
            "sealed": None if sealed is None else bytes(sealed),
            "beyond": tuple(map(int, columns["beyond"].split())),
        }
    )

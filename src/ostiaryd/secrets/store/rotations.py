"""The table of rotations of stored values, with their encrypted signing keys and their encrypted pending values."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.rotation import NEVER, RotationConfig
from ostiaryd.secrets.model.sealing import Envelope

_COLUMNS = (
    "path, config, wrapped_key, sealed, pending_key, pending, attempt, rotated_at, due_at, retire_at, attempts, error,"
    " token"
)
_GET = sql(f"select {_COLUMNS} from secret_rotation where path = :path")
_ALL = sql(f"select {_COLUMNS} from secret_rotation where path > :after order by path limit :limit")
_COUNT = sql("select count(*) from secret_rotation")
_PUT = sql(
    """insert into secret_rotation (path, config, wrapped_key, sealed, attempt, due_at, attempts, error)
       values (:path, :config, :wrapped_key, :sealed, '', :due_at, 0, '')
       on conflict (path) do update set config = excluded.config, wrapped_key = excluded.wrapped_key,
        sealed = excluded.sealed, due_at = excluded.due_at"""
)
_SET_PENDING = sql(
    """update secret_rotation set pending_key = :wrapped_key, pending = :sealed, attempt = :attempt
       where path = :path and pending is null"""
)
_END = sql(
    """update secret_rotation set pending_key = null, pending = null, rotated_at = :now, due_at = :due_at,
        retire_at = :retire_at, attempts = 0, error = '', claimed_until = 0, token = '' where path = :path"""
)
_RETIRED = sql(
    """update secret_rotation set retire_at = null, due_at = :due_at, attempts = 0, error = '', claimed_until = 0
       where path = :path and retire_at is not null"""
)
_POSTPONE = sql(
    """update secret_rotation set due_at = :due_at, attempts = :attempts, error = :error, claimed_until = 0
       where path = :path"""
)
_HASTEN = sql(
    """update secret_rotation set due_at = :now, token = case when :token = '' then token else :token end
       where path = :path and retire_at is null
        and (claimed_until <= :now or token = '' or :token = '' or token = :token)"""
)
_SCHEDULE = sql("update secret_rotation set config = :config, due_at = :due_at where path = :path")
_CANCEL = sql(
    """update secret_rotation set due_at = :never, token = ''
       where path = :path and retire_at is null and claimed_until <= :now"""
)
_NEXT_CALL = sql("update secret_rotation set due_at = :now where path = :path")
_CLAIM = sql(
    """update secret_rotation set claimed_until = :until
       where path = :path and due_at <= :now and claimed_until <= :free"""
)
_DUE = sql(
    "select path from secret_rotation where due_at <= :now and claimed_until <= :now order by due_at limit :limit"
)
_DELETE = sql("delete from secret_rotation where path = :path")
_decode_config = json_decoder(RotationConfig)


class Rotation(NamedTuple):
    """The rotation of a secret. `due_at`: the time of the next call to its service. `pending`: the encrypted new value
    that the service has not confirmed yet. `retire_at`: the end of the grace period of the previous value, None outside
    a grace period. `attempt`: the id of the calls that send the pending value. `token`: the id that the next version
    gets in the API of AWS; empty: a computed id. Times are microseconds since the epoch.
    """

    path: str
    config: RotationConfig
    key: Envelope
    pending: Envelope | None
    attempt: str
    rotated_at: int | None
    due_at: int
    retire_at: int | None
    attempts: int
    error: str
    token: str

    @property
    def is_cancelled(self) -> bool:
        """Return whether no call is scheduled, because the rotation was cancelled."""
        return self.due_at >= NEVER


def get_rotation(reader: Reader, path: str) -> Rotation | None:
    """Return the rotation of a secret; None if there is none."""
    return reader.one_as(_GET, _rotation, path=path)


def page(reader: Reader, *, after: str, limit: int) -> list[Rotation]:
    """Return at most `limit` rotations with paths after `after`, sorted by path."""
    return [_rotation(row) for row in reader.all(_ALL, after=after, limit=limit)]


def count(reader: Reader) -> int:
    """Return the number of rotations."""
    row = reader.one(_COUNT)
    assert row is not None  # a count has a row
    return int(row[0])


def put(tx: Tx, path: str, config: RotationConfig, key: Envelope, *, due_at: int) -> None:
    """Insert a rotation, whose next call is due at `due_at` (microseconds), or replace its configuration, its key and
    this time. An existing pending value stays.
    """
    tx.run(_PUT, path=path, config=msgspec.json.encode(config).decode(), due_at=due_at, **key._asdict())


def set_pending(tx: Tx, path: str, value: Envelope, *, attempt: str) -> None:
    """Store a pending value, unless there is one already."""
    tx.run(_SET_PENDING, path=path, attempt=attempt, **value._asdict())


def end(tx: Tx, path: str, *, due_at: int, retire_at: int | None) -> None:
    """Record that the pending value is the value of the secret now. `due_at`: the time of the next call. `retire_at`:
    the end of the previous value's grace period; None: no grace period. Times are microseconds.
    """
    tx.run(_END, path=path, now=tx.now, due_at=due_at, retire_at=retire_at)


def set_retired(tx: Tx, path: str, *, due_at: int) -> None:
    """Record that the grace period of the previous value has ended. `due_at`: the time of the next rotation, in
    microseconds.
    """
    tx.run(_RETIRED, path=path, due_at=due_at)


def postpone(tx: Tx, path: str, *, due_at: int, attempts: int, error: str) -> None:
    """Record the error of a failed call, the number of attempts, and the time (`due_at`, microseconds) of the next
    attempt.
    """
    tx.run(_POSTPONE, path=path, due_at=due_at, attempts=attempts, error=error)


def hasten(tx: Tx, path: str, *, token: str) -> bool:
    """Make the next rotation due now. `token`: the id that the new version gets in the API of AWS; empty: an id that an
    earlier request set stays. Return False during a grace period, while a call is running for another `token`, or if
    there is no rotation.
    """
    return tx.run(_HASTEN, path=path, now=tx.now, token=token) == 1


def set_schedule(tx: Tx, path: str, config: RotationConfig, *, due_at: int) -> None:
    """Replace the configuration of a rotation, and the time (`due_at`, microseconds) of its next call."""
    tx.run(_SCHEDULE, path=path, config=msgspec.json.encode(config).decode(), due_at=due_at)


def cancel(tx: Tx, path: str) -> bool:
    """Cancel the scheduled calls of a rotation. Return False during a grace period, while a call is running, or if
    there is no rotation.
    """
    return tx.run(_CANCEL, path=path, never=NEVER, now=tx.now) == 1


def hasten_call(tx: Tx, path: str) -> bool:
    """Make the next call to the service of a secret due now, also the call at the end of a grace period. Return False
    if the secret has no rotation.
    """
    return tx.run(_NEXT_CALL, path=path, now=tx.now) == 1


def claim(tx: Tx, path: str, *, until: int, is_only: bool) -> bool:
    """Claim the due call of a rotation for this process until `until` (microseconds). Return False if no call is due,
    or another server has the claim. `is_only`: no other server uses the database, so an existing claim is obsolete.

    A request for an immediate rotation makes the call due again, but does not end a claim.
    """
    return tx.run(_CLAIM, path=path, until=until, now=tx.now, free=until if is_only else tx.now) == 1


def due(reader: Reader, *, now: int, limit: int) -> list[str]:
    """Return at most `limit` paths of rotations whose next call is due."""
    return [str(path) for (path,) in reader.all(_DUE, now=now, limit=limit)]


def delete(tx: Tx, path: str) -> bool:
    """Delete a rotation. Return False if there is none."""
    return tx.run(_DELETE, path=path) == 1


def _rotation(row: Row) -> Rotation:
    path, config, wrapped_key, sealed, pending_key, pending, *rest = row
    key = Envelope(bytes(wrapped_key), bytes(sealed))
    value = None if pending is None else Envelope(bytes(pending_key), bytes(pending))
    return Rotation(path, _decode_config(config), key, value, *rest)

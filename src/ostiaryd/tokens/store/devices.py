"""Stored device authorization requests (RFC 8628)."""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.tokens.model.authorization import AuthorizationRequest
from ostiaryd.tokens.model.device import Device

_decode = json_decoder(AuthorizationRequest)
_COLUMNS = ", ".join(Device.__struct_fields__)
_GET = sql(f"select {_COLUMNS} from device where device = :device")
_BY_CODE = sql(f"select {_COLUMNS} from device where user_code = :user_code")
_COUNT = sql("select count(*) from device where client_id = :client_id and expires_at > :now")
_PUT = sql(
    """insert into device (device, user_code, client_id, request, interval_s, expires_at, polled_at)
       values (:device, :user_code, :client_id, :request, :interval_s, :expires_at, 0)"""
)
_ANSWER = sql("update device set answered_at = :now, code = :code where user_code = :user_code and answered_at is null")
_POLLED = sql("update device set polled_at = :now, interval_s = interval_s + :more where device = :device")
_PRUNE = sql("delete from device where expires_at < :before", prunes=True)


def get(reader: Reader, device: str) -> Device | None:
    """Return a device authorization request by the digest of its device code; None if there is none."""
    row = reader.one(_GET, device=device)
    return None if row is None else _device(row)


def by_user_code(reader: Reader, user_code: str) -> Device | None:
    """Return a device authorization request by its user code; None if there is none."""
    row = reader.one(_BY_CODE, user_code=user_code)
    return None if row is None else _device(row)


def count(reader: Reader, *, client_id: str, now: int) -> int:
    """Return the number of device authorization requests of a client that have not expired at `now` (microseconds)."""
    row = reader.one(_COUNT, client_id=client_id, now=now)
    assert row is not None
    return int(row[0])


def put(tx: Tx, device: Device) -> None:
    """Store a new device authorization request."""
    tx.send(
        _PUT,
        device=device.device,
        user_code=device.user_code,
        client_id=device.client_id,
        request=msgspec.json.encode(device.request).decode(),
        interval_s=device.interval_s,
        expires_at=device.expires_at,
    )


def answer(tx: Tx, user_code: str, *, code: str | None) -> bool:
    """Record the person's answer to a device request: `code` is the database key of an authorization code, or None for
    a denial. Return whether this is the first answer.
    """
    return tx.run(_ANSWER, user_code=user_code, code=code, now=tx.now) == 1


def note_poll(tx: Tx, device: str, *, more_s: int) -> None:
    """Record a poll now, and add `more_s` seconds to the interval between two polls."""
    tx.send(_POLLED, device=device, more=more_s, now=tx.now)


def prune(tx: Tx, *, before: int) -> int:
    """Delete device requests that expired before `before` (microseconds); return their number."""
    return tx.run(_PRUNE, before=before)


def _device(row: Row) -> Device:
    values = dict(zip(Device.__struct_fields__, row, strict=True))
    return Device(**values | {"request": _decode(values["request"])})

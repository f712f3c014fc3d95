"""Operations on rotations of stored values. A new value is stored as pending before its service hears of it.

The value in force changes when the service has accepted the new one, and never before: a failed rotation leaves the
value as it is, and the same pending value is sent again.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.lease import MAX_ERROR, next_try
from ostiaryd.secrets.model.request import SECOND, NothingStored, split_path
from ostiaryd.secrets.model.rotation import (
    KEY_BYTES,
    MAX_ROTATIONS,
    RETIRE,
    ROTATE,
    RotationConfig,
    make_value,
    render_key,
    replace_member,
)
from ostiaryd.secrets.model.sealing import Place
from ostiaryd.secrets.store import rotations as store
from ostiaryd.secrets.store.rotations import Rotation

CLAIM_S = 60
"""Time in seconds after which a claimed call is made again."""


class RotationCall(NamedTuple):
    """A call that is due to the service of a secret: its kind, its id, its data and the signing key."""

    kind: str
    id: str
    url: str
    data: dict[str, str]
    key: bytes

    def __repr__(self) -> str:
        """Return kind and id alone: the data is secret."""
        return f"RotationCall({self.kind} {self.id})"


def put_rotation(act: Act, path: str, config: RotationConfig) -> str:
    """Configure the rotation of a stored secret; return the signing key, which is shown only once.

    The first rotation is due after one period. Raises NothingStored, Conflict, Sealed.
    """
    registry.note(act, object=path, member=config.member, service=urlsplit(config.url).hostname)
    _read_current(act, path, config.member)
    registry.note(act, object=path)
    present = store.get(act.tx, path)
    if present is None and store.count(act.tx) >= MAX_ROTATIONS:
        raise Conflict(f"there are {MAX_ROTATIONS} rotations", hint="remove one")
    if present is not None and present.retire_at is not None:
        raise Conflict("the previous value is in its grace", hint="wait for the end of the grace")
    key, due_at = act.tx.random(KEY_BYTES), act.now + config.period * SECOND
    if present is not None and present.pending is not None:  # the service may have accepted the value
        due_at = present.due_at
    store.put(act.tx, path, config, seal_value(act.tx, key, _key_place(path)), due_at=due_at)
    return render_key(key)


def delete_rotation(act: Act, path: str) -> None:
    """Delete a rotation; the secret stays. Raises NotFound."""
    registry.note(act, object=path[:200])
    if not store.delete(act.tx, path):
        raise NotFound("the secret has no rotation", hint="ostiary secret rotation list")


def find_rotation(reader: Reader, path: str) -> Rotation:
    """Return the rotation of a secret. Raises NotFound."""
    if (rotation := store.get(reader, path)) is None:
        raise NotFound("the secret has no rotation", hint="ostiary secret rotation list")
    return rotation


def get_rotation(reader: Reader, path: str) -> Rotation | None:
    """Return the rotation of a secret; None if there is none."""
    return store.get(reader, path)


def request_rotation(act: Act, path: str) -> None:
    """Make the rotation of a secret due now. Raises NotFound, Conflict during the grace of the previous value."""
    registry.note(act, object=path[:200])
    find_rotation(act.tx, path)
    if not store.hasten(act.tx, path):
        raise Conflict("the previous value is in its grace", hint="wait for the end of the grace")


def hasten_call(act: Act, path: str) -> bool:
    """Make the next call due now, also the end of a grace; return False if the secret has no rotation."""
    return store.hasten_call(act.tx, path)


def begin_call(act: Act, path: str) -> None:
    """Store the next value of a secret as pending. Do nothing if a value is pending, or a grace ends with this
    call. Raises NotFound, Sealed.
    """
    rotation = find_rotation(act.tx, path)
    registry.note(act, object=path, call=RETIRE if rotation.retire_at is not None else ROTATE)
    if rotation.retire_at is None and rotation.pending is None:
        value = seal_value(act.tx, make_value(act.tx.random).encode(), _pending_place(path))
        store.set_pending(act.tx, path, value, attempt=act.new_id("ro"))


def owed_call(reader: Reader, path: str, *, keys: Keyring) -> RotationCall:
    """Return the call that is due to the service of a secret. Raises NotFound, Sealed, Conflict."""
    rotation = find_rotation(reader, path)
    config = rotation.config
    data = {"path": path, "member": config.member}
    key = open_value(reader, rotation.key, _key_place(path), keys=keys)
    if rotation.retire_at is not None:
        return RotationCall(RETIRE, f"{rotation.attempt}.retire", config.url, data, key)
    if rotation.pending is None:
        raise Conflict("the rotation has ended already")
    value = open_value(reader, rotation.pending, _pending_place(path), keys=keys).decode()
    return RotationCall(ROTATE, rotation.attempt, config.url, {**data, "value": value}, key)


def end_call(act: Act, path: str, call: RotationCall) -> None:
    """Store the value that the service has accepted as the value of the secret; or, after a call at the end of
    a grace, end the grace. Raises NotFound, NothingStored, Conflict.
    """
    registry.note(act, object=path, call=call.kind)
    rotation = find_rotation(act.tx, path)
    config = rotation.config
    if call.kind == RETIRE:
        rotated_at = act.now if rotation.rotated_at is None else rotation.rotated_at
        store.set_retired(act.tx, path, due_at=max(act.now, rotated_at + config.period * SECOND))
        return
    if rotation.pending is None or rotation.attempt != call.id:
        raise Conflict("the rotation has ended already")
    member = call.data["member"]  # the configuration may name another one by now
    value = replace_member(_read_current(act, path, member), member, call.data["value"])
    keyvalue.put_value(act, *split_path(path), value)
    registry.note(act, object=path)
    retire_at = act.now + config.grace * SECOND
    store.end(act.tx, path, due_at=retire_at, retire_at=retire_at)


def fail_call(act: Act, path: str, why: str) -> None:
    """Record a failed call, and schedule the next attempt. The value in force stays. Raises NotFound."""
    attempts = find_rotation(act.tx, path).attempts + 1
    registry.note(act, object=path, attempts=attempts, why=why[:MAX_ERROR])
    due_at = next_try(attempts, now=act.now)
    store.postpone(act.tx, path, due_at=due_at, attempts=attempts, error=why[:MAX_ERROR])


def _read_current(act: Act, path: str, member: str) -> dict[str, object]:
    """Return the present value of a secret. Raises NothingStored, also for a value without the member."""
    value = keyvalue.open_current(act, *split_path(path))
    if value is None:
        raise NothingStored("the current version is deleted", code="not_found")
    decoded = msgspec.json.decode(value)
    if not isinstance(decoded, dict) or member not in decoded:
        raise NothingStored("the secret does not have this member", hint="name a member of the value", code="not_found")
    return decoded


def _key_place(path: str) -> Place:
    return ("rotation", path, 1)


def _pending_place(path: str) -> Place:
    return ("rotation-value", path, 1)

"""Operations on rotations of stored values. A new value is stored as pending before its service hears of it.

The stored value changes only after the service has accepted the new value. A failed rotation leaves the value as it is,
and the next attempt sends the same pending value again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.config import read_rotation_commands
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue, version_tokens
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.keyvalue import Secret
from ostiaryd.secrets.model.lease import MAX_ERROR, next_try
from ostiaryd.secrets.model.request import SECOND, NothingStored, split_path
from ostiaryd.secrets.model.rotation import (
    KEY_BYTES,
    MAX_ROTATIONS,
    REGISTRATION_TOKEN,
    RETIRE,
    ROTATE,
    RotationCommand,
    RotationConfig,
    check_config,
    make_value,
    parse_commands,
    render_key,
)
from ostiaryd.secrets.model.schedule import Schedule
from ostiaryd.secrets.model.sealing import Place
from ostiaryd.secrets.store.rotations import Rotation

CLAIM_S = 60
"""Seconds after which another process may repeat a claimed call."""


class RotationCall(NamedTuple):
    """A call that must be sent to the service of a rotated secret (a signed HTTP request, a command, or an update of an
    OAuth registration). `kind`: whether the call brings a new value, or ends the grace period of the previous value.
    `key`: signs the HTTP request.

    `current`: the present value, for a service that is a command or a registration. `created_at`: the time at which the
    secret was created (microseconds), so that the result of the call changes no later secret at the path.
    """

    kind: str
    id: str
    config: RotationConfig
    data: dict[str, str]
    key: bytes
    current: dict[str, object]
    created_at: int

    def __repr__(self) -> str:
        """Return a text with only kind and id, because the data is secret."""
        return f"RotationCall({self.kind} {self.id})"


@lru_cache(maxsize=8)
def load_commands(file: str) -> dict[str, RotationCommand]:
    """Return the rotation commands of the file `file` by name. Raises Invalid if the file cannot be read or is
    malformed.
    """
    return parse_commands(read_rotation_commands(file))


def find_command(file: str, name: str) -> RotationCommand:
    """Return the rotation command `name` of the file `file`. Raises Invalid if there is no such command."""
    if (command := load_commands(file).get(name)) is None:
        raise Invalid(
            f"the setting `rotation_commands` has no command {name[:64]!a}",
            hint="add the command to the file of the setting",
        )
    return command


def put_rotation(act: Act, path: str, config: RotationConfig) -> str:
    """Configure the rotation of a stored secret; return the key that signs the calls, which the server shows only once.

    The first rotation is due after one period; if an earlier configuration has left a pending value (sent to the
    service, not yet confirmed), the time of the next call stays. Raises NothingStored if the secret lacks the member;
    Sealed if the secrets are sealed; Conflict during a grace period, and for too many rotations.
    """
    registry.fill_entry(act, object=path, member=config.member, service=config.service)
    for member in (config.member, *([REGISTRATION_TOKEN] if config.registration else [])):
        _read_current(act, path, member)
    registry.fill_entry(act, object=path)
    present = store.rotations.get_rotation(act.tx, path)
    if present is None and store.rotations.count(act.tx) >= MAX_ROTATIONS:
        raise Conflict(f"the server has {MAX_ROTATIONS} rotations, which is the limit", hint="remove a rotation")
    if present is not None and present.retire_at is not None:
        raise Conflict("the previous value is in its grace period", hint="wait for the end of the grace period")
    key, due_at = act.tx.random(KEY_BYTES), act.now + config.period * SECOND
    if present is not None and present.pending is not None and not present.is_cancelled:
        due_at = present.due_at  # the service may have accepted the pending value
    store.rotations.put(act.tx, path, config, seal_value(act.tx, key, _key_place(path)), due_at=due_at)
    return render_key(key)


def delete_rotation(act: Act, path: str) -> None:
    """Delete a rotation; the secret stays. Raises NotFound if there is none."""
    registry.fill_entry(act, object=path[:200])
    if not store.rotations.delete(act.tx, path):
        raise NotFound("the secret has no rotation", hint="list the rotations with `ostiary secret rotation list`")


def find_rotation(reader: Reader, path: str) -> Rotation:
    """Return the rotation of a secret. Raises NotFound if there is none."""
    if (rotation := store.rotations.get_rotation(reader, path)) is None:
        raise NotFound("the secret has no rotation", hint="list the rotations with `ostiary secret rotation list`")
    return rotation


def request_rotation(act: Act, path: str, *, token: str = "") -> None:
    """Make the rotation of a secret due now, also a cancelled one. Raises NotFound if the secret has no rotation;
    SecretState if the secret is scheduled for deletion; Conflict during the grace period of the previous value, and
    while a call is running whose new version gets another token.

    `token`: the id of the new version in the API of AWS; empty: the id that an earlier request set, or else a computed
    id.
    """
    registry.fill_entry(act, object=path[:200])
    rotation = find_rotation(act.tx, path)
    if aws.deletion_time(_find_secret(act, path).custom) is not None:
        raise aws.SecretState("the secret is scheduled for deletion", hint="restore the secret")
    if not store.rotations.hasten(act.tx, path, token=token):
        if rotation.retire_at is None:
            raise Conflict("a rotation of the secret is in progress", hint="wait for the end of the rotation")
        raise Conflict("the previous value is in its grace period", hint="wait for the end of the grace period")


def schedule_rotation(act: Act, path: str, schedule: Schedule | None) -> None:
    """Set the schedule of a secret's rotations at the request of an agent; a cancelled rotation is scheduled again.
    None keeps the schedule. Raises NotFound if the secret has no rotation; Invalid if the period is longer than the
    administrator has set, or not longer than the grace period.

    The next rotation is due a period after the last one, and the first one a period after its configuration. With a
    cron expression, it is due at the next time of the expression, and at the latest after the period of the
    administrator. A call that must be repeated keeps its time, and so does the end of a grace period.
    """
    rotation = find_rotation(act.tx, path)
    if schedule is None:
        present = rotation.config
        schedule = Schedule(present.period, present.period, present.expression, present.window)
    period = schedule.period
    registry.fill_entry(act, object=path, period=period)
    longest = rotation.config.longest or rotation.config.period
    if period > longest:
        raise Invalid(
            f"the period of a rotation is at most {longest} seconds, which an administrator has set",
            hint="rotate more often, or ask an administrator",
        )
    if schedule.shortest <= rotation.config.grace:
        raise Invalid(
            f"the grace period of {rotation.config.grace} seconds does not end before the next rotation",
            hint="rotate less often",
        )
    config = replace(rotation.config, period=period, longest=longest)
    config = replace(config, expression=schedule.expression, window=schedule.window)
    begun_at = rotation.rotated_at or (0 if rotation.is_cancelled else rotation.config.begun_at)
    if not begun_at:  # a request that repeats a schedule does not delay the first rotation
        begun_at = act.now if rotation.is_cancelled else rotation.due_at - rotation.config.period * SECOND
    config = check_config(path, replace(config, begun_at=begun_at))
    due_at = config.next_time(begun_at)
    if config.expression.startswith("cron"):  # the time does not depend on the last rotation, so it could be delayed
        due_at = min(config.next_time(act.now), begun_at + longest * SECOND)
    is_repeated = rotation.pending is not None or rotation.attempts > 0
    if not rotation.is_cancelled and (is_repeated or rotation.retire_at is not None):
        due_at = rotation.due_at
    store.rotations.set_schedule(act.tx, path, config, due_at=due_at)


def cancel_rotation(act: Act, path: str) -> None:
    """Cancel the scheduled rotations of a secret. The configuration stays, so that a later request rotates again.

    Raises NotFound if the secret has no rotation; Conflict during a call, and during the grace period of the previous
    value.
    """
    registry.fill_entry(act, object=path[:200])
    find_rotation(act.tx, path)
    if not store.rotations.cancel(act.tx, path):
        raise Conflict("a rotation of the secret is in progress", hint="wait for its end, and for its grace period")


def begin_call(act: Act, path: str) -> RotationCall | None:
    """Return the call that must be sent to the service of a secret: in the grace period of the previous value, the call
    that ends it; otherwise the call with a new value. Return None without a call if a new value is due but the secret
    is scheduled for deletion (the rotation is skipped), or if the secret does not exist (the rotation is removed).

    A new value is stored as pending before its first call; if there is a pending value, it is sent again. A call to the
    provider of an OAuth client has no new value, because the provider makes it. Raises NotFound for an unknown
    rotation, NothingStored if the secret lacks its member, Sealed while the secrets are sealed, and Conflict if a
    stored value cannot be decrypted.
    """
    rotation = find_rotation(act.tx, path)
    config, attempt = rotation.config, rotation.attempt
    is_end = rotation.retire_at is not None
    registry.fill_entry(act, object=path, call=RETIRE if is_end else ROTATE)
    secret = store.keyvalue.get(act.tx, *split_path(path))
    if secret is None:  # an earlier release kept the rotation of a deleted secret
        registry.fill_entry(act, object=path, rotation="removed")
        store.rotations.delete(act.tx, path)
        return None
    if not is_end and aws.deletion_time(secret.custom) is not None:
        registry.fill_entry(act, object=path, skipped="scheduled for deletion")
        store.rotations.postpone(act.tx, path, due_at=config.next_time(act.now), attempts=0, error="")
        return None
    key = open_value(act.tx, rotation.key, _key_place(path), keys=act.tx.keys)
    data, current = {"path": path, "member": config.member}, {}
    if not (config.url and is_end):
        current = _read_current(act, path, config.member, may_be_deleted=is_end)
        registry.fill_entry(act, object=path)
    if config.url:
        current = {}
    if is_end:
        return RotationCall(RETIRE, f"{attempt}.retire", config, data, key, current, secret.created_at)
    if config.registration:
        return RotationCall(ROTATE, act.new_id("ro"), config, data, key, current, secret.created_at)
    if rotation.pending is None:
        attempt, value = act.new_id("ro"), make_value(act.tx.random)
        store.rotations.set_pending(
            act.tx, path, seal_value(act.tx, value.encode(), _pending_place(path)), attempt=attempt
        )
    else:
        value = open_value(act.tx, rotation.pending, _pending_place(path), keys=act.tx.keys).decode()
    return RotationCall(ROTATE, attempt, config, {**data, "value": value}, key, current, secret.created_at)


def end_call(act: Act, path: str, call: RotationCall, *, is_old_valid: bool) -> None:
    """Record that the service accepted a call. After a call with a new value, the new value becomes the value of the
    secret; after a call at the end of a grace period, the grace period ends.

    `is_old_valid`: whether the old value still works, so that a grace period begins. Raises NotFound for an unknown
    rotation, NothingStored if the secret was deleted, and Conflict if the value of the call is not pending any more.
    """
    registry.fill_entry(act, object=path, call=call.kind)
    rotation = find_rotation(act.tx, path)
    config = rotation.config
    if call.kind == RETIRE:
        rotated_at = act.now if rotation.rotated_at is None else rotation.rotated_at
        store.rotations.set_retired(act.tx, path, due_at=max(act.now, config.next_time(rotated_at)))
        return
    if rotation.pending is None or rotation.attempt != call.id:
        raise Conflict("the rotation has ended already")
    # the configuration of the rotation may name another member now
    _replace_members(act, path, {call.data["member"]: call.data["value"]}, token=rotation.token)
    if is_old_valid:
        retire_at = act.now + config.grace * SECOND
        store.rotations.end(act.tx, path, due_at=retire_at, retire_at=retire_at)
    else:
        store.rotations.end(act.tx, path, due_at=config.next_time(act.now), retire_at=None)


def store_answer(act: Act, path: str, call: RotationCall, members: Mapping[str, str]) -> None:
    """Store the members of a secret that a provider has changed, even if the rotation was deleted meanwhile, because
    the old members may be invalid. A new client secret completes the rotation in progress. Raises NothingStored if the
    secret was deleted meanwhile; Conflict if another secret has its path.
    """
    registry.fill_entry(act, object=path, call=call.kind, members=sorted(members))
    if _find_secret(act, path).created_at != call.created_at:
        raise Conflict("the secret was deleted during the call", hint="register the client again")
    rotation = store.rotations.get_rotation(act.tx, path)
    is_rotated = rotation is not None and call.config.member in members
    _replace_members(act, path, members, token=rotation.token if rotation is not None and is_rotated else "")
    if rotation is not None and is_rotated:
        store.rotations.end(act.tx, path, due_at=rotation.config.next_time(act.now), retire_at=None)


def _replace_members(act: Act, path: str, members: Mapping[str, str], *, token: str) -> None:
    """Replace `members` of the present value of a secret; the other members stay as they are now.

    `token`: the id of the new version in the API of AWS; empty: a computed id.
    """
    mount, name = split_path(path)
    value, present = {**_read_current(act, path), **members}, _find_secret(act, path)
    secret, version = keyvalue.put_value(act, mount, name, value, cas=present.current_version)
    if token:
        version_tokens.set_token(act, mount, name, secret, version.version, token)
    registry.fill_entry(act, object=path)


def fail_call(act: Act, path: str, why: str) -> None:
    """Record that a call failed because of `why`, and schedule the next attempt. The value of the secret stays. Raises
    NotFound if there is no such rotation.
    """
    attempts = find_rotation(act.tx, path).attempts + 1
    registry.fill_entry(act, object=path, attempts=attempts, why=why[:MAX_ERROR])
    due_at = next_try(attempts, now=act.now)
    store.rotations.postpone(act.tx, path, due_at=due_at, attempts=attempts, error=why[:MAX_ERROR])


def _find_secret(act: Act, path: str) -> Secret:
    if (secret := store.keyvalue.get(act.tx, *split_path(path))) is None:
        raise NothingStored("no value is stored at this path", code="not_found")
    return secret


def _read_current(act: Act, path: str, member: str | None = None, *, may_be_deleted: bool = False) -> dict[str, object]:
    """Return the present value of a secret. Raises NothingStored, also if the value does not have the member
    `member`, and for a deleted version unless `may_be_deleted`.
    """
    value = keyvalue.open_current(act, *split_path(path), may_be_deleted=may_be_deleted)
    if value is None:
        raise NothingStored("the current version is deleted", code="not_found")
    decoded = msgspec.json.decode(value)
    if not isinstance(decoded, dict) or (member is not None and member not in decoded):
        why = "the value of the secret is not a JSON object"
        if isinstance(decoded, dict) and member is not None:
            why = f"the secret does not have the member {member[:64]!a}"
        raise NothingStored(why, hint="name a member of the value", code="not_found")
    return decoded


def _key_place(path: str) -> Place:
    return ("rotation", path, 1)


def _pending_place(path: str) -> Place:
    return ("rotation-value", path, 1)

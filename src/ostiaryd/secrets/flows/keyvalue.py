"""Stored values and their metadata: put, read, list, delete, restore, destroy."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.canaries import quarantine_reader
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.keyvalue import (
    CURRENT,
    MAX_VALUE,
    MountConfig,
    Secret,
    Version,
    attach_stages,
    check_cas,
    deletion_time,
    detach_stage,
    drop_versions,
    kept_versions,
)
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.sealing import Envelope

READ_EVERY = 60 * SECOND
"""Minimum microseconds between two updates of `read_at` by the same reader, so that constant reads cause few writes."""
SCHEDULED = "secret"
"""The mount whose secrets can be scheduled for deletion, by the API of AWS."""
PATHS_AT_ONCE = 200
MAX_KEYS = 10_000
_AFTER = b"\x01"
"""A byte that sorts directly after the end of a path and before each longer path, because no path contains a control
character.
"""


def put_value(
    act: Act, mount: str, path: str, value: object, *, cas: int | None = None, stages: Sequence[str] = (CURRENT,)
) -> tuple[Secret, Version]:
    """Store a value as a new version, delete the oldest versions beyond the limit, and return the secret and the
    version. Versions with a staging label, apart from the label of the previous version, are kept beyond the limit. A
    new current version cancels a scheduled deletion of the secret.

    `cas`: the number that the current version must have (check-and-set; 0: the secret must have no version; None: any).
    `stages`: the staging labels of the new version, which becomes current only with the label `CURRENT` or as the first
    version. Raises Invalid if `cas` is required (`cas_required`) or does not match (`cas_mismatch`) or the value is too
    long (`too_large`), StagesExceeded for too many labels, and Sealed while the secrets are sealed.
    """
    plain = msgspec.json.encode(value)
    if len(plain) > MAX_VALUE:
        raise Invalid(f"the value has more than {MAX_VALUE} bytes as JSON", code="too_large")
    config = store.keyvalue.config(act.tx, mount)
    secret = store.keyvalue.get(act.tx, mount, path) or Secret(created_at=act.now, updated_at=act.now)
    check_cas(cas, current=secret.current_version, is_required=secret.cas_required or config.cas_required)
    number = store.keyvalue.newest_version(act.tx, mount, path) + 1
    envelope = seal_value(act.tx, plain, (mount, path, number))
    version = Version(
        version=number,
        wrapped_key=envelope.wrapped_key,
        sealed=envelope.sealed,
        created_at=act.now,
        deleted_at=deletion_time(secret, config, now=act.now),
    )
    before = number - kept_versions(secret, config) + 1
    secret, kept = drop_versions(attach_stages(secret, number, stages), before=before)
    secret = replace(secret, updated_at=act.now)
    if number == secret.current_version:
        secret = replace(secret, custom=aws.without_deletion(secret.custom))
    store.keyvalue.insert_version(act.tx, mount, path, version)
    first = 0
    for end in (*kept, before):
        store.keyvalue.prune(act.tx, mount, path, first=first, before=end)
        first = end + 1
    store.keyvalue.put(act.tx, mount, path, secret)
    registry.fill_entry(act, object=f"{mount}/{path}", version=number)
    return secret, version


def move_stage(act: Act, mount: str, path: str, secret: Secret, label: str, number: int | None) -> None:
    """Move a staging label of a secret to the version `number`; None removes the label. The caller must have checked
    that a label to remove is not `CURRENT`. Raises StagesExceeded for too many labels.
    """
    registry.fill_entry(act, object=f"{mount}/{path}", stage=label, version=number)
    moved = detach_stage(secret, label) if number is None else attach_stages(secret, number, [label])
    store.keyvalue.put(act.tx, mount, path, replace(moved, updated_at=act.now))


def find_version(reader: Reader, mount: str, path: str, number: int = 0) -> tuple[Secret, Version]:
    """Return a secret and its version `number`; 0 is the current version. Raises NothingStored if the secret or the
    version does not exist.
    """
    secret = store.keyvalue.get(reader, mount, path)
    version = None
    if secret is not None:
        version = store.keyvalue.version(reader, mount, path, number or secret.current_version)
    if secret is None or version is None:
        raise NothingStored("no value is stored at this path", hint="list the paths: ostiary secret list FOLDER")
    return secret, version


def open_version(tx: Tx, mount: str, path: str, version: Version) -> bytes:
    """Return the decrypted value of a version, as JSON. Raises Sealed if the secrets are sealed; Conflict if the stored
    value cannot be decrypted; NothingStored for a destroyed version.
    """
    if version.wrapped_key is None or version.sealed is None:
        raise NothingStored("the version is destroyed")
    envelope = Envelope(version.wrapped_key, version.sealed)
    return open_value(tx, envelope, (mount, path, version.version), keys=tx.keys)


def read_value(act: Act, mount: str, path: str, number: int = 0) -> tuple[Secret, Version, bytes | None]:
    """Return a secret, its version `number` (0: the current version), and the value as JSON, for an agent. If the
    secret is a canary, which no honest agent reads, quarantine the agent.

    The value is None if the version is deleted or destroyed. Raises NothingStored if there is no such version, Conflict
    if the stored value cannot be decrypted, and Sealed while the secrets are sealed.
    """
    secret, version, value = examine_value(act, mount, path, number)
    if secret.is_canary:
        quarantine_reader(act)
    return secret, version, value


def examine_value(act: Act, mount: str, path: str, number: int = 0) -> tuple[Secret, Version, bytes | None]:
    """Return a secret, its version `number` (0: the current version), and the value as JSON, without the quarantine of
    the reader of a canary secret.

    The value is None if the version is deleted or destroyed. Raises NothingStored if there is no such version, Conflict
    if the stored value cannot be decrypted, and Sealed while the secrets are sealed.
    """
    act.entry.object = f"{mount}/{path}"
    if number:
        registry.fill_entry(act, object=act.entry.object, version=number)
    secret, version = find_version(act.tx, mount, path, number)
    registry.fill_entry(act, object=f"{mount}/{path}", version=version.version)
    reader = act.entry.person or act.entry.agent or ""
    if reader != secret.reader or act.now >= (secret.read_at or 0) + READ_EVERY:
        store.keyvalue.set_reader(act.tx, mount, path, reader)
    if version.is_destroyed or version.is_deleted(act.now):
        return secret, version, None
    return secret, version, open_version(act.tx, mount, path, version)


def open_current(act: Act, mount: str, path: str, *, may_be_deleted: bool = False) -> bytes | None:
    """Return the current value as JSON for the server itself; this read does not count as a use of the secret.

    The value is None if the version is destroyed, or is deleted unless `may_be_deleted`. Raises NothingStored if there
    is no such secret, Conflict if the stored value cannot be decrypted, and Sealed while the secrets are sealed.
    """
    _, version = find_version(act.tx, mount, path)
    if version.is_destroyed or (version.is_deleted(act.now) and not may_be_deleted):
        return None
    return open_version(act.tx, mount, path, version)


def list_keys(reader: Reader, mount: str, folder: str) -> list[str]:
    """Return the names in a folder. `folder` ends with a slash or is empty; names of folders end with a slash.

    Raises NothingStored for an empty folder, and Conflict for more than `MAX_KEYS` names.
    """
    prefix = folder.encode()
    first, end = prefix, prefix[:-1] + b"0" if prefix else b"\xff"  # `0` follows `/`
    names: list[str] = []
    while paths := store.keyvalue.paths(reader, mount, first=first, end=end, limit=PATHS_AT_ONCE):
        for path in paths:
            if path < first:
                continue  # the path is in a folder that is in the list already
            name, slash, _ = path[len(prefix) :].partition(b"/")
            names.append((name + slash).decode())
            first = prefix + name + b"0" if slash else path + _AFTER
        if len(names) > MAX_KEYS:
            raise Conflict(f"the folder has more than {MAX_KEYS} names", hint="list a folder below this folder")
    if not names:
        raise NothingStored("the folder is empty")
    return names


def delete_versions(act: Act, mount: str, path: str, numbers: Collection[int] | None = None) -> None:
    """Mark the versions `numbers`, or, if None, the current version, as deleted; they can be restored. Unknown versions
    are ignored.
    """
    secret = store.keyvalue.get(act.tx, mount, path)
    if numbers is None:
        numbers = [] if secret is None else [secret.current_version]
    for number in numbers:
        version = store.keyvalue.version(act.tx, mount, path, number)
        if version is not None and not version.is_deleted(act.now):
            store.keyvalue.set_deleted(act.tx, mount, path, number, act.now)
    _touch(act, mount, path, secret, numbers)


def restore_versions(act: Act, mount: str, path: str, numbers: Collection[int]) -> None:
    """Restore deleted versions of a secret, so that they can be read again. Unknown versions are ignored. Restoring
    the current version cancels a scheduled deletion of the secret.
    """
    for number in numbers:
        store.keyvalue.set_deleted(act.tx, mount, path, number, None)
    secret = store.keyvalue.get(act.tx, mount, path)
    if secret is not None and secret.current_version in numbers:
        secret = replace(secret, custom=aws.without_deletion(secret.custom))
    _touch(act, mount, path, secret, numbers)


def destroy_versions(act: Act, mount: str, path: str, numbers: Collection[int]) -> None:
    """Delete the values of versions permanently. Unknown versions are ignored."""
    for number in numbers:
        store.keyvalue.destroy(act.tx, mount, path, number)
    _touch(act, mount, path, store.keyvalue.get(act.tx, mount, path), numbers)


def delete_secret(act: Act, mount: str, path: str) -> None:
    """Delete a secret with all its versions and metadata, its rotation, and its scheduled deletion. An unknown secret
    is ignored.
    """
    had_rotation = store.rotations.delete(act.tx, f"{mount}/{path}")
    registry.fill_entry(act, object=f"{mount}/{path}", rotation="removed" if had_rotation else "")
    store.keyvalue.delete(act.tx, mount, path)
    if mount == SCHEDULED:
        store.deletions.delete(act.tx, path)


def set_metadata(act: Act, mount: str, path: str, changed: Secret) -> None:
    """Replace the metadata of a secret by the metadata in `changed`. A lower number of versions to keep takes effect at
    the next write.
    """
    registry.fill_entry(act, object=f"{mount}/{path}")
    store.keyvalue.put(act.tx, mount, path, replace(changed, updated_at=act.now))


def set_config(act: Act, mount: str, config: MountConfig) -> None:
    """Replace the default settings for the secrets of a mount."""
    registry.fill_entry(act, object=f"{mount}/")
    store.keyvalue.set_config(act.tx, mount, config)


def _touch(act: Act, mount: str, path: str, secret: Secret | None, numbers: Collection[int]) -> None:
    """Record in the secret and in the act's ledger entry that these versions changed."""
    if secret is not None:
        store.keyvalue.put(act.tx, mount, path, replace(secret, updated_at=act.now))
    registry.fill_entry(act, object=f"{mount}/{path}", versions=sorted(numbers))

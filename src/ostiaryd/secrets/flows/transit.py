"""Operations on keys whose material never leaves the server: create, rotate, configure, delete, and use.

A key is stored by its name; the name of a key of a mount other than `transit` begins with the path of its mount.
"""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.model.transit import (
    KINDS,
    MOUNT,
    TransitKey,
    make_material,
    object_of,
    shown_name,
    stored_name,
)
from ostiaryd.secrets.store import transit as store

MAX_KEYS = 10_000
MAX_KEY_VERSIONS = 100


def create_key(act: Act, name: str, kind: str) -> TransitKey:
    """Create a key, or return the existing key with that name and type. Raises Invalid if the name has another type."""
    registry.note(act, object=object_of(name), type=kind if kind in KINDS else "unknown")
    if (present := store.get(act.tx, name)) is not None:
        if present.kind != kind:
            raise Invalid(f"the key is of the type {present.kind}")
        return present
    if len(store.names(act.tx, limit=MAX_KEYS)) >= MAX_KEYS:
        raise Invalid(f"there are {MAX_KEYS} keys", hint="delete a key")
    key = TransitKey(
        name=name,
        kind=kind,
        latest_version=1,
        min_decryption_version=1,
        min_encryption_version=0,
        deletion_allowed=False,
        created_at=act.now,
    )
    _add_version(act, key)
    return key


def rotate_key(act: Act, name: str) -> TransitKey:
    """Add a version to a key; new ciphertexts and signatures use the new version. Raises Invalid."""
    key = find_key(act, name)
    if key.latest_version >= MAX_KEY_VERSIONS:
        raise Invalid(f"a key has at most {MAX_KEY_VERSIONS} versions", hint="create another key")
    rotated = replace(key, latest_version=key.latest_version + 1)
    _add_version(act, rotated)
    return rotated


def configure_key(
    act: Act,
    name: str,
    *,
    min_decryption: int | None = None,
    min_encryption: int | None = None,
    deletion_allowed: bool | None = None,
) -> TransitKey:
    """Set the versions that the key accepts and uses, and whether the key may be deleted. Raises Invalid."""
    key = find_key(act, name)
    if min_decryption is not None:
        key = replace(key, min_decryption_version=max(min_decryption, 1))
    if min_encryption is not None:
        key = replace(key, min_encryption_version=min_encryption)
    if deletion_allowed is not None:
        key = replace(key, deletion_allowed=deletion_allowed)
    if not 1 <= key.min_decryption_version <= key.latest_version:
        raise Invalid(f"`min_decryption_version` must be 1 to {key.latest_version}")
    if (
        key.min_encryption_version
        and not key.min_decryption_version <= key.min_encryption_version <= key.latest_version
    ):
        raise Invalid(f"`min_encryption_version` must be 0, or {key.min_decryption_version} to {key.latest_version}")
    store.put(act.tx, key)
    return key


def delete_key(act: Act, name: str) -> None:
    """Delete a key permanently. Raises Invalid unless the configuration of the key permits the deletion."""
    key = find_key(act, name)
    if not key.deletion_allowed:
        raise Invalid("deletion is not allowed for this key", hint="set `deletion_allowed` in its config")
    store.delete(act.tx, name)


def find_key(act: Act, name: str) -> TransitKey:
    """Return a key. Raises Invalid for an unknown key, as Vault does."""
    registry.note(act, object=object_of(name))
    if (key := store.get(act.tx, name)) is None:
        raise Invalid("encryption key not found", code="key_not_found")
    return key


def list_names(act: Act, mount: str) -> list[str]:
    """Return the names of all keys of a mount. Raises NothingStored if there is none."""
    stored = store.names(act.tx, limit=MAX_KEYS)
    names = sorted(shown_name(name) for name in stored if stored_name(mount, shown_name(name)) == name)
    if not names:
        raise NothingStored("there is no key")
    return names


def open_material(act: Act, key: TransitKey, version: int) -> bytes:
    """Return the decrypted material of a version of a key. Raises Invalid, Conflict."""
    envelope = store.material(act.tx, key.name, version)
    if envelope is None:
        raise Invalid("the version of the key does not exist")
    return open_value(act.tx, envelope, (MOUNT, key.name, version), keys=act.tx.keys)


def _add_version(act: Act, key: TransitKey) -> None:
    material = make_material(key.kind, random=act.tx.random)
    envelope = seal_value(act.tx, material, (MOUNT, key.name, key.latest_version))
    store.insert_version(act.tx, key.name, key.latest_version, envelope)
    store.put(act.tx, key)
    registry.note(act, object=object_of(key.name), version=key.latest_version)

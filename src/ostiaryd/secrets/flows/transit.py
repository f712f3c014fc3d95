"""Transit keys: create, rotate, configure, trim, delete, use and export a key, save a key as a backup, and restore a
backup.

A key is stored under its name. For a mount other than `transit`, the path of the mount precedes the name. Each function
that stores or reads key material raises Sealed while the secrets are sealed.
"""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.certs.model.keys import PrivateKey
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.key_generation import take_key
from ostiaryd.secrets.flows.seal import check_open, open_value, seal_value
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.transit_keys import (
    KINDS,
    MOUNT,
    PUBLIC,
    SHORTEST_PERIOD_S,
    BackupRefused,
    KeyBackup,
    TransitKey,
    VersionBackup,
    check_derivation,
    check_material,
    make_material,
    object_of,
    render_backup,
    render_material,
    shown_name,
    stored_name,
)

MAX_KEYS = 10_000
MAX_KEY_VERSIONS = 100
RETRY_S = 86_400
"""Seconds between two attempts of an automatic rotation; a rotation fails if the key has too many versions."""


def create_key(
    act: Act,
    name: str,
    kind: str,
    *,
    is_exportable: bool = False,
    allows_backup: bool = False,
    auto_rotate_s: int = 0,
    is_derived: bool = False,
    is_convergent: bool = False,
    generated: PrivateKey | None = None,
) -> TransitKey:
    """Create a key, and return it; if a key with this name and type exists, return that key. `generated`: the RSA key
    that the server generated before the transaction, or None (see `take_key`). Raises Invalid if a key with this name
    has another type, or other values of `derived` and `convergent_encryption`, or if a setting is not valid; KeyNeeded
    if an RSA key must be generated first.
    """
    registry.fill_entry(act, object=object_of(name), type=kind if kind in KINDS else "unknown")
    if (present := store.transit.get(act.tx, name)) is not None:
        if present.kind != kind:
            raise Invalid(f"a key of the type {present.kind} has this name")
        if (is_derived or is_convergent) and (present.is_derived, present.is_convergent) != (is_derived, is_convergent):
            raise Invalid("the key with this name has other values of `derived` and `convergent_encryption`")
        return present
    key = TransitKey(
        name=name,
        kind=kind,
        latest_version=1,
        min_decryption_version=1,
        min_encryption_version=0,
        deletion_allowed=False,
        created_at=act.now,
        is_exportable=is_exportable,
        allows_backup=allows_backup,
        auto_rotate_s=auto_rotate_s,
        is_derived=is_derived,
        is_convergent=is_convergent,
    )
    check_new(act, key)
    return add_version(act, key, _make_material(act, key, generated))


def check_new(act: Act, key: TransitKey) -> None:
    """Check the settings of a new key. Raises Invalid if they do not fit the type of the key, or the server has the
    maximum number of keys.
    """
    check_derivation(key.kind, is_derived=key.is_derived, is_convergent=key.is_convergent)
    _check_period(key.auto_rotate_s)
    _check_count(act)


def _check_period(seconds: int) -> int:
    """Return the period of automatic rotations in seconds; 0 for none. Raises Invalid if the period is neither 0 nor an
    hour or longer.
    """
    if seconds and seconds < SHORTEST_PERIOD_S:
        raise Invalid("auto rotate period must be 0 to disable or at least an hour")
    return seconds


def _check_count(act: Act) -> None:
    if len(store.transit.names(act.tx, limit=MAX_KEYS)) >= MAX_KEYS:
        raise Invalid(f"the server has {MAX_KEYS} keys, which is the limit", hint="delete a key")


def rotate_key(act: Act, name: str, generated: PrivateKey | None = None) -> TransitKey:
    """Add a version to a key, and return the key. Ciphertexts and signatures use the new version unless a request names
    another one. `generated`: the RSA key that the server generated before the transaction, or None (see `take_key`).
    Raises Invalid if the key is unknown, has too many versions, or is imported and does not allow rotation; KeyNeeded
    if an RSA key must be generated first.
    """
    key = find_key(act, name)
    if key.is_imported and not key.allows_rotation:
        raise Invalid(
            f"imported key {shown_name(name)} does not allow rotation", hint="import a version, or set `allow_rotation`"
        )
    following = next_version(key)
    return add_version(act, following, _make_material(act, following, generated))


def next_version(key: TransitKey) -> TransitKey:
    """Return a key whose `latest_version` is one higher, before the material of this version is stored. Raises Invalid
    if the key has too many versions.
    """
    if key.latest_version - key.oldest_version + 1 >= MAX_KEY_VERSIONS:
        raise Invalid(
            f"the key has {MAX_KEY_VERSIONS} versions, which is the limit", hint="trim the key, or create another one"
        )
    return replace(key, latest_version=key.latest_version + 1)


def rotate_due_key(act: Act, name: str, generated: PrivateKey | None = None) -> None:
    """Rotate a key whose automatic rotation is due. `generated`: the RSA key that the server generated before the
    transaction, or None (see `take_key`). Raises Conflict if the rotation is not due any more, Sealed if the secrets
    are sealed; Invalid and KeyNeeded as `rotate_key` does.
    """
    check_open(act.tx)
    key = find_key(act, name)
    if key.rotates_at is None or act.now < key.rotates_at:
        raise Conflict("the rotation of the key is not due any more")
    rotate_key(act, name, generated)


def postpone_rotation(act: Act, name: str, *, why: str) -> None:
    """Record that an automatic rotation failed because of `why`, and schedule the next attempt after a day. Raises
    Invalid for an unknown key.
    """
    store.transit.put(act.tx, replace(find_key(act, name), rotates_at=act.now + RETRY_S * SECOND))
    registry.fill_entry(act, object=object_of(name), why=why)


def configure_key(
    act: Act,
    name: str,
    *,
    min_decryption: int | None = None,
    min_encryption: int | None = None,
    deletion_allowed: bool | None = None,
    is_exportable: bool | None = None,
    allows_backup: bool | None = None,
    auto_rotate_s: int | None = None,
) -> TransitKey:
    """Set the oldest versions that a key decrypts with and encrypts with, the period of its automatic rotations, and
    whether the key may be deleted, exported and saved as a backup; return the key.

    None leaves a setting unchanged. Once `is_exportable` or `allows_backup` is true, it stays true. Raises Invalid for
    an unknown key, for settings that are out of range, and for false if `is_exportable` or `allows_backup` is true
    already.
    """
    key = find_key(act, name)
    if (key.is_exportable and is_exportable is False) or (key.allows_backup and allows_backup is False):
        raise Invalid("`exportable` and `allow_plaintext_backup` cannot be disabled", hint="create another key")
    key = replace(
        key,
        is_exportable=key.is_exportable or bool(is_exportable),
        allows_backup=key.allows_backup or bool(allows_backup),
    )
    if min_decryption is not None:
        key = replace(key, min_decryption_version=max(min_decryption, 1))
    if min_encryption is not None:
        key = replace(key, min_encryption_version=min_encryption)
    if auto_rotate_s is not None:
        key = replace(key, auto_rotate_s=_check_period(auto_rotate_s))
        key = replace(key, rotates_at=_next_rotation(key, begun_at=store.transit.versions(act.tx, name)[-1][1]))
    if deletion_allowed is not None:
        key = replace(key, deletion_allowed=deletion_allowed)
    if not key.oldest_version <= key.min_decryption_version <= key.latest_version:
        raise Invalid(f"`min_decryption_version` must be {key.oldest_version} to {key.latest_version}")
    if (
        key.min_encryption_version
        and not key.min_decryption_version <= key.min_encryption_version <= key.latest_version
    ):
        raise Invalid(f"`min_encryption_version` must be 0, or {key.min_decryption_version} to {key.latest_version}")
    store.transit.put(act.tx, key)
    return key


def delete_key(act: Act, name: str) -> None:
    """Delete a key permanently. Raises Invalid for an unknown key, and if the settings of the key do not allow its
    deletion.
    """
    key = find_key(act, name)
    if not key.deletion_allowed:
        raise Invalid("deletion is not allowed for this key", hint="set `deletion_allowed` in its config")
    store.transit.delete(act.tx, name)


def find_key(act: Act, name: str) -> TransitKey:
    """Return the transit key that is stored as `name` (see `stored_name`). Raises Invalid for an unknown key, as Vault
    does.
    """
    act.entry.object = object_of(name)
    if (key := store.transit.get(act.tx, name)) is None:
        raise Invalid("encryption key not found", code="key_not_found")
    return key


def list_names(act: Act, mount: str) -> list[str]:
    """Return the names of all keys of a mount, sorted. Raises NothingStored if there is none."""
    stored = store.transit.names(act.tx, limit=MAX_KEYS)
    names = sorted(shown_name(name) for name in stored if stored_name(mount, shown_name(name)) == name)
    if not names:
        raise NothingStored("there is no key")
    return names


def open_material(act: Act, key: TransitKey, version: int) -> bytes:
    """Return the decrypted material of a version of a key. Raises Invalid for an unknown version, Conflict if the
    stored material cannot be decrypted.
    """
    envelope = store.transit.material(act.tx, key.name, version)
    if envelope is None:
        raise Invalid("the version of the key does not exist")
    return open_value(act.tx, envelope, (MOUNT, key.name, version), keys=act.tx.keys)


def _make_material(act: Act, key: TransitKey, generated: PrivateKey | None) -> bytes:
    return make_material(
        key.kind, random=act.tx.random, new_rsa_key=lambda key_type: take_key(act, key_type, generated)
    )


def add_version(act: Act, key: TransitKey, material: bytes) -> TransitKey:
    """Store a key with this material as its version `latest_version`, and return the key, whose next automatic rotation
    is scheduled.
    """
    version = VersionBackup(key.latest_version, act.now, material)
    _put_version(act, key, version)
    key = replace(key, rotates_at=_next_rotation(key, begun_at=act.now))
    store.transit.put(act.tx, key)
    registry.fill_entry(act, object=object_of(key.name), version=key.latest_version)
    return key


def _next_rotation(key: TransitKey, *, begun_at: int) -> int | None:
    """Return the time of the next automatic rotation of a key whose latest version was made at `begun_at`
    (microseconds); None if the key has no automatic rotations.
    """
    return begun_at + key.auto_rotate_s * SECOND if key.auto_rotate_s else None


def _put_version(act: Act, key: TransitKey, one: VersionBackup) -> None:
    envelope = seal_value(act.tx, one.material, (MOUNT, key.name, one.version))
    store.transit.insert_version(act.tx, key.name, one.version, envelope, created_at=one.created_at)


# --- export, backup, and the end of versions


def trim_key(act: Act, name: str, version: int) -> TransitKey:
    """Permanently delete the versions of a key before `version`, and return the key. Versions that the key still
    decrypts with or encrypts with cannot be deleted. Raises Invalid for an unknown key, a version outside the permitted
    range, and a key without a minimum version for encryption.
    """
    key = find_key(act, name)
    if not key.min_encryption_version:
        raise Invalid(
            "minimum available version cannot be set when minimum encryption version is not set",
            hint="set `min_encryption_version` in the config of the key first",
        )
    most = min(key.min_decryption_version, key.min_encryption_version)
    if not key.oldest_version <= version <= most:
        raise Invalid(
            f"`min_available_version` must be {key.oldest_version} to {most}",
            hint="use at most the minimum versions for decryption and for encryption",
        )
    trimmed = replace(key, min_available_version=version)
    store.transit.trim(act.tx, name, before=version)
    store.transit.put(act.tx, trimmed)
    registry.fill_entry(act, object=object_of(name), version=version)
    return trimmed


def export_key(act: Act, name: str, use: str, version: str) -> tuple[TransitKey, dict[int, str]]:
    """Return a key, and the material of the versions that it still decrypts with, as text by version number.

    `use`: one of `EXPORTS`, or `PUBLIC`. `version`: a version number, `latest`, or an empty text for all versions.
    Raises NothingStored if there is no such key, Invalid if the key may not be exported, has no such version, or has no
    material for this use.
    """
    registry.fill_entry(act, object=object_of(name), use=use)
    key = store.transit.get(act.tx, name)
    if key is None:
        raise NothingStored("there is no such key")
    if not key.is_exportable and use != PUBLIC:
        raise Invalid("private key material is not exportable", hint="set `exportable` in the config of the key")
    numbers = [one for one, _ in store.transit.versions(act.tx, name) if one >= key.min_decryption_version]
    if version:
        number = str(key.latest_version) if version == "latest" else version
        numbers = [one for one in numbers if str(one) == number]
    if not numbers:
        raise Invalid("the version does not exist, or is below the minimum decryption version")
    registry.fill_entry(act, object=object_of(name), use=use, versions=numbers)
    return key, {one: render_material(use, key.kind, open_material(act, key, one)) for one in numbers}


def backup_key(act: Act, name: str) -> str:
    """Return a backup of a key: a text with the unencrypted material of all its versions. Raises BackupRefused if the
    key may not be exported or saved as a backup, Invalid if there is no such key.
    """
    key = find_key(act, name)
    if not key.is_exportable:
        raise BackupRefused("exporting is disallowed on the policy", hint="set `exportable` in the config of the key")
    if not key.allows_backup:
        raise BackupRefused("plaintext backup is disallowed on the policy", hint="set `allow_plaintext_backup`")
    versions = store.transit.versions(act.tx, name)
    registry.fill_entry(act, object=object_of(name), versions=[one for one, _ in versions])
    return render_backup(key, [VersionBackup(one, at, open_material(act, key, one)) for one, at in versions])


def restore_key(act: Act, name: str, backup: KeyBackup, *, is_forced: bool) -> None:
    """Store the key of a backup under `name`. `is_forced`: replace an existing key of this name, if its settings allow
    its deletion. Raises BackupRefused if a key of this name exists and `is_forced` is false; Invalid if the existing
    key may not be deleted, for wrong key material, and for too many keys.
    """
    registry.fill_entry(act, object=object_of(name), versions=[one.version for one in backup.versions])
    check_material(backup)
    present = store.transit.get(act.tx, name)
    if present is not None:
        if not is_forced:
            raise BackupRefused(f"key {shown_name(name)!a} already exists", hint="restore under another name")
        delete_key(act, name)
    _check_count(act)
    key = replace(backup.key, name=name, created_at=act.now)
    key = replace(key, rotates_at=_next_rotation(key, begun_at=act.now))
    for one in backup.versions:
        _put_version(act, key, replace(one, created_at=min(one.created_at, act.now)))
    store.transit.put(act.tx, key)

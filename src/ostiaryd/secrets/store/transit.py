"""The tables of transit keys and of the encrypted material of their versions."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.sealing import Envelope
from ostiaryd.secrets.model.transit_keys import TransitKey

_COLUMNS = """name, kind, latest_version, min_decryption_version, min_encryption_version, deletion_allowed, created_at,
    min_available_version, is_exportable, allows_backup, auto_rotate_s, rotates_at, is_derived,
    is_convergent, is_imported, allows_rotation"""
_GET = sql(f"select {_COLUMNS} from transit_key where name = :name", steady=True)
_NAMES = sql("select name from transit_key order by name limit :limit")
_PUT = sql(
    f"""insert into transit_key ({_COLUMNS}) values (:name, :kind, :latest, :decryption, :encryption, :deletion,
        :created, :available, :is_exportable, :allows_backup, :auto_rotate_s, :rotates_at,
        :is_derived, :is_convergent, :is_imported, :allows_rotation)
        on conflict (name) do update set latest_version = excluded.latest_version,
        min_decryption_version = excluded.min_decryption_version,
        min_encryption_version = excluded.min_encryption_version, deletion_allowed = excluded.deletion_allowed,
        min_available_version = excluded.min_available_version, is_exportable = excluded.is_exportable,
        allows_backup = excluded.allows_backup, auto_rotate_s = excluded.auto_rotate_s,
        rotates_at = excluded.rotates_at, is_derived = excluded.is_derived, is_convergent = excluded.is_convergent,
        is_imported = excluded.is_imported, allows_rotation = excluded.allows_rotation"""
)
_DUE = sql("select name from transit_key where rotates_at <= :now order by rotates_at limit :limit")
_DELETE = sql("delete from transit_key where name = :name")
_MATERIAL = sql(
    "select wrapped_key, sealed from transit_key_version where name = :name and version = :version", steady=True
)
_VERSIONS = sql("select version, created_at from transit_key_version where name = :name order by version")
_INSERT_VERSION = sql(
    """insert into transit_key_version (name, version, wrapped_key, sealed, created_at)
       values (:name, :version, :wrapped_key, :sealed, :created_at)"""
)
_DELETE_VERSIONS = sql("delete from transit_key_version where name = :name")
_TRIM = sql("delete from transit_key_version where name = :name and version < :before")


def get(reader: Reader, name: str) -> TransitKey | None:
    """Return the transit key that is stored as `name`, without its material; None if there is none."""
    return reader.one_as(_GET, _key, name=name)


def names(reader: Reader, *, limit: int) -> list[str]:
    """Return at most `limit` names of keys, sorted."""
    return [name for (name,) in reader.all(_NAMES, limit=limit)]


def put(tx: Tx, key: TransitKey) -> None:
    """Insert or replace the record of a transit key. Its versions stay."""
    tx.run(
        _PUT,
        name=key.name,
        kind=key.kind,
        latest=key.latest_version,
        decryption=key.min_decryption_version,
        encryption=key.min_encryption_version,
        deletion=int(key.deletion_allowed),
        created=key.created_at,
        available=key.min_available_version,
        is_exportable=int(key.is_exportable),
        allows_backup=int(key.allows_backup),
        auto_rotate_s=key.auto_rotate_s,
        rotates_at=key.rotates_at,
        is_derived=int(key.is_derived),
        is_convergent=int(key.is_convergent),
        is_imported=int(key.is_imported),
        allows_rotation=int(key.allows_rotation),
    )


def due(reader: Reader, *, now: int, limit: int) -> list[str]:
    """Return at most `limit` names of keys whose automatic rotation is due, the rotation that is due longest first."""
    return [name for (name,) in reader.all(_DUE, now=now, limit=limit)]


def delete(tx: Tx, name: str) -> None:
    """Delete a key with all versions."""
    tx.run(_DELETE_VERSIONS, name=name)
    tx.run(_DELETE, name=name)


def trim(tx: Tx, name: str, *, before: int) -> None:
    """Delete the versions of a key with numbers below `before`."""
    tx.run(_TRIM, name=name, before=before)


def material(reader: Reader, name: str, version: int) -> Envelope | None:
    """Return the encrypted material of a version of a key; None if there is none."""
    return reader.one_as(_MATERIAL, _envelope, name=name, version=version)


def versions(reader: Reader, name: str) -> list[tuple[int, int]]:
    """Return (version, time of its creation in microseconds) of each version of a key, the oldest version first."""
    return [(version, created) for version, created in reader.all(_VERSIONS, name=name)]


def insert_version(tx: Tx, name: str, version: int, envelope: Envelope, *, created_at: int) -> None:
    """Insert a new version with its material."""
    tx.run(
        _INSERT_VERSION,
        name=name,
        version=version,
        wrapped_key=envelope.wrapped_key,
        sealed=envelope.sealed,
        created_at=created_at,
    )


def _envelope(row: Row) -> Envelope:
    wrapped_key, sealed = row
    return Envelope(bytes(wrapped_key), bytes(sealed))


def _key(row: Row) -> TransitKey:
    name, kind, latest, decryption, encryption, deletion, created, available, *more = row
    is_exportable, allows_backup, auto_rotate_s, rotates_at, is_derived, is_convergent, is_imported, allows_rotation = (
        more
    )
    return TransitKey(
        name=name,
        kind=kind,
        latest_version=latest,
        min_decryption_version=decryption,
        min_encryption_version=encryption,
        deletion_allowed=bool(deletion),
        created_at=created,
        min_available_version=available,
        is_exportable=bool(is_exportable),
        allows_backup=bool(allows_backup),
        auto_rotate_s=auto_rotate_s,
        rotates_at=rotates_at,
        is_derived=bool(is_derived),
        is_convergent=bool(is_convergent),
        is_imported=bool(is_imported),
        allows_rotation=bool(allows_rotation),
    )

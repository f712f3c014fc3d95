"""The tables of key-value secrets and their versions. Paths are stored as bytes, so that SQLite and PostgreSQL sort
them in the same order.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.keyvalue import LastSecretUse, MountConfig, Secret, UseFilter, Version

_GET = sql(
    """select current_version, oldest_version, max_versions, cas_required, delete_after, custom, created_at, updated_at,
        is_canary, read_at, reader, stages
       from secret where mount = :mount and path = :path""",
    steady=True,
)
_PUT = sql(
    """insert into secret (mount, path, current_version, oldest_version, max_versions, cas_required, delete_after,
        custom, created_at, updated_at, stages)
       values (:mount, :path, :current, :oldest, :max, :cas, :after, :custom, :created, :updated, :stages)
       on conflict (mount, path) do update set current_version = excluded.current_version,
        oldest_version = excluded.oldest_version, max_versions = excluded.max_versions,
        cas_required = excluded.cas_required, delete_after = excluded.delete_after, custom = excluded.custom,
        updated_at = excluded.updated_at, stages = excluded.stages"""
)
_SET_CANARY = sql("update secret set is_canary = :is_canary where mount = :mount and path = :path")
_SET_READER = sql("update secret set read_at = :now, reader = :reader where mount = :mount and path = :path")
_USES = sql(
    """select secret.mount, secret.path, version, secret_version.created_at, read_at, reader, is_canary
       from secret join secret_version on secret_version.mount = secret.mount and secret_version.path = secret.path
        and secret_version.version = secret.current_version
       where secret.mount = :mount and secret.path > :after and secret.path < :end
        and (:unread = 0 or read_at is null) and (:reader = '' or reader = :reader)
        and secret_version.created_at < :before
       order by secret.path limit :limit"""
)
_DELETE = sql("delete from secret where mount = :mount and path = :path")
_PATHS = sql(
    "select path from secret where mount = :mount and path >= :first and path < :end order by path limit :limit"
)
_PATHS_DOWN = sql(
    "select path from secret where mount = :mount and path >= :first and path < :end order by path desc limit :limit"
)
_TIMES = {
    column: sql(
        f"""select coalesce({column}, 0), path from secret where mount = :mount and path >= :first and path < :end
            limit :limit"""
    )
    for column in ("created_at", "updated_at", "read_at")
}
_CREATED_AFTER = sql(
    """select created_at, path from secret where mount = :mount and (created_at, path) > (:created, :path)
       order by created_at, path limit :limit"""
)
_CREATED_BEFORE = sql(
    """select created_at, path from secret where mount = :mount and (created_at, path) < (:created, :path)
       order by created_at desc, path desc limit :limit"""
)
_VERSION_COLUMNS = "version, wrapped_key, sealed, created_at, deleted_at"
_VERSION = sql(
    f"""select {_VERSION_COLUMNS} from secret_version
        where mount = :mount and path = :path and version = :version""",
    steady=True,
)
_VERSIONS = sql(f"select {_VERSION_COLUMNS} from secret_version where mount = :mount and path = :path order by version")
_NUMBERS = sql("select version from secret_version where mount = :mount and path = :path order by version")
_NEWEST = sql("select max(version) from secret_version where mount = :mount and path = :path")
_INSERT_VERSION = sql(
    """insert into secret_version (mount, path, version, wrapped_key, sealed, created_at, deleted_at)
       values (:mount, :path, :version, :wrapped_key, :sealed, :created_at, :deleted_at)"""
)
_SET_DELETED = sql(
    """update secret_version set deleted_at = :at
       where mount = :mount and path = :path and version = :version and sealed is not null"""
)
_DESTROY = sql(
    """update secret_version set wrapped_key = null, sealed = null
       where mount = :mount and path = :path and version = :version"""
)
_PRUNE = sql(
    """delete from secret_version
       where mount = :mount and path = :path and version >= :first and version < :before"""
)
_CONFIG = sql("select max_versions, cas_required, delete_after from secret_mount where mount = :mount")
_SET_CONFIG = sql(
    """insert into secret_mount (mount, max_versions, cas_required, delete_after) values (:mount, :max, :cas, :after)
       on conflict (mount) do update set max_versions = excluded.max_versions, cas_required = excluded.cas_required,
        delete_after = excluded.delete_after"""
)
_decode_custom = json_decoder(dict[str, str])
_decode_stages = json_decoder(dict[str, int])


class PathTime(NamedTuple):
    """A time of a secret (its creation, its last change or its last use), in microseconds since the epoch, and its
    path.
    """

    time: int
    path: bytes


def get(reader: Reader, mount: str, path: str) -> Secret | None:
    """Return the record of the secret at a path of a mount, without its values; None if there is none."""
    return reader.one_as(_GET, _secret, mount=mount, path=path.encode())


def put(tx: Tx, mount: str, path: str, secret: Secret) -> None:
    """Insert or replace the record of a secret. Its versions, its last read and its canary mark stay."""
    tx.run(
        _PUT,
        mount=mount,
        path=path.encode(),
        current=secret.current_version,
        oldest=secret.oldest_version,
        max=secret.max_versions,
        cas=int(secret.cas_required),
        after=secret.delete_after,
        custom=msgspec.json.encode(secret.custom).decode(),
        created=secret.created_at,
        updated=secret.updated_at,
        stages=msgspec.json.encode(secret.stages).decode(),
    )


def set_canary(tx: Tx, mount: str, path: str, is_canary: bool) -> None:
    """Set whether a secret is a canary secret."""
    tx.run(_SET_CANARY, mount=mount, path=path.encode(), is_canary=int(is_canary))


def set_reader(tx: Tx, mount: str, path: str, reader: str) -> None:
    """Record that `reader` reads a secret now."""
    tx.run(_SET_READER, mount=mount, path=path.encode(), reader=reader, now=tx.now)


def uses(reader: Reader, where: UseFilter, *, after: str, limit: int) -> list[LastSecretUse]:
    """Return at most `limit` secrets that meet `where`, with paths after `after`, in the order of the bytes of their
    paths, each with its last read and change.
    """
    rows = reader.all(
        _USES,
        mount=where.mount,
        after=max(after.encode(), where.folder.encode()),
        end=where.folder.encode()[:-1] + b"0" if where.folder else b"\xff",  # `0` follows `/`
        unread=int(where.is_unread),
        reader=where.reader,
        before=where.rotated_before,
        limit=limit,
    )
    return [
        LastSecretUse(
            mount=mount,
            path=bytes(path).decode(),
            version=version,
            rotated_at=rotated,
            read_at=read,
            reader=by,
            is_canary=bool(canary),
        )
        for mount, path, version, rotated, read, by, canary in rows
    ]


def delete(tx: Tx, mount: str, path: str) -> int:
    """Delete a secret with all versions. Return 0 if there was none."""
    prune(tx, mount, path, before=1 << 62)
    return tx.run(_DELETE, mount=mount, path=path.encode())


def paths(
    reader: Reader, mount: str, *, first: bytes, end: bytes, limit: int, is_descending: bool = False
) -> list[bytes]:
    """Return at most `limit` paths from `first` to below `end`, in the order of their bytes."""
    rows = reader.all(_PATHS_DOWN if is_descending else _PATHS, mount=mount, first=first, end=end, limit=limit)
    return [bytes(path) for (path,) in rows]


def times(reader: Reader, mount: str, column: str, *, first: bytes, end: bytes, limit: int) -> list[PathTime]:
    """Return at most `limit` secrets with paths from `first` to below `end`, in any order, with the time `created_at`,
    `updated_at` or `read_at`; 0 for a secret that was never read.
    """
    rows = reader.all(_TIMES[column], mount=mount, first=first, end=end, limit=limit)
    return [PathTime(time, bytes(path)) for time, path in rows]


def creations_after(reader: Reader, mount: str, after: PathTime, *, limit: int, is_descending: bool) -> list[PathTime]:
    """Return at most `limit` secrets of a mount after the time and path `after`, in the order of their creation, or, if
    `is_descending`, in the opposite order.
    """
    query = _CREATED_BEFORE if is_descending else _CREATED_AFTER
    rows = reader.all(query, mount=mount, created=after.time, path=after.path, limit=limit)
    return [PathTime(created, bytes(path)) for created, path in rows]


def version(reader: Reader, mount: str, path: str, number: int) -> Version | None:
    """Return the version `number` of a secret; None if there is none."""
    return reader.one_as(_VERSION, _version, mount=mount, path=path.encode(), version=number)


def versions(reader: Reader, mount: str, path: str) -> list[Version]:
    """Return all versions of a secret, the oldest first."""
    return [_version(row) for row in reader.all(_VERSIONS, mount=mount, path=path.encode())]


def version_numbers(reader: Reader, mount: str, path: str) -> list[int]:
    """Return the numbers of all versions of a secret, sorted."""
    return [number for (number,) in reader.all(_NUMBERS, mount=mount, path=path.encode())]


def newest_version(reader: Reader, mount: str, path: str) -> int:
    """Return the highest number of a version of a secret; 0 if there is none."""
    row = reader.one(_NEWEST, mount=mount, path=path.encode())
    return 0 if row is None or row[0] is None else int(row[0])


def insert_version(tx: Tx, mount: str, path: str, made: Version) -> None:
    """Insert a version with a new number."""
    tx.run(
        _INSERT_VERSION,
        mount=mount,
        path=path.encode(),
        version=made.version,
        wrapped_key=made.wrapped_key,
        sealed=made.sealed,
        created_at=made.created_at,
        deleted_at=made.deleted_at,
    )


def set_deleted(tx: Tx, mount: str, path: str, number: int, at: int | None) -> None:
    """Mark a version as deleted from the time `at` (microseconds) on; None restores the version. A destroyed version
    does not change.
    """
    tx.run(_SET_DELETED, mount=mount, path=path.encode(), version=number, at=at)


def destroy(tx: Tx, mount: str, path: str, number: int) -> None:
    """Delete the value of a version permanently."""
    tx.run(_DESTROY, mount=mount, path=path.encode(), version=number)


def prune(tx: Tx, mount: str, path: str, *, first: int = 0, before: int) -> None:
    """Delete the versions with numbers from `first` to below `before`."""
    tx.run(_PRUNE, mount=mount, path=path.encode(), first=first, before=before)


def config(reader: Reader, mount: str) -> MountConfig:
    """Return the default settings for the secrets of a mount; `MountConfig()` if none are stored."""
    row = reader.one(_CONFIG, mount=mount)
    return (
        MountConfig()
        if row is None
        else MountConfig(max_versions=row[0], cas_required=bool(row[1]), delete_after=row[2])
    )


def set_config(tx: Tx, mount: str, config: MountConfig) -> None:
    """Replace the default settings for the secrets of a mount."""
    tx.run(_SET_CONFIG, mount=mount, max=config.max_versions, cas=int(config.cas_required), after=config.delete_after)


def _secret(row: Row) -> Secret:
    current, oldest, most, cas, after, custom, created, updated, canary, read, reader, stages = row
    return Secret(
        current_version=current,
        oldest_version=oldest,
        max_versions=most,
        cas_required=bool(cas),
        delete_after=after,
        custom=_decode_custom(custom),
        created_at=created,
        updated_at=updated,
        is_canary=bool(canary),
        read_at=read,
        reader=reader,
        stages=_decode_stages(stages),
    )


def _version(row: Row) -> Version:
    number, wrapped_key, sealed, created, deleted = row
    return Version(
        version=number,
        wrapped_key=None if wrapped_key is None else bytes(wrapped_key),
        sealed=None if sealed is None else bytes(sealed),
        created_at=created,
        deleted_at=deleted,
    )

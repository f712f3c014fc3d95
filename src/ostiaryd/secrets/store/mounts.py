"""The table of the mounts that agents enabled, and the deletion of their content."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import asdict

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.mount import MAX_SEGMENTS, Mount

_COLUMNS = "path, type, version, description, default_ttl, max_ttl, accessor, created_at"
_PLACES = ", ".join(f":p{number}" for number in range(MAX_SEGMENTS))
_FIND = sql(
    f"select {_COLUMNS} from vault_mount where path in ({_PLACES}) order by length(path) desc limit 1", steady=True
)
_ALL = sql(f"select {_COLUMNS} from vault_mount order by path")
_PUT = sql(
    f"""insert into vault_mount ({_COLUMNS})
        values (:path, :type, :version, :description, :default_ttl, :max_ttl, :accessor, :created_at)
        on conflict (path) do update set description = excluded.description, default_ttl = excluded.default_ttl,
         max_ttl = excluded.max_ttl"""
)
_DELETE = sql("delete from vault_mount where path = :path")
_COUNT_VERSIONS = sql(
    "select count(*) from (select 1 from secret_version where mount = :mount limit :limit) as counted"
)
_COUNT_SECRETS = sql("select count(*) from (select 1 from secret where mount = :mount limit :limit) as counted")
_CLEAR = (
    sql("delete from secret_version where mount = :mount"),
    sql("delete from secret where mount = :mount"),
    sql("delete from secret_mount where mount = :mount"),
)
_COUNT_KEYS = sql(
    """select count(*) from (select 1 from transit_key_version where name >= :first and name < :end limit :limit)
       as counted"""
)
_CLEAR_KEYS = (
    sql("delete from transit_key_version where name >= :first and name < :end"),
    sql("delete from transit_key where name >= :first and name < :end"),
)


def find(reader: Reader, paths: Sequence[str]) -> Mount | None:
    """Return the mount at the longest of these paths (at most four paths); None if there is none."""
    padded = [*paths, *[""] * (MAX_SEGMENTS - len(paths))]
    return reader.one_as(_FIND, _mount, **{f"p{number}": path for number, path in enumerate(padded)})


def get_all(reader: Reader) -> list[Mount]:
    """Return all mounts, sorted by path."""
    return [_mount(row) for row in reader.all(_ALL)]


def put(tx: Tx, mount: Mount) -> None:
    """Insert a mount, or replace its description and its lifetimes."""
    tx.run(_PUT, **asdict(mount))


def delete(tx: Tx, path: str) -> None:
    """Delete the record of a mount, but not its content."""
    tx.run(_DELETE, path=path)


def count_content(reader: Reader, path: str, *, limit: int) -> int:
    """Return the total number of secrets, versions of secrets, and versions of transit keys of a mount; each of the
    three is counted up to `limit`.
    """
    counts = [reader.one(statement, mount=path, limit=limit) for statement in (_COUNT_SECRETS, _COUNT_VERSIONS)]
    counts.append(reader.one(_COUNT_KEYS, limit=limit, **_range(path)))
    return sum(int(row[0]) for row in counts if row is not None)


def clear(tx: Tx, path: str) -> None:
    """Delete all secrets and keys of a mount."""
    for statement in _CLEAR:
        tx.run(statement, mount=path)
    for statement in _CLEAR_KEYS:
        tx.run(statement, **_range(path))


def _range(path: str) -> dict[str, str]:
    """Return the first and the last name in the range of the stored names of the keys of a mount. The range ends at
    `0`, the character after the slash.
    """
    return {"first": f"{path}/", "end": f"{path}0"}


def _mount(row: Row) -> Mount:
    path, type_, version, description, default_ttl, max_ttl, accessor, created_at = row
    return Mount(
        path=path,
        type=type_,
        version=version,
        description=description,
        default_ttl=default_ttl,
        max_ttl=max_ttl,
        accessor=accessor,
        created_at=created_at,
    )

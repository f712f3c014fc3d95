"""The table of the private values of tokens. Paths are stored as bytes, so that SQLite and PostgreSQL sort them in the
same order.
"""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.secrets.model.sealing import Envelope

_GET = sql("select wrapped_key, sealed from cubbyhole_value where holding = :holding and path = :path")
_PATHS = sql("select path from cubbyhole_value where holding = :holding order by path limit :limit")
_PUT = sql(
    """insert into cubbyhole_value (holding, path, expires_at, wrapped_key, sealed)
       values (:holding, :path, :expires_at, :wrapped_key, :sealed)
       on conflict (holding, path) do update set wrapped_key = excluded.wrapped_key, sealed = excluded.sealed"""
)
_DELETE = sql("delete from cubbyhole_value where holding = :holding and path = :path")
_PRUNE = sql(
    """delete from cubbyhole_value where (holding, path) in
        (select holding, path from cubbyhole_value where expires_at < :before order by expires_at limit :limit)""",
    prunes=True,
)


def get(reader: Reader, holding: str, path: str) -> Envelope | None:
    """Return the encrypted value of the token with the holding id `holding` at a path; None if there is none."""
    row = reader.one(_GET, holding=holding, path=path.encode())
    return None if row is None else Envelope(bytes(row[0]), bytes(row[1]))


def paths(reader: Reader, holding: str, *, limit: int) -> list[str]:
    """Return at most `limit` paths of the private values of the token with the holding id `holding`, sorted by their
    bytes.
    """
    return [bytes(path).decode() for (path,) in reader.all(_PATHS, holding=holding, limit=limit)]


def put(tx: Tx, holding: str, path: str, envelope: Envelope, *, expires_at: int) -> None:
    """Insert or replace a private value of the token with the holding id `holding`, which ends at `expires_at`
    (microseconds) at the latest.
    """
    tx.run(_PUT, holding=holding, path=path.encode(), expires_at=expires_at, **envelope._asdict())


def delete(tx: Tx, holding: str, path: str) -> None:
    """Delete a private value of the token with the holding id `holding`. Do nothing if there is none."""
    tx.run(_DELETE, holding=holding, path=path.encode())


def prune(tx: Tx, *, limit: int) -> int:
    """Delete at most `limit` values of the cubbyhole whose Vault tokens have expired; return their number."""
    return tx.run(_PRUNE, before=tx.now, limit=limit)

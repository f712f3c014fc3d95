"""The table of the secrets that the API of AWS Secrets Manager has scheduled for deletion."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

_PUT = sql(
    """insert into secret_deletion (path, due_at) values (:path, :due_at)
       on conflict (path) do update set due_at = excluded.due_at"""
)
_DELETE = sql("delete from secret_deletion where path = :path")
_DUE = sql("select path from secret_deletion where due_at <= :now order by due_at limit :limit")


def put(tx: Tx, path: str, *, due_at: int) -> None:
    """Schedule the deletion of a secret at `due_at` (microseconds since the epoch); replace an earlier schedule."""
    tx.run(_PUT, path=path.encode(), due_at=due_at)


def delete(tx: Tx, path: str) -> None:
    """Remove the schedule of a secret, if it has one."""
    tx.run(_DELETE, path=path.encode())


def due(reader: Reader, *, now: int, limit: int) -> list[str]:
    """Return at most `limit` paths of secrets whose deletion is due at `now` (microseconds since the epoch)."""
    return [bytes(path).decode() for (path,) in reader.all(_DUE, now=now, limit=limit)]

"""The table of Vault policies, as their authors wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from ostiaryd.ground.database import Reader, Tx, sql

MAX_READ = 16
"""Maximum number of policies that one statement reads."""
_PLACES = ", ".join(f":n{number}" for number in range(MAX_READ))
_FIND = sql(f"select name, text from vault_policy where name in ({_PLACES})", steady=True)
_NAMES = sql("select name from vault_policy order by name limit :limit")
_PUT = sql(
    """insert into vault_policy (name, text, created_at, updated_at) values (:name, :text, :now, :now)
       on conflict (name) do update set text = excluded.text, updated_at = excluded.updated_at"""
)
_DELETE = sql("delete from vault_policy where name = :name")


def find(reader: Reader, names: Sequence[str]) -> dict[str, str]:
    """Return the texts of these policies (at most `MAX_READ`) by name; names without a policy are missing."""
    padded = [*names, *[""] * (MAX_READ - len(names))]
    rows = reader.all(_FIND, **{f"n{number}": name for number, name in enumerate(padded)})
    return dict(rows)


def names(reader: Reader, *, limit: int) -> list[str]:
    """Return at most `limit` names of policies, sorted."""
    return [name for (name,) in reader.all(_NAMES, limit=limit)]


def put(tx: Tx, name: str, text: str) -> None:
    """Insert or replace a policy."""
    tx.run(_PUT, name=name, text=text, now=tx.now)


def delete(tx: Tx, name: str) -> None:
    """Delete a policy."""
    tx.run(_DELETE, name=name)

"""The values by which searches find entries: the tables of names, and the stored values for their comparison with the
entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.ledger.model import Entry, Indexed, classes_of, subjects_of


class NameTable(NamedTuple):
    """A table with a row (name, index) for each name by which a search finds an entry. `kind` describes a name in
    messages; `names_of` returns the names of an entry.
    """

    table: str
    column: str
    kind: str
    names_of: Callable[[Entry], Iterable[str]]


NAME_TABLES = {
    "data_class": NameTable("entry_class", "data_class", "data class", classes_of),
    "about": NameTable("entry_about", "subject", "subject", subjects_of),
}
"""Filters of a search for which the table of entries has no column, because an entry can have several names."""

NamedRow = tuple[str, int, bytes | None]
"""A row of a table of names: name, index, and the bytes of the entry (None for no entry)."""

_INDEXED = sql(
    """select idx, body, leaf, at, action, outcome, agent, task, person, resource from entry
       where idx >= :start and idx < :stop order by idx"""
)
_SEARCHED_FROM = sql("select searched_from from log_head where id = 1")
_SET_SEARCHED_FROM = sql("update log_head set searched_from = :start where id = 1")
_SET_TASK = sql("update entry set task = :task where idx = :idx")
_ADD_NAME = {
    one: sql(f"insert into {one.table} ({one.column}, idx) values (:name, :idx) on conflict do nothing")
    for one in NAME_TABLES.values()
}
_BETWEEN = {
    one: sql(f"select idx from {one.table} where {one.column} = :name and idx >= :start and idx < :stop")
    for one in NAME_TABLES.values()
}
_PAGE = {
    one: sql(
        f"""select {one.column}, {one.table}.idx, body from {one.table} left join entry on entry.idx = {one.table}.idx
            where ({one.column}, {one.table}.idx) > (:name, :idx) order by {one.column}, {one.table}.idx limit :limit"""
    )
    for one in NAME_TABLES.values()
}


def indexed(reader: Reader, start: int, stop: int) -> list[Indexed]:
    """Return the entries from `start` to below `stop`, in order, with the values by which searches find them."""
    rows = reader.all(_INDEXED, start=start, stop=stop)
    return [Indexed(index, bytes(body), bytes(leaf), *rest) for index, body, leaf, *rest in rows]


def searched_from(reader: Reader) -> int:
    """Return the index from which on every entry has its rows in the tables of names. Entries before it were appended
    by a version without one of the tables, and get their rows in the background.
    """
    row = reader.one(_SEARCHED_FROM)
    return 0 if row is None else int(row[0])


def set_searched_from(tx: Tx, start: int) -> None:
    """Store the index from which on every entry has its rows in the tables of names."""
    tx.run(_SET_SEARCHED_FROM, start=start)


def add_names(tx: Tx, start: int, entries: Sequence[Entry]) -> None:
    """Store the names by which searches find these entries, of which the first has the index `start`."""
    for one in NAME_TABLES.values():
        if rows := [(name, start + i) for i, entry in enumerate(entries) for name in one.names_of(entry)]:
            tx.many(_ADD_NAME[one], rows)


def set_task(tx: Tx, number: int, task: str | None) -> None:
    """Store the task by which searches find the entry `number`."""
    tx.run(_SET_TASK, task=task, idx=number)


def rows_between(reader: Reader, table: NameTable, names: Iterable[str], start: int, stop: int) -> set[tuple[str, int]]:
    """Return the rows (name, index) of these names with an index from `start` to below `stop`."""
    statement = _BETWEEN[table]
    return {(name, index) for name in names for (index,) in reader.all(statement, name=name, start=start, stop=stop)}


def page_of_names(reader: Reader, table: NameTable, last: NamedRow, *, limit: int) -> list[NamedRow]:
    """Return at most `limit` rows of a table of names, from the row after `last` on."""
    rows = reader.all(_PAGE[table], name=last[0], idx=last[1], limit=limit)
    return [(name, index, None if body is None else bytes(body)) for name, index, body in rows]

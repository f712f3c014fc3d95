"""The values by which searches find entries, as they are stored, for their comparison with the entries."""

from __future__ import annotations

from collections.abc import Iterable

from ostiaryd.ground.database import Reader, Sql, Tx, sql
from ostiaryd.ledger.model import Indexed

_INDEXED = sql(
    """select idx, body, leaf, at, action, outcome, agent, task, person, resource from entry
       where idx >= :start and idx < :stop order by idx"""
)
_SEARCHED_FROM = sql("select searched_from from log_head where id = 1")
_SET_SEARCHED_FROM = sql("update log_head set searched_from = :start where id = 1")
_ADD_CLASS = sql("insert into entry_class (data_class, idx) values (:name, :idx) on conflict do nothing")
_ADD_SUBJECT = sql("insert into entry_about (subject, idx) values (:name, :idx) on conflict do nothing")
_SET_TASK = sql("update entry set task = :task where idx = :idx")
_CLASSES = sql("select idx from entry_class where data_class = :name and idx >= :start and idx < :stop")
_SUBJECTS = sql("select idx from entry_about where subject = :name and idx >= :start and idx < :stop")
_PAGE_OF_CLASSES = sql(
    """select data_class, entry_class.idx, body from entry_class left join entry on entry.idx = entry_class.idx
       where (data_class, entry_class.idx) > (:name, :idx) order by data_class, entry_class.idx limit :limit"""
)
_PAGE_OF_SUBJECTS = sql(
    """select subject, entry_about.idx, body from entry_about left join entry on entry.idx = entry_about.idx
       where (subject, entry_about.idx) > (:name, :idx) order by subject, entry_about.idx limit :limit"""
)
NamedRow = tuple[str, int, bytes | None]
"""A row of the table of data classes or of subjects: name, index, and the bytes of the entry (None for no entry)."""


def indexed(reader: Reader, start: int, stop: int) -> list[Indexed]:
    """Return the entries from `start` to below `stop`, in order, with the values by which searches find them."""
    rows = reader.all(_INDEXED, start=start, stop=stop)
    return [Indexed(index, bytes(body), bytes(leaf), *rest) for index, body, leaf, *rest in rows]


def searched_from(reader: Reader) -> int:
    """Return the index from which on every entry has its rows in the tables of data classes and of subjects. Entries
    before it were appended by a version without the table of subjects, and get their rows in the background.
    """
    row = reader.one(_SEARCHED_FROM)
    return 0 if row is None else int(row[0])


def add_names(tx: Tx, number: int, *, classes: Iterable[str], subjects: Iterable[str], task: str | None) -> None:
    """Store the data classes, the subjects and the task by which searches find the entry `number`."""
    tx.many(_ADD_CLASS, [(name, number) for name in classes])
    tx.many(_ADD_SUBJECT, [(name, number) for name in subjects])
    tx.run(_SET_TASK, task=task, idx=number)


def set_searched_from(tx: Tx, start: int) -> None:
    """Store the index from which on every entry has its rows in the tables of data classes and of subjects."""
    tx.run(_SET_SEARCHED_FROM, start=start)


def classes_between(reader: Reader, names: Iterable[str], start: int, stop: int) -> set[tuple[str, int]]:
    """Return the rows (data class, index) of these data classes with an index from `start` to below `stop`."""
    return _between(reader, _CLASSES, names, start, stop)


def subjects_between(reader: Reader, names: Iterable[str], start: int, stop: int) -> set[tuple[str, int]]:
    """Return the rows (subject, index) of these subjects with an index from `start` to below `stop`."""
    return _between(reader, _SUBJECTS, names, start, stop)


def page_of_classes(reader: Reader, name: str, index: int, limit: int) -> list[NamedRow]:
    """Return at most `limit` rows of the table of data classes after the row (`name`, `index`)."""
    return _page(reader, _PAGE_OF_CLASSES, name, index, limit)


def page_of_subjects(reader: Reader, name: str, index: int, limit: int) -> list[NamedRow]:
    """Return at most `limit` rows of the table of subjects after the row (`name`, `index`)."""
    return _page(reader, _PAGE_OF_SUBJECTS, name, index, limit)


def _between(reader: Reader, statement: Sql, names: Iterable[str], start: int, stop: int) -> set[tuple[str, int]]:
    return {(name, index) for name in names for (index,) in reader.all(statement, name=name, start=start, stop=stop)}


def _page(reader: Reader, statement: Sql, name: str, index: int, limit: int) -> list[NamedRow]:
    rows = reader.all(statement, name=name, idx=index, limit=limit)
    return [(name, index, None if body is None else bytes(body)) for name, index, body in rows]

"""The comparison of the values by which searches find entries with the bytes of the entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, data_classes, differing_columns, indexed_words, read_entry, subjects
from ostiaryd.ledger.store.indexes import NamedRow

ENTRIES = 2000
"""Maximum number of entries, or of rows, that are read at once."""
FILLED = 100
"""Maximum number of entries whose values are stored in one job of the writer."""
NAMED = 10
"""Maximum number of differences in the message."""


class Table(NamedTuple):
    """A table of names by which a search finds entries: the names of an entry (None if they were cut off), the rows of
    some names, and the pages of all rows.
    """

    kind: str
    names: Callable[[Entry], set[str] | None]
    between: Callable[[Reader, set[str], int, int], set[tuple[str, int]]]
    page: Callable[[Reader, str, int, int], list[NamedRow]]


_TABLES = (
    Table("data class", data_classes, store.classes_between, store.page_of_classes),
    Table("subject", subjects, store.subjects_between, store.page_of_subjects),
)


class _Range(NamedTuple):
    """A range of ledger entries, with the highest time of all entries before the range."""

    start: int
    stop: int
    latest: int


class _Differences:
    """The differences between search indexes and entries that were found: the first of them as text, and the number of
    all.
    """

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, texts: Sequence[str]) -> None:
        self.first += texts[: NAMED - len(self.first)]
        self.count += len(texts)


async def check_indexes(world: World) -> str:
    """Compare every column and every row by which searches find an entry with the bytes of the entry. Return a sentence
    about the result. Raises Conflict with the entries that differ.

    The bytes themselves are compared with the signed checkpoint by the comparison of the state, and by
    `ostiary audit verify`.
    """
    size, since = await world.db.scan(lambda reader: (store.get_head(reader)[0].size, store.searched_from(reader)))
    if since:
        raise Conflict(
            f"searches by subject do not find all of the first {min(size, since)} entries",
            hint="the server adds what they lack in the background: run the doctor again in some minutes",
        )
    differences, latest = _Differences(), 0
    for start in range(0, size, ENTRIES):
        span = _Range(start, min(size, start + ENTRIES), latest)
        page, latest = await world.db.scan(partial(_compare, span))
        differences.add(page)
    for table in _TABLES:
        rows: list[NamedRow] = [("", -1, None)]
        while rows:
            rows = await world.db.scan(partial(_next_page, table, rows[-1]))
            differences.add(
                [f"entry {row[1]} lacks the {table.kind} `{row[0]}` that finds it" for row in _foreign(table, rows)]
            )
    if differences.count:
        more = f" and {differences.count - NAMED} more" if differences.count > NAMED else ""
        raise Conflict(
            f"searches of the ledger are wrong: {'; '.join(differences.first)}{more}",
            hint="find out who changed the database; search an export instead: ostiary audit export FOLDER",
        )
    return f"searches find each of {size} entries by its own values"


async def fill_indexes(world: World) -> None:
    """Store the values by which searches find the entries of an earlier version, the newest entries first, until
    searches find every entry. A raised mark in the database therefore hides no entry from a search.
    """
    while store.searched_from(world.db.read()):
        await world.writer.submit(_fill)


def _fill(tx: Tx) -> None:
    """Store the values of at most `FILLED` entries."""
    stop = min(store.searched_from(tx), store.get_head(tx)[0].size)
    start = max(0, stop - FILLED)
    for row in store.indexed(tx, start, stop):
        if (entry := read_entry(row.body)) is None:
            continue
        is_indexed = "task" not in differing_columns(row, entry, latest=0)
        task = row.task if is_indexed else indexed_words(entry)[1]
        store.add_names(tx, row.number, classes=data_classes(entry) or (), subjects=subjects(entry) or (), task=task)
    store.set_searched_from(tx, start)


def _compare(span: _Range, reader: Reader) -> tuple[list[str], int]:
    """Return the differences of the entries of the range, and the highest time up to its end."""
    rows, latest = store.indexed(reader, span.start, span.stop), span.latest
    is_whole = len(rows) == span.stop - span.start
    differences = [] if is_whole else [f"entries from {span.start} to {span.stop - 1} are missing"]
    expected = {table.kind: set[tuple[str, int]]() for table in _TABLES}
    for row in rows:
        entry = read_entry(row.body)
        if columns := differing_columns(row, entry, latest=latest):
            differences.append(f"the search has other values than entry {row.number}: {', '.join(columns)}")
        if entry is None:
            continue
        latest = max(latest, entry.at)
        for table in _TABLES:
            expected[table.kind].update((name, row.number) for name in table.names(entry) or ())
    for table in _TABLES:
        expected_rows = expected[table.kind]
        missing = expected_rows - table.between(reader, {name for name, _ in expected_rows}, span.start, span.stop)
        differences += [f"entry {number} is not found by its {table.kind} `{name}`" for name, number in sorted(missing)]
    return differences, latest


def _next_page(table: Table, last: NamedRow, reader: Reader) -> list[NamedRow]:
    return table.page(reader, last[0], last[1], ENTRIES)


def _foreign(table: Table, rows: list[NamedRow]) -> list[NamedRow]:
    """Return the rows that lead to an entry that does not exist, or that lacks the name of the row."""
    foreign = []
    for name, number, body in rows:
        entry = None if body is None else read_entry(body)
        names = None if entry is None else table.names(entry)
        if body is None or (names is not None and name not in names):
            foreign.append((name, number, body))
    return foreign

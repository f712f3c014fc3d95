"""The comparison of the values by which searches find entries with the bytes of the entries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, differing_columns, indexed_words, is_cut, read_entry
from ostiaryd.ledger.store import NAME_TABLES, NamedRow, NameTable

ENTRIES = 2000
"""Maximum number of entries, or of rows, that are read at once."""
FILLED = 100
"""Maximum number of entries whose values are stored in one job of the writer."""
NAMED = 10
"""Maximum number of differences in the message."""


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
        kinds = " or ".join(one.kind for one in NAME_TABLES.values())
        raise Conflict(
            f"searches by {kinds} do not find all of the first {min(size, since)} entries",
            hint="the server stores the missing values in the background: run `ostiary doctor --deep` again later",
        )
    differences, latest = _Differences(), 0
    for start in range(0, size, ENTRIES):
        span = _Range(start, min(size, start + ENTRIES), latest)
        page, latest = await world.db.scan(partial(_compare, span))
        differences.add(page)
    for table in NAME_TABLES.values():
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
    """Store the values by which searches find entries, for entries that an earlier version wrote without them, the
    newest first, until searches find every entry. If the stored mark (`searched_from`) was manipulated, the values are
    stored again.
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
        if "task" in differing_columns(row, entry, latest=0):
            store.set_task(tx, row.number, indexed_words(entry)[1])
        if not is_cut(entry):
            store.add_names(tx, row.number, [entry])
    store.set_searched_from(tx, start)


def _compare(span: _Range, reader: Reader) -> tuple[list[str], int]:
    """Return the differences of the entries of the range, and the highest time up to its end."""
    rows, latest = store.indexed(reader, span.start, span.stop), span.latest
    is_whole = len(rows) == span.stop - span.start
    differences = [] if is_whole else [f"entries from {span.start} to {span.stop - 1} are missing"]
    expected = {table: set[tuple[str, int]]() for table in NAME_TABLES.values()}
    for row in rows:
        entry = read_entry(row.body)
        if columns := differing_columns(row, entry, latest=latest):
            differences.append(f"the search has other values than entry {row.number}: {', '.join(columns)}")
        if entry is None:
            continue
        latest = max(latest, entry.at)
        for table, names in expected.items():
            names.update((name, row.number) for name in _stored_names(table, entry) or ())
    for table, names in expected.items():
        missing = names - store.rows_between(reader, table, {name for name, _ in names}, span.start, span.stop)
        differences += [f"entry {number} is not found by its {table.kind} `{name}`" for name, number in sorted(missing)]
    return differences, latest


def _stored_names(table: NameTable, entry: Entry) -> set[str] | None:
    """Return the names under which a stored entry is found; None if they were cut off."""
    return None if is_cut(entry) else set(table.names_of(entry))


def _next_page(table: NameTable, last: NamedRow, reader: Reader) -> list[NamedRow]:
    return store.page_of_names(reader, table, last, limit=ENTRIES)


def _foreign(table: NameTable, rows: list[NamedRow]) -> list[NamedRow]:
    """Return the rows that lead to an entry that does not exist, or that lacks the name of the row."""
    foreign = []
    for name, number, body in rows:
        entry = None if body is None else read_entry(body)
        names = None if entry is None else _stored_names(table, entry)
        if body is None or (names is not None and name not in names):
            foreign.append((name, number, body))
    return foreign

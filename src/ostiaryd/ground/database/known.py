"""What the writer remembers from batch to batch: what steady statements have read, until something is written to
their tables, and what rooms keep.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from ostiaryd.ground.database.statement import Sql

T = TypeVar("T")
_Results = dict[frozenset[str], dict[tuple[Any, ...], Any]]
MAX_KNOWN = 16_384
"""results from the same tables; then they are forgotten and read anew"""


class Known:
    """Results by the tables that they were read from, those of lasting statements apart. Who rolls back clears them:
    some may be of what never was.
    """

    __slots__ = ("_by_tables", "_kept", "_lasting", "_tables")

    def __init__(self) -> None:
        self._by_tables: _Results = {}
        self._lasting: _Results = {}
        self._tables: set[str] = set()
        self._kept: dict[Any, Any] = {}

    def keep(self, make: Callable[[], T]) -> T:
        """What a room keeps, for as long as the writer lives."""
        if make not in self._kept:
            self._kept[make] = make()
        kept: T = self._kept[make]
        return kept

    def recall(self, statement: Sql, params: dict[str, Any], read: Callable[..., Any]) -> Any:
        """What `read(statement, **params)` gave when it was last called for these."""
        results = self._lasting if statement.lasting else self._by_tables
        found = results.get(statement.tables)
        if found is None:
            found = results[statement.tables] = {}
            self._tables |= statement.tables
        key = (statement, *params.items())
        if key in found:
            return found[key]
        result = read(statement, **params)
        if result or not statement.lasting:
            if len(found) >= MAX_KNOWN:
                found.clear()
            found[key] = result
        return result

    def forget(self, written: Sql) -> None:
        """Forget what was read from any table of a statement that writes, unless it lasts."""
        tables = written.tables
        if self._tables.isdisjoint(tables):
            return
        self._by_tables = _without(self._by_tables, tables)
        if not written.adds:
            self._lasting = _without(self._lasting, tables)
        self._tables = set().union(*self._by_tables, *self._lasting)

    def clear(self) -> None:
        self._by_tables, self._lasting, self._tables = {}, {}, set()


def _without(results: _Results, tables: Collection[str]) -> _Results:
    return {one: found for one, found in results.items() if one.isdisjoint(tables)}

"""What the writer remembers from batch to batch: what steady statements have read, until something is written to
their tables, and what rooms keep.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from ostiaryd.ground.database.statement import Sql

T = TypeVar("T")
MAX_KNOWN = 16_384
"""results from the same tables; then they are forgotten and read anew"""


class Known:
    """Results by the tables that they were read from. Who rolls back clears them: some may be of what never was."""

    __slots__ = ("_by_tables", "_kept", "_tables")

    def __init__(self) -> None:
        self._by_tables: dict[frozenset[str], dict[tuple[Any, ...], Any]] = {}
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
        found = self._by_tables.get(statement.tables)
        if found is None:
            found = self._by_tables[statement.tables] = {}
            self._tables |= statement.tables
        key = (statement, *[params[name] for name in statement.names])
        if key not in found:
            if len(found) >= MAX_KNOWN:
                found.clear()
            found[key] = read(statement, **params)
        return found[key]

    def forget(self, tables: Collection[str]) -> None:
        """Forget what was read from any of those tables."""
        if not self._tables.isdisjoint(tables):
            self._by_tables = {one: found for one, found in self._by_tables.items() if one.isdisjoint(tables)}
            self._tables = set().union(*self._by_tables)

    def clear(self) -> None:
        self._by_tables, self._tables = {}, set()

"""The writer's cache across batches: the results of steady statements until their tables change, and objects of
packages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ostiaryd.ground.database.statement import Sql

T = TypeVar("T")
MAX_KNOWN = 16_384
"""maximum number of results of one statement; beyond that, they are deleted and read again"""


class QueryCache:
    """Results by statement and parameters. A rollback clears the cache, since some results may come from undone
    changes.
    """

    __slots__ = ("_kept", "_readers", "_results")

    def __init__(self) -> None:
        self._results: dict[Sql, dict[tuple[Any, ...], Any]] = {}
        self._readers: dict[str, list[Sql]] = {}
        """the statements in `_results`, by each table that they read from"""
        self._kept: dict[Any, Any] = {}

    def keep(self, make: Callable[[], T]) -> T:
        """Return an object that a package keeps as long as the writer; make it at first use."""
        if make not in self._kept:
            self._kept[make] = make()
        kept: T = self._kept[make]
        return kept

    def recall(
        self,
        statement: Sql,
        params: dict[str, Any],
        read: Callable[..., Any],
        reader: object,
        *make: Callable[..., Any],
    ) -> Any:
        """Return the result of `read(reader, statement, *make, **params)` from the cache, or read it."""
        key = (*make, *params.items())
        try:
            return self._results[statement][key]
        except KeyError:
            pass
        if (results := self._results.get(statement)) is None:
            results = self._results[statement] = {}
            for table in statement.tables:
                self._readers.setdefault(table, []).append(statement)
        result = read(reader, statement, *make, **params)
        if result or not statement.lasting:
            if len(results) >= MAX_KNOWN:
                results.clear()
            results[key] = result
        return result

    def forget(self, written: Sql) -> None:
        """Delete cached rows of every table that a statement writes, unless they are lasting."""
        for table in written.tables:
            for statement in self._readers.get(table, ()):
                if not (written.adds and statement.lasting):
                    self._results[statement].clear()

    def clear(self) -> None:
        """Delete all results."""
        self._results, self._readers = {}, {}

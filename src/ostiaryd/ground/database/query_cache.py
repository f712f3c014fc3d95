"""A cache of the writer that lasts for several batches: results of steady statements until one of their tables changes,
and objects that packages keep.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from typing import Any, TypeVar

from ostiaryd.ground.database.statement import Read, Sql

T = TypeVar("T")
MAX_KNOWN = 16_384
"""Maximum number of cached results of one statement. Above it, all its results are deleted."""
MAX_BYTES = 16 << 20
"""Maximum total size of the cached results and parameters of one statement, in bytes as `marshal` writes the rows.
Above it, all its results are deleted.
"""


class QueryCache:
    """Cached results by statement and parameters. A rollback empties the cache, because results may contain undone
    changes.
    """

    __slots__ = ("_bytes", "_kept", "_readers", "results")

    def __init__(self) -> None:
        self.results: dict[Sql, dict[tuple[Any, ...], Any]] = {}
        """The cached results: by statement, and by the function that converts the row (None without one) with the
        parameters.
        """
        self._bytes: dict[Sql, int] = {}
        """Total size of the cached results of each statement, in bytes."""
        self._readers: dict[str, list[Sql]] = {}
        """Statements with cached results, by each table that they read."""
        self._kept: dict[Any, Any] = {}

    def get_singleton(self, make: Callable[[], T]) -> T:
        """Return the object that `make` creates at the first call. The object is kept as long as the writer."""
        if make not in self._kept:
            self._kept[make] = make()
        kept: T = self._kept[make]
        return kept

    def has(self, read: Read) -> bool:
        """Return whether the cache has the result of a read, whose statement is `steady` or `lasting`."""
        results = self.results.get(read.statement)
        return results is not None and (read.make, *read.params.items()) in results

    def learn(
        self,
        statement: Sql,
        params: dict[str, Any],
        read: Callable[..., Any],
        reader: object,
        make: Callable[..., Any] | None = None,
    ) -> Any:
        """Return the rows of `read(reader, statement, **params)`, converted by `make`, and cache this result. A result
        above `MAX_BYTES` and an empty result of a `lasting` statement are not cached.
        """
        if (results := self.results.get(statement)) is None:
            results = self.results[statement] = {}
            for table in statement.tables:
                self._readers.setdefault(table, []).append(statement)
        rows = read(reader, statement, **params)
        result = rows if rows is None or make is None else make(rows)
        size = len(marshal.dumps(rows)) + sum(map(len, map(str, params.values())))
        if (result or not statement.lasting) and size <= MAX_BYTES:
            if len(results) >= MAX_KNOWN or self._bytes.get(statement, 0) + size > MAX_BYTES:
                self._drop(statement)
            results[make, *params.items()] = result
            self._bytes[statement] = self._bytes.get(statement, 0) + size
        return result

    def _drop(self, statement: Sql) -> None:
        """Delete the results of a statement."""
        self.results[statement].clear()
        self._bytes[statement] = 0

    def forget(self, written: Sql) -> None:
        """Delete the cached results that a statement may change: those of every table that it writes, except lasting
        results if it only adds rows.
        """
        for table in written.tables:
            for statement in self._readers.get(table, ()):
                if not (written.adds and statement.lasting):
                    self._drop(statement)

    def clear(self) -> None:
        """Delete all results."""
        for results in (self.results, self._bytes, self._readers):
            results.clear()

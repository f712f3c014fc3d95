"""Reading, and the writer's transaction: statements, late rows, savepoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ostiaryd.ground.database.connection import DatabaseConnection
from ostiaryd.ground.database.pin import Head, Pin
from ostiaryd.ground.database.query_cache import QueryCache
from ostiaryd.ground.database.statement import Read, Sql, sql

if TYPE_CHECKING:
    from ostiaryd.ground.crypto.keyring import Keyring

T = TypeVar("T")
Row = tuple[Any, ...]


@lru_cache(256)
def _savepoint_statements(number: int) -> tuple[Sql, Sql, Sql]:
    """Return the statements that begin, undo and release the savepoint with this number."""
    return (
        sql(f"savepoint act{number}"),
        sql(f"rollback to savepoint act{number}"),
        sql(f"release savepoint act{number}"),
    )


class Reader:
    """Executes statements for reading on one connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: DatabaseConnection) -> None:
        self._connection = connection

    def one(self, statement: Sql, **params: Any) -> Row | None:
        """Return the first row of the result; None if it is empty."""
        row: Row | None = self._execute(statement, params).fetchone()
        return row

    def one_as(self, statement: Sql, make: Callable[[Row], T], /, **params: Any) -> T | None:
        """Return the first row of the result, converted by `make`; None if it is empty."""
        row = self._execute(statement, params).fetchone()
        return None if row is None else make(row)

    def all(self, statement: Sql, **params: Any) -> list[Row]:
        """Return all rows of the result of a statement."""
        rows: list[Row] = self._execute(statement, params).fetchall()
        return rows

    def each(self, *reads: Read) -> list[list[Row]]:
        """Execute several statements, and return the rows of each. On PostgreSQL, this takes one round trip."""
        return self._connection.execute_each(reads)

    def ahead(self, *reads: Read) -> AbstractContextManager[None]:
        """Run a block that makes these reads, in any order. On PostgreSQL, they take one round trip together."""
        return self._ahead(reads)

    @contextmanager
    def _ahead(self, reads: Sequence[Read]) -> Iterator[None]:
        if len(reads) < 2:
            yield
            return
        self._connection.read_ahead(reads)
        try:
            yield
        finally:
            self._connection.forget_ahead(reads)

    def _execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        return self._connection.execute(statement, params)


class Tx(Reader):
    """A transaction of the writer, for one batch of jobs.

    `now` is the time of the whole batch, in microseconds. `cache` has the results of earlier reads, as long as every
    transaction was committed and no other process has written since. `head` is the ledger's head after the entries of
    the batch are appended, which the writer pins after the commit.
    """

    __slots__ = (
        "_deferred",
        "_known",
        "_late",
        "_results",
        "_savepoint_count",
        "_savepoints",
        "head",
        "is_granting",
        "keys",
        "now",
        "opened",
        "pin",
        "random",
        "topics",
        "touched",
        "undone",
    )

    def __init__(
        self,
        connection: DatabaseConnection,
        *,
        now: int,
        random: Callable[[int], bytes],
        keys: Keyring,
        cache: QueryCache | None = None,
        is_granting: bool = True,
        pin: Pin | None = None,
    ) -> None:
        super().__init__(connection)
        self.now = now
        self.random = random
        self.keys = keys
        self.is_granting = is_granting
        """False while the wall clock is not confirmed; acts that grant are then refused (`Act.check_granting`)."""
        self.pin = pin or Pin()
        self.opened: dict[Hashable, bytes] = {}
        """Decrypted values by their ciphertexts and places; the writer deletes them after the jobs of the batch."""
        self.head: Head | None = None
        self.topics: set[str] = set()
        self.touched: list[str] = []
        """Names of the guarded rows that the present act has written (`ground.database.guarded`)."""
        self.undone: list[Callable[[], None]] = []
        """Functions that the writer calls if the whole batch is undone; its jobs may then run a second time."""
        self._deferred: dict[Callable[[Tx, list[Any]], None], list[Any]] = {}
        self._known = cache or QueryCache()
        self._results = self._known.results
        """The cached results, which nearly every read finds without a further call."""
        self._late = Late()
        self._savepoints: list[Savepoint] = []
        self._savepoint_count = 0

    def one(self, statement: Sql, **params: Any) -> Row | None:
        """Return the first row of the result, or None. The result of a `steady` statement comes from the cache if
        possible.
        """
        if not statement.steady:
            return super().one(statement, **params)
        row: Row | None
        try:
            row = self._results[statement][None, *params.items()]
            return row
        except KeyError:
            pass
        row = self._known.learn(statement, params, Reader.one, self)
        return row

    def one_as(self, statement: Sql, make: Callable[[Row], T], /, **params: Any) -> T | None:
        """Return the first row of the result, converted by `make`, or None. The result of a `steady` statement comes
        from the cache if possible.
        """
        if not statement.steady:
            return super().one_as(statement, make, **params)
        made_row: T | None
        try:
            made_row = self._results[statement][make, *params.items()]
            return made_row
        except KeyError:
            pass
        made_row = self._known.learn(statement, params, Reader.one, self, make)
        return made_row

    def all(self, statement: Sql, **params: Any) -> list[Row]:
        """Return all rows of the result. The result of a `steady` statement comes from the cache if possible."""
        if not statement.steady:
            return super().all(statement, **params)
        rows: list[Row]
        try:
            rows = self._results[statement][None, *params.items()]
            return rows
        except KeyError:
            pass
        rows = self._known.learn(statement, params, Reader.all, self)
        return rows

    def each(self, *reads: Read) -> list[list[Row]]:
        """Execute several statements, and return the rows of each. On PostgreSQL, this takes one round trip."""
        for read in reads:
            self._prepare(read.statement, read.params)
        return super().each(*reads)

    def ahead(self, *reads: Read) -> AbstractContextManager[None]:
        """Run a block that makes these reads. Cached results are not read ahead, nor are rows that the transaction
        writes only before its end (`Late`).
        """
        return super().ahead(
            *(
                read
                for read in reads
                if not (read.statement.steady and self._known.has(read))
                and not self._late.concerns(read.statement, read.params)
            )
        )

    def run(self, statement: Sql, **params: Any) -> int:
        """Execute a statement, and return the number of affected rows."""
        count: int = self._execute(statement, params).rowcount
        return count

    def send(self, statement: Sql, **params: Any) -> None:
        """Execute a statement whose result is not needed. On PostgreSQL, it is sent in one message with the next
        statement. If it fails, the whole batch fails.
        """
        self._prepare(statement, params)
        self._connection.queue(statement, params)

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row. The values of a row have the order of `statement.names`."""
        self._prepare(statement, {})
        self._connection.many(statement, rows)

    def late(self, statement: Sql, row: Sequence[Any]) -> None:
        """Execute an insert or update of one row later, together with rows of other acts: at the end of the batch,
        before the next read that may depend on the row, or before the next other write. The values of `row` have the
        order of `statement.names`. If the statement fails, the whole batch fails.

        Before a late update, the same act must have read the row by its key.
        """
        self._late.add(statement, row)
        self._known.forget(statement)

    def get_singleton(self, make: Callable[[], T]) -> T:
        """Return the object that `make` creates at the first call, which a package keeps in memory across batches.

        The object survives refused acts, failed batches and writes of other processes. It can therefore differ from the
        database, and the package must allow for that.
        """
        return self._known.get_singleton(make)

    def defer(self, function: Callable[[Tx, list[Any]], None], value: Any) -> None:
        """Collect `value`. Once, immediately before the commit, `function(tx, values)` runs with all collected values
        of the batch. A value stays collected even if its act is undone.
        """
        self._deferred.setdefault(function, []).append(value)

    def finish(self) -> None:
        """Write the rows that wait (`Late`), and run the functions of `defer`, so that a commit can follow."""
        if self.touched:
            raise RuntimeError(f"guarded rows were written without an entry: {self.touched[:3]}")
        self._late.write(self._connection)
        for function, values in self._deferred.items():
            function(self, values)

    def touch(self, kind: str, key: str) -> None:
        """Record that the present act has written a guarded row (a row on which decisions depend), so that the ledger
        entry of the act will contain the digest of the row.
        """
        self.touched.append(f"{kind} {key}")

    def savepoint(self) -> Savepoint:
        """Execute the block completely or not at all: if it raises, its changes are undone, and the exception
        propagates.
        """
        return Savepoint(self)

    def _execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        self._prepare(statement, params)
        return self._connection.execute(statement, params)

    def _prepare(self, statement: Sql, params: dict[str, Any]) -> None:
        """Before a statement, begin the savepoints that it needs. Write the late rows if the statement writes, or reads
        rows that may be among them.
        """
        if statement.writes or self._late.concerns(statement, params):
            for savepoint in self._savepoints:
                savepoint.begin()
            self._late.write(self._connection)
        if statement.writes:
            self._known.forget(statement)


class Late:
    """Rows that are written later, together. They have numbers, counted from `begin`, so that a savepoint can recognise
    its own rows.
    """

    __slots__ = ("_keys", "_tables", "begin", "rows")

    def __init__(self) -> None:
        self.begin = 0
        self.rows: list[tuple[Sql, Sequence[Any]]] = []
        self._tables: dict[str, frozenset[str]] = {}
        """Names of the keys that all late rows of a table have, by table."""
        self._keys: defaultdict[tuple[str, str], set[Any]] = defaultdict(set)
        """Values of a key in the late rows, by table and name of the key."""

    @property
    def end(self) -> int:
        """Return the number that the next added row gets."""
        return self.begin + len(self.rows)

    def add(self, statement: Sql, row: Sequence[Any]) -> None:
        """Add a row that is written at the end of the batch by `statement`."""
        self.rows.append((statement, row))
        for table in statement.tables:
            shared = self._tables.get(table, statement.key_names)
            # nearly always the same object
            self._tables[table] = shared if shared is statement.key_names else shared & statement.key_names
            for key, place in statement.places:
                self._keys[table, key].add(row[place])

    def concerns(self, statement: Sql, params: dict[str, Any]) -> bool:
        """Return whether a statement may read or write one of these rows, which are not written yet."""
        for table in statement.tables:
            if (shared := self._tables.get(table)) is not None:
                key = statement.keys[0] if statement.keys else ""
                if key not in shared or params[key] in self._keys[table, key]:
                    return True
        return False

    def write(self, connection: DatabaseConnection, *, end: int | None = None) -> None:
        """Write the rows with numbers below `end`, or all rows for None. If it fails, the batch fails, and the rows are
        kept.
        """
        count = len(self.rows) if end is None else max(0, end - self.begin)
        by_statement: dict[Sql, list[Sequence[Any]]] = {}
        for statement, row in self.rows[:count]:
            by_statement.setdefault(statement, []).append(row)
        for statement, rows in by_statement.items():
            connection.many(statement, rows)
        del self.rows[:count]
        self.begin += count
        if not self.rows:
            self._tables.clear()
            self._keys.clear()

    def drop(self, begin: int) -> None:
        """Delete the rows with numbers from `begin` on without writing them."""
        del self.rows[max(0, begin - self.begin) :]


class Savepoint:
    """A savepoint, which begins in the database only before the first statement of its block that writes, because most
    refused acts never write.

    Late rows from before the block belong to other acts: they are written before the savepoint, and are not undone.

    Each savepoint has its own name. If a statement of an earlier act fails only now, because it was sent together with
    a statement of this block, the name of this savepoint does not exist in the database. Its rollback fails too, and so
    does the batch.
    """

    __slots__ = ("_late_begin", "_statements", "_topics", "_touched", "_tx")

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._statements: tuple[Sql, Sql, Sql] | None = None
        """The statements of this savepoint; None until it has begun in the database."""

    def begin(self) -> None:
        """Begin the savepoint in the database, if it has not begun, after writing the late rows from
        before the block.
        """
        if self._statements is None:
            tx = self._tx
            tx._late.write(tx._connection, end=self._late_begin)
            tx._savepoint_count += 1
            begin, _, _ = statements = _savepoint_statements(tx._savepoint_count)
            tx._connection.queue(begin, {})
            self._statements = statements

    def __enter__(self) -> None:
        tx = self._tx
        self._topics, self._late_begin, self._touched = set(tx.topics), tx._late.end, len(tx.touched)
        tx._savepoints.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tx = self._tx
        tx._savepoints.pop()
        if error is not None:
            tx.topics = self._topics
            tx._late.drop(self._late_begin)
            del tx.touched[self._touched :]
            if self._statements is not None:
                tx._connection.queue(self._statements[1], {})
                tx._known.clear()
        if self._statements is not None:
            tx._connection.queue(self._statements[2], {})

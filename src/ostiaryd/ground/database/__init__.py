"""A single SQL text for two databases.

A statement is written once with `:name` parameters in the subset that SQLite and PostgreSQL share (text, bigint, bytea;
`on conflict`, `returning`, CTEs, window functions; JSON as text; booleans as 0 and 1; time as bigint microseconds).
Only the connection classes differ between the databases. Rows are tuples.

Reads of single rows by key run on the caller's thread (about 4 microseconds in SQLite). A read that may examine many
rows must run in a reader thread.
"""

from ostiaryd.ground.database.connection import (
    PRAGMAS,
    DatabaseConnection,
    DatabaseUnavailable,
    OutcomeUnknown,
    SqliteConnection,
)
from ostiaryd.ground.database.database import Database
from ostiaryd.ground.database.failures import DamagedDatabase, StorageFailed, storage_failure
from ostiaryd.ground.database.files import LostDatabase
from ostiaryd.ground.database.query_cache import QueryCache
from ostiaryd.ground.database.statement import Read, Sql, opening_sql, sql
from ostiaryd.ground.database.transaction import Reader, Row, Savepoint, Tx

__all__ = [
    "PRAGMAS",
    "DamagedDatabase",
    "Database",
    "DatabaseConnection",
    "DatabaseUnavailable",
    "LostDatabase",
    "OutcomeUnknown",
    "QueryCache",
    "Read",
    "Reader",
    "Row",
    "Savepoint",
    "Sql",
    "SqliteConnection",
    "StorageFailed",
    "Tx",
    "opening_sql",
    "sql",
    "storage_failure",
]

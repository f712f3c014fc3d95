"""Forward migrations: numbered `.sql` files, applied once, in order, each with its checksum.

The files are written in PostgreSQL's types; each table definition ends in `{strict}` or `{keyed}`, which stand for the
SQLite options STRICT, and STRICT, WITHOUT ROWID for tables with a text key. `migrate` refuses a file that was edited
after it was applied, and a database that is newer than the program.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Database, DatabaseConnection, Reader, sql

_HAS_MIGRATIONS = sql("select 1 from sqlite_master where name = 'migration'")
_HAS_MIGRATIONS.postgres = "select 1 where to_regclass('migration') is not null"
_APPLIED = sql("select number, name, checksum from migration order by number")
_RECORD = sql(
    "insert into migration (number, name, checksum, applied_at) values (:number, :name, :checksum, :applied_at)"
)
_LEDGER = """create table if not exists migration (
    number bigint primary key, name text not null, checksum text not null, applied_at bigint not null
)"""
_TYPES = {"bigint": "integer", "bytea": "blob"}


@cache
def scripts() -> tuple[tuple[int, str, str], ...]:
    """Return all migrations of this version in order, as (number, name, text). The files are read once."""
    folder = files("ostiaryd.ground.database") / "migrations"
    scripts_found = [
        (int(file.name[:4]), file.name[5:-4], file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return tuple(sorted(scripts_found))


def render(text: str, *, is_sqlite: bool) -> str:
    """Return the text of a migration in the SQL dialect of the database."""
    if not is_sqlite:
        return text.replace(") {strict};", ");").replace(") {keyed};", ");")
    text = re.sub(r"\b(bigint|bytea)\b", lambda match: _TYPES[match[1]], text)
    return text.replace("{strict}", "strict").replace("{keyed}", "strict, without rowid")


def migrate(db: Database, *, now: int, create: bool = True) -> list[str]:
    """Apply the missing migrations in one transaction, and return their names. `now`: the time of their application, in
    microseconds.

    Raises Conflict if a migration was edited after it was applied, if the database has a migration that this version
    does not know, and, without `create`, if the database has no tables.
    """
    if not create and _is_complete(db.read()):
        return []
    connection = db.connect(create=create)
    try:
        connection.begin(write=True)
        connection.script(_LEDGER)
        applied = {number: (name, checksum) for number, name, checksum in Reader(connection).all(_APPLIED)}
        if not applied and not create:
            raise Conflict(
                "the database is empty, but this data folder was already used",
                hint="restore the database from a backup; to start a new server, use another, empty --data-dir",
            )
        shipped = scripts()
        fresh = [script for script in shipped if not _is_applied(script, applied)]
        if unknown := sorted(set(applied) - {number for number, _, _ in shipped}):
            raise Conflict(
                f"the database has migration {unknown[-1]}, which this version does not know",
                hint="start the newer version of ostiary that wrote the migration",
            )
        for number, name, text in fresh:
            _apply(connection, number, name, text, is_sqlite=db.is_sqlite, now=now)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.close()
    return [name for _, name, _ in fresh]


def _is_complete(reader: Reader) -> bool:
    """Return whether the database has exactly the migrations of this version."""
    if reader.one(_HAS_MIGRATIONS) is None:
        return False
    return reader.all(_APPLIED) == [(number, name, _checksum(text)) for number, name, text in scripts()]


def _apply(connection: DatabaseConnection, number: int, name: str, text: str, *, is_sqlite: bool, now: int) -> None:
    connection.script(render(text, is_sqlite=is_sqlite))
    connection.execute(_RECORD, {"number": number, "name": name, "checksum": _checksum(text), "applied_at": now})


def _is_applied(script: tuple[int, str, str], applied: dict[int, tuple[str, str]]) -> bool:
    number, name, text = script
    if number not in applied:
        return False
    if applied[number] != (name, _checksum(text)):
        raise Conflict(
            f"migration {number:04d}_{name} was edited after it was applied",
            hint="migrations are forward only: add a new file instead",
        )
    return True


@cache
def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

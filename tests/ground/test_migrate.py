"""Migrations go forward once, and an edited or unknown one stops the start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Database, Reader, Sql, sql
from ostiaryd.ground.database.migrate import migrate, scripts

EDIT = sql("update migration set checksum = 'x' where number = 1")
ADD = sql("insert into migration (number, name, checksum, applied_at) values (9999, 'later', 'x', 0)")
COUNT = sql("select count(*) from migration")


def execute(db: Database, statement: Sql) -> None:
    connection = db.connect()
    connection.begin(write=True)
    connection.execute(statement, {})
    connection.commit()
    connection.close()


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    db = Database(database_url)
    yield db
    db.close()


def test_each_migration_is_applied_once(db: Database) -> None:
    assert migrate(db, now=1) == [name for _, name, _ in scripts()]
    assert migrate(db, now=2) == []
    assert migrate(db, now=2, create=False) == []


def test_the_numbers_of_migrations_are_unique_and_ascend() -> None:
    numbers = [number for number, _, _ in scripts()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("create", [True, False], ids=["first start", "later start"])
def test_an_edited_migration_is_refused(db: Database, create: bool) -> None:
    migrate(db, now=1)
    execute(db, EDIT)
    with pytest.raises(Conflict, match="edited"):
        migrate(db, now=2, create=create)


@pytest.mark.parametrize("create", [True, False], ids=["first start", "later start"])
def test_a_database_with_an_unknown_migration_is_refused(db: Database, create: bool) -> None:
    migrate(db, now=1)
    execute(db, ADD)
    with pytest.raises(Conflict, match="9999"):
        migrate(db, now=2, create=create)


def test_a_missing_migration_is_applied_at_a_later_start(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    *earlier, last = scripts()
    monkeypatch.setattr("ostiaryd.ground.database.migrate.scripts", lambda: tuple(earlier))
    migrate(db, now=1)
    monkeypatch.undo()
    assert migrate(db, now=2, create=False) == [last[1]]


def test_a_migration_that_fails_leaves_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [*scripts(), (9000, "broken", "create table half (id bigint primary key) {strict};\ncreate nonsense;\n")]
    monkeypatch.setattr("ostiaryd.ground.database.migrate.scripts", lambda: broken)
    with pytest.raises(Exception, match="(?i)syntax"):
        migrate(db, now=1)
    monkeypatch.undo()
    connection = db.connect()
    try:
        with pytest.raises(Exception, match="(?i)migration"):
            Reader(connection).one(COUNT)
    finally:
        connection.close()

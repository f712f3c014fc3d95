"""PostgreSQL databases of the tests are reused: a test does not see rows or schema changes of an earlier test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg

from ostiaryd.ground.config import Config
from tests.support.world import Kind, Template


def run(config: Config, *statements: str) -> None:
    with psycopg.connect(config.database) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(config: Config) -> list[tuple]:
    with psycopg.connect(config.database) as connection:
        return connection.execute("select name, value from setting order by name").fetchall()


def test_a_reused_test_database_has_its_first_rows_and_a_changed_schema_is_discarded(
    template: Callable[[Kind], Template], tmp_path: Path
) -> None:
    made = template("postgres")
    with made.copy(tmp_path / "1") as first:
        before = rows(first)
        run(first, "delete from setting where name = 'public_url'", "insert into setting values ('odd', '1')")
        assert rows(first) != before
    with made.copy(tmp_path / "2") as second:
        assert (second.database, rows(second)) == (first.database, before)
        run(second, "alter table setting add column odd text")
    with made.copy(tmp_path / "3") as third:
        assert third.database != second.database
        assert rows(third) == before
        run(third, "drop table migration")
    with made.copy(tmp_path / "4") as fourth:
        assert fourth.database != third.database

"""A database file is deleted, replaced or changed under a running server: the server acknowledges no more writes."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.clock import Clock, SeededRandom
from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from ostiary.protocol.errors import Unavailable
from ostiaryd.app import build_app
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Database, LostDatabase, Tx, sql, storage_failure
from ostiaryd.ground.database.connection import LONGEST_LOG, SqliteConnection
from ostiaryd.ground.database.files import FileWatch
from ostiaryd.ground.database.writer import Writer
from ostiaryd.ground.http.health import Health
from ostiaryd.ground.world import World, open_world
from tests.support.api_fixtures import send
from tests.support.servers import live_server
from tests.support.world import Kind, Template

__all__ = ["live_server"]

PUT = sql("insert into setting (name, value) values (:name, :value)")
COUNT = sql("select count(*) from setting where name like 'test %'")
PAGE = 4096


@pytest.fixture
def config(template: Callable[[Kind], Template], tmp_path: Path) -> Iterator[Config]:
    """SQLite alone."""
    with template("sqlite").copy(tmp_path / "data") as config:
        yield config


@pytest.fixture
async def world(config: Config, clock: Clock, dice: SeededRandom) -> AsyncIterator[World]:
    async with open_world(config, now=clock, random=dice) as world:
        yield world


def put(name: str) -> Callable[[Tx], str]:
    def job(tx: Tx) -> str:
        tx.run(PUT, name=f"test {name}", value="1")
        return name

    return job


def beside(db: Path, suffix: str) -> Path:
    return db.with_name(db.name + suffix)


def delete_all(db: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        beside(db, suffix).unlink()


def replace_by_copy(db: Path) -> None:
    shutil.copy(db, beside(db, ".copy"))
    os.replace(beside(db, ".copy"), db)


def overwrite_by_copy(db: Path) -> None:
    """The same inode and length, as `cp copy database` leaves it."""
    shutil.copy(db, beside(db, ".copy"))
    shutil.copyfile(beside(db, ".copy"), db)


def link_to_copy(db: Path) -> None:
    shutil.copy(db, beside(db, ".copy"))
    db.unlink()
    db.symlink_to(beside(db, ".copy"))


def flip_a_byte(db: Path) -> None:
    with db.open("r+b") as file:
        file.seek(PAGE + 100)
        byte = file.read(1)
        file.seek(PAGE + 100)
        file.write(bytes([byte[0] ^ 1]))


def overwrite_index(db: Path, *, since: int = 0) -> None:
    index = beside(db, "-shm")
    with index.open("r+b") as file:
        file.seek(since)
        file.write(random.Random(since).randbytes(index.stat().st_size - since))


def move_folder(db: Path) -> None:
    db.parent.rename(db.parent.with_name("elsewhere"))


def move_folder_and_put_a_copy(db: Path) -> None:
    move_folder(db)
    shutil.copytree(db.parent.with_name("elsewhere"), db.parent)


FAULTS: dict[str, Callable[[Path], object]] = {
    "all files deleted": delete_all,
    "database deleted": lambda db: db.unlink(),
    "log deleted": lambda db: beside(db, "-wal").unlink(),
    "index deleted": lambda db: beside(db, "-shm").unlink(),
    "database renamed": lambda db: db.rename(beside(db, ".moved")),
    "database replaced by a copy": replace_by_copy,
    "database overwritten in place": overwrite_by_copy,
    "database replaced by a link": link_to_copy,
    "database emptied": lambda db: os.truncate(db, 0),
    "database cut by one page": lambda db: os.truncate(db, db.stat().st_size - PAGE),
    "database cut by one byte": lambda db: os.truncate(db, db.stat().st_size - 1),
    "log emptied": lambda db: os.truncate(beside(db, "-wal"), 0),
    "log cut by one byte": lambda db: os.truncate(beside(db, "-wal"), beside(db, "-wal").stat().st_size - 1),
    "one byte changed": flip_a_byte,
    "index overwritten": overwrite_index,
    "pages of the index overwritten": lambda db: overwrite_index(db, since=136),
    "folder renamed": move_folder,
    "folder replaced by a copy": move_folder_and_put_a_copy,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_is_not_acknowledged_after_a_database_file_was_lost(world: World, fault: str) -> None:
    assert await world.writer.submit(put("before")) == "before"
    FAULTS[fault](world.db.path)
    for attempt in range(3):
        with pytest.raises(LostDatabase, match="while the server runs"):
            await world.writer.submit(put(f"after {attempt}"))
    with pytest.raises(LostDatabase):
        world.db.read()
    with pytest.raises(LostDatabase):
        await world.db.scan(lambda reader: reader.one(COUNT))
    assert world.get_singleton(Health).checks["database"]() == "lost or damaged"


STRANGERS = {
    "/register": "{}",
    "/token": "grant_type=client_credentials&client_id=x",
    "/device_authorization": "client_id=x",
    "/access/v1/evaluation": "{}",
    "/v1/traces": "{}",
    "/login/with/corp": "",
    "/v1/sys/health": "",
    "/api/v1/agents": "",
}
"""Requests without authentication, in the form of each protocol: path and body."""


@pytest.mark.parametrize("fault", ["all files deleted", "index overwritten"])
async def test_the_response_to_strangers_about_a_lost_file_does_not_contain_its_path(
    world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, path = build_app(world), world.db.path
    FAULTS[fault](path)
    answers = []
    with caplog.at_level(logging.CRITICAL, logger="ostiary"):
        for asked, body in STRANGERS.items():
            kind = "application/json" if body == "{}" else "application/x-www-form-urlencoded"
            method, headers = "POST" if body else "GET", [("content-type", kind)] if body else []
            answers.append(await send(app, method, asked, headers=headers, body=body.encode()))
    assert [answer.status for answer in answers] == [503] * len(STRANGERS)
    for answer in answers:
        assert b"file of the database was lost or changed" in answer.body
        assert not [word for word in (path.name, str(path.parent), "/proc", "restart") if word.encode() in answer.body]
    assert f"{path}" in caplog.text, "the log names the file"


def test_the_text_of_a_driver_error_is_only_in_the_detail() -> None:
    error = sqlite3.OperationalError("/data/x")
    for code, name in ((sqlite3.SQLITE_CORRUPT, "damaged"), (sqlite3.SQLITE_IOERR, "cannot be read or written")):
        error.sqlite_errorcode = code
        failure = storage_failure(error)
        assert failure is not None
        assert name in failure.message
        assert "/data/x" not in failure.message + failure.hint
        assert "/data/x" in failure.detail


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_batch_is_not_acknowledged_if_a_database_file_is_lost_during_the_batch(
    world: World, fault: str
) -> None:
    def job(tx: Tx) -> str:
        tx.run(PUT, name="test during", value="1")
        FAULTS[fault](world.db.path)
        return "during"

    assert await world.writer.submit(put("before")) == "before"
    with pytest.raises((LostDatabase, sqlite3.DatabaseError)):
        await world.writer.submit(job)
    with pytest.raises(LostDatabase):
        await world.writer.submit(put("after"))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """The process can open no file until the end of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_overwritten_index_is_a_loss_even_without_a_free_descriptor(world: World) -> None:
    await world.writer.submit(put("before"))
    overwrite_index(world.db.path)
    for _ in range(2):
        with no_descriptor_left(), pytest.raises(LostDatabase) as loss:
            await world.writer.submit(put("after"))
        assert "ostiary.db-shm; copy the open files" in loss.value.detail


def test_an_index_that_cannot_be_watched_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with no_descriptor_left():
        watch = FileWatch(str(tmp_path / "index"))
    assert not watch.was_written()
    watch.close()
    assert [record.message.partition(";")[2] for record in caplog.records] == [
        " raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"
    ]


async def test_a_loss_is_final_even_if_the_files_return(world: World) -> None:
    moved = beside(world.db.path, ".moved")
    world.db.path.rename(moved)
    with pytest.raises(LostDatabase):
        await world.writer.submit(put("lost"))
    moved.rename(world.db.path)
    with pytest.raises(LostDatabase):
        await world.writer.submit(put("still lost"))


async def test_own_commits_are_not_a_loss_while_pages_move_to_the_database(world: World) -> None:
    blob = "x" * 200_000
    for block in range(12):  # 60 MB
        puts = [
            world.writer.submit(lambda tx, number=number: tx.run(PUT, name=f"test {number}", value=blob))  # type: ignore[misc]
            for number in range(25 * block, 25 * block + 25)
        ]
        await asyncio.gather(world.writer.move_log(), *puts)
    assert world.db.path.stat().st_size > 30 << 20
    assert world.db.read().one(COUNT) == (300,)
    assert beside(world.db.path, "-wal").stat().st_size < 50 << 20, "the log has begun anew"


async def test_the_next_commit_after_a_move_of_a_long_log_moves_the_remaining_pages(world: World) -> None:
    before = world.db.path.stat().st_size
    connection = world.writer._connection
    assert isinstance(connection, SqliteConnection)
    connection._is_log_long = True  # as after `move_log`, if commits went on
    await world.writer.submit(lambda tx: tx.run(PUT, name="test", value="x" * 200_000))
    assert world.db.path.stat().st_size > before
    assert not connection._is_log_long


def test_a_server_moves_pages_long_before_the_log_is_full(live_server: ServerFixture) -> None:
    database = live_server.server.folder / "ostiary.db"
    before = database.stat().st_mtime_ns
    live_server.owner()
    eventually(lambda: database.stat().st_mtime_ns > before)


async def test_a_commit_moves_all_pages_when_the_log_has_its_maximum_length(world: World) -> None:
    blob, before = "x" * 200_000, world.db.path.stat().st_size
    for number in range(LONGEST_LOG // 50):
        assert world.db.path.stat().st_size == before
        await world.writer.submit(lambda tx, number=number: tx.run(PUT, name=f"test {number}", value=blob))  # type: ignore[misc]
        if world.db.path.stat().st_size > before:
            break
    assert world.db.path.stat().st_size > LONGEST_LOG * PAGE // 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_lost_file_is_detected_by_a_move_of_pages_or_by_the_commit_after_the_move(
    world: World, fault: str
) -> None:
    await world.writer.submit(put("first"))
    await world.writer.move_log()
    await world.writer.submit(put("second"))
    FAULTS[fault](world.db.path)
    if fault in ("database overwritten in place", "one byte changed"):
        await world.writer.move_log()  # the next batch decides whether another process has committed
    elif not fault.startswith("log"):  # the log belongs to the commits
        with pytest.raises(LostDatabase):
            await world.writer.move_log()
    with pytest.raises(LostDatabase):
        await world.writer.submit(put("after"))


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_file_that_is_lost_after_pages_moved_is_detected_by_the_next_commit(world: World, fault: str) -> None:
    await world.writer.submit(put("first"))
    await world.writer.move_log()
    FAULTS[fault](world.db.path)
    with pytest.raises(LostDatabase):
        await world.writer.submit(put("after"))


async def test_commits_and_checkpoints_of_other_processes_are_not_a_loss(world: World) -> None:
    await world.writer.submit(put("ours"))
    other = sqlite3.connect(world.db.path, isolation_level=None)
    for number in range(3):
        other.execute("insert into setting values (?, 'x')", [f"test other {number}"])
        other.execute("pragma wal_checkpoint(truncate)")
        await world.writer.submit(put(f"ours {number}"))
        other.execute("pragma wal_checkpoint(passive)")
        await world.writer.submit(put(f"ours again {number}"))
    other.close()
    assert world.db.read().one(COUNT) == (10,)


async def test_pages_move_beside_commits_and_checkpoints_of_other_processes(world: World) -> None:
    await world.writer.submit(put("ours"))
    other = sqlite3.connect(world.db.path, isolation_level=None)
    for number in range(3):
        other.execute("insert into setting values (?, 'x')", [f"test other {number}"])
        other.execute("pragma wal_checkpoint(truncate)")
        await world.writer.move_log()
        await world.writer.submit(put(f"ours {number}"))
    other.close()
    assert world.db.read().one(COUNT) == (7,)


async def test_a_shared_command_beside_the_server_does_not_treat_moved_pages_as_a_loss(
    world: World, dice: SeededRandom
) -> None:
    command = Writer(
        Database(world.config.database_url, is_shared=True),
        now=world.now,
        random=dice,
        keys=world.keys,
        reserve=world.writer.reserve,
        longest_wait_s=PATIENCE_S,
    )
    await command.submit(put("first"))
    for number in range(3):
        await world.writer.submit(put(f"ours {number}"))
        await command.submit(put(f"of the command {number}"))
        await world.writer.move_log()
    await command.submit(put("last"))
    await command.close()
    assert world.db.read().one(COUNT) == (8,)


async def test_pages_that_move_beside_a_command_without_sharing_are_a_loss(world: World, dice: SeededRandom) -> None:
    command = Writer(
        Database(world.config.database_url),
        now=world.now,
        random=dice,
        keys=world.keys,
        reserve=world.writer.reserve,
        longest_wait_s=PATIENCE_S,
    )
    await command.submit(put("first"))
    await world.writer.move_log()
    with pytest.raises(LostDatabase):
        await command.submit(put("last"))
    await command.close()


async def test_a_batch_checks_the_files_with_nine_system_calls_at_any_size(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.writer.submit(put("first"))
    looked, stat = [], os.stat

    def counting(path: str) -> os.stat_result:
        looked.append(path)
        return stat(path)

    monkeypatch.setattr("ostiaryd.ground.database.files.os.stat", counting)
    await asyncio.gather(*[world.writer.submit(put(str(number))) for number in range(50)])
    assert len(looked) == 9


def test_a_connection_of_a_reader_or_writer_does_not_create_a_missing_database(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'none.db'}")
    for read_only in (True, False):
        with pytest.raises(Unavailable, match="cannot open the database"):
            db.connect(read_only=read_only)
    assert list(tmp_path.iterdir()) == []

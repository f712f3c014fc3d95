"""A used data folder without its database or its root key: the start is refused, and nothing is replaced."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import pytest

from harness.clock import Clock, SeededRandom
from ostiary.protocol.errors import Conflict, Invalid, Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Database, sql
from ostiaryd.ground.database.migrate import migrate
from ostiaryd.ground.world import open_world
from ostiaryd.ledger.flows import act

OTHER = base64.b64encode(b"o" * 32).decode()


async def use(config: Config, dice: SeededRandom) -> None:
    """Start once and leave an entry, as every start of a server does."""
    async with open_world(config, now=Clock(), random=dice) as world:
        await act(world, "test.used", lambda _: None)


async def refused(config: Config) -> str:
    before = contents(config.folder)
    with pytest.raises(Refused) as refusal:
        async with open_world(config, now=Clock(), random=SeededRandom("again")):
            raise AssertionError("it started")
    after = contents(config.folder)
    kept = {name for name in before if not name.startswith("ostiary.db")}
    assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
    assert refusal.value.hint
    return refusal.value.message


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def execute(config: Config, *statements: str) -> None:
    connection = Database(config.database_url).connect()
    connection.begin(write=True)
    for statement in statements:
        connection.execute(sql(statement), {})
    connection.commit()
    connection.close()


def drop_all(config: Config) -> None:
    """Leave an empty database."""
    if config.database:
        connection = Database(config.database_url).connect()
        connection.script("drop schema public cascade; create schema public")  # no batch, which would be numbered there
        connection.close()
    else:
        for path in config.folder.glob("ostiary.db*"):
            path.unlink()
        Database(config.database_url).connect(create=True).close()


async def test_a_used_data_folder_with_an_empty_database_is_refused(config: Config, dice: SeededRandom) -> None:
    await use(config, dice)
    drop_all(config)
    assert "but this data folder was already used" in await refused(config)
    (config.folder / "ledger.pin").unlink()
    (config.folder / "server.json").write_text("{}")
    assert "but this data folder was already used" in await refused(config)


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("empty", [False, True])
async def test_a_missing_database_of_a_used_folder_is_refused_and_not_created(
    config: Config, dice: SeededRandom, database: str, empty: bool
) -> None:
    await use(config, dice)
    for path in config.folder.glob("ostiary.db*"):
        path.unlink()
    if empty:
        (config.folder / "ostiary.db").touch()
    assert ("is empty" if empty else "is missing") in await refused(config)
    assert [path.stat().st_size for path in config.folder.glob("ostiary.db*")] == ([0] if empty else [])


async def test_a_database_of_a_used_folder_with_an_empty_schema_is_refused(config: Config, dice: SeededRandom) -> None:
    await use(config, dice)
    drop_all(config)
    migrate(Database(config.database_url), now=0)
    assert "has no ledger" in await refused(config)


@pytest.mark.parametrize("statement", ["delete from server_key", "delete from server_key where use_ = 'ledger'"])
@pytest.mark.parametrize("is_pinned", [True, False])
async def test_a_lost_ledger_key_is_not_replaced(
    config: Config, dice: SeededRandom, statement: str, is_pinned: bool
) -> None:
    await use(config, dice)
    execute(config, statement)
    if not is_pinned:
        (config.folder / "ledger.pin").unlink()
    assert "has no ledger" in (message := await refused(config)) or "lost the key of its ledger" in message
    db = Database(config.database_url)
    assert db.read().one(sql("select count(*) from server_key where use_ = 'ledger'")) == (0,)
    db.close()


async def test_the_database_of_another_server_is_refused(config: Config, dice: SeededRandom, tmp_path: Path) -> None:
    """Both servers have the same root key."""
    await use(config, dice)
    other = Config(data_dir=str(tmp_path / "other"))
    other.folder.mkdir()
    shutil.copy(config.folder / "root.key", other.folder)
    await use(other, dice)
    shutil.copy(config.folder / "ledger.pin", other.folder)
    assert "another server" in await refused(other)


async def test_a_new_data_folder_starts_with_an_empty_database(tmp_path: Path, dice: SeededRandom) -> None:
    config = Config(data_dir=str(tmp_path / "new"))
    await use(config, dice)
    await use(config, SeededRandom("second"))
    assert (config.folder / "root.key").exists()


async def test_a_second_data_folder_starts_with_the_root_key_in_the_environment(
    config: Config, dice: SeededRandom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(config, dice)
    monkeypatch.setenv("OSTIARY_ROOT_KEY", (config.folder / "root.key").read_text())
    second = Config(data_dir=str(tmp_path / "second"), database=config.database_url)
    async with open_world(second, now=Clock(), random=SeededRandom("second")) as world:
        await act(world, "test.second", lambda _: None)
        assert world.pin.head is not None


@pytest.mark.parametrize("kept", ["root.key", "admin.json"])
async def test_a_restored_folder_is_opened_for_recovery_before_the_first_start(
    config: Config, dice: SeededRandom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    await use(config, dice)
    monkeypatch.setenv("OSTIARY_ROOT_KEY", (config.folder / "root.key").read_text())
    restored = Config(data_dir=str(tmp_path / "restored"), database=config.database_url)
    restored.folder.mkdir()
    (restored.folder / kept).touch()
    async with open_world(restored, now=Clock(), random=SeededRandom("second"), create=False) as world:
        await act(world, "test.recovers", lambda _: None)
        assert world.pin.head is not None


async def test_a_restored_folder_without_its_database_is_not_opened_for_recovery(tmp_path: Path) -> None:
    (tmp_path / "root.key").touch()
    with pytest.raises(Conflict, match=r"ostiary\.db is missing"):
        async with open_world(Config(data_dir=str(tmp_path)), create=False):
            raise AssertionError("it opened")
    assert not (tmp_path / "ostiary.db").exists()


async def test_a_missing_root_key_is_refused_and_not_replaced(config: Config, dice: SeededRandom) -> None:
    await use(config, dice)
    key = config.folder / "root.key"
    good = key.read_bytes()
    key.unlink()
    assert "is missing, but the keys in the database are encrypted with it" in await refused(config)
    (config.folder / "ledger.pin").unlink()  # nor where nothing but the database says that there was one
    assert "is missing, but the keys" in await refused(config)
    assert not key.exists()
    key.write_bytes(good)
    key.chmod(0o600)
    await use(config, SeededRandom("again"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"AAAA\n", base64.b64encode(b"k" * 31), base64.b64encode(b"k" * 33), b"\xff\xfe", b"no base64!"],
)
async def test_a_malformed_root_key_is_refused_and_stays(config: Config, dice: SeededRandom, content: bytes) -> None:
    await use(config, dice)
    (config.folder / "root.key").write_bytes(content)
    with pytest.raises(Invalid, match="root key"):
        async with open_world(config, now=Clock(), random=dice):
            raise AssertionError("it started")
    assert (config.folder / "root.key").read_bytes() == content


async def test_a_folder_in_place_of_the_root_key_is_refused(config: Config, dice: SeededRandom) -> None:
    await use(config, dice)
    key = config.folder / "root.key"
    key.unlink()
    key.mkdir(mode=0o700)
    with pytest.raises(Refused, match="root key"):
        async with open_world(config, now=Clock(), random=dice):
            raise AssertionError("it started")


@pytest.mark.parametrize("is_file_there", [True, False])
async def test_another_root_key_in_the_environment_is_refused_and_the_file_stays(
    config: Config, dice: SeededRandom, monkeypatch: pytest.MonkeyPatch, is_file_there: bool
) -> None:
    await use(config, dice)
    key = config.folder / "root.key"
    good = key.read_bytes()
    if not is_file_there:
        key.unlink()
    monkeypatch.setenv("OSTIARY_ROOT_KEY", OTHER)
    with pytest.raises(Conflict, match="cannot decrypt a stored key"):
        async with open_world(config, now=Clock(), random=dice):
            raise AssertionError("it started")
    assert key.exists() is is_file_there
    monkeypatch.delenv("OSTIARY_ROOT_KEY")
    if is_file_there:
        assert key.read_bytes() == good
        await use(config, SeededRandom("again"))
    else:
        assert "is missing" in await refused(config)


async def test_an_interrupted_write_leaves_no_root_key(
    tmp_path: Path, dice: SeededRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails between the write and the rename: the next start makes a key as if nothing had been."""

    def fail(*_: object) -> None:
        raise OSError(5, "power failure")

    config = Config(data_dir=str(tmp_path / "new"))
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(Refused, match="power failure"):
        await use(config, dice)
    monkeypatch.undo()
    assert not (config.folder / "root.key").exists()
    await use(config, SeededRandom("again"))

"""A power cut at any write or sync loses no acknowledged act and leaves no partial batch."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from harness.clock import SeededRandom
from ostiary.protocol.merkle import tree_root
from ostiary.protocol.tiles import hashes_from
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring, load_root_key
from ostiaryd.ground.database import PRAGMAS, Database, Tx
from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import make_job
from ostiaryd.ledger.model import decode_entry
from tests.ledger.disk import Disk, PowerCut, ShimConnection

ROUNDS = 100
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=False)


def run_until_cut(path: Path, keys: Keyring, disk: Disk, rng: random.Random, pragmas: tuple[str, ...]) -> list[str]:
    """Commit batches of acts until the power goes; the names of those that were acknowledged."""
    acknowledged: list[str] = []
    connection = ShimConnection(str(path), disk, pragmas=pragmas)
    try:
        while True:
            names = [f"act.{len(acknowledged) + i}" for i in range(rng.randrange(1, 6))]
            connection.begin(write=True)
            tx = Tx(connection, now=1, random=SeededRandom("cut"), keys=keys)  # type: ignore[arg-type]
            for name in names:
                make_job(name, lambda act: None)(tx)
            tx.finish()
            connection.commit()
            acknowledged += names
    except PowerCut:
        return acknowledged
    finally:
        connection.close()


def check(path: Path, keys: Keyring, acknowledged: list[str], start: int) -> int:
    """Check that no acknowledged act is missing and the tree is whole; return how many others survived."""
    db = Database(f"sqlite:///{path}")
    try:
        reader = db.read()
        frontier, note = store.get_head(reader)
        assert frontier.root() == tree_root(frontier.size, hashes_from(store.get_hash_reader(reader)))
        assert note.split("\n")[1] == str(frontier.size)
        names = [decode_entry(body).action for body in store.list_entry_bodies(reader, start, frontier.size)]
        assert names[: len(acknowledged)] == acknowledged
        return len(names) - len(acknowledged)
    finally:
        db.close()


def one_cut(config: Config, folder: Path, seed: int, pragmas: tuple[str, ...]) -> tuple[int, int]:
    rng = random.Random(seed)
    live, after = folder / f"live{seed}", folder / f"after{seed}"
    live.mkdir()
    after.mkdir()
    shutil.copy(config.folder / "ostiary.db", live / "ostiary.db")
    keys = Keyring(load_root_key(config.folder, random=SeededRandom("root"), create=False))
    db = Database(f"sqlite:///{live / 'ostiary.db'}")
    load_keys(keys, db.read())
    start = store.get_head(db.read())[0].size
    db.close()
    disk = Disk("power", cut_at=rng.randrange(20, 400))
    acknowledged = run_until_cut(live / "ostiary.db", keys, disk, rng, pragmas)
    for path, content in disk.after_power_cut(rng).items():
        (after / Path(path).name).write_bytes(content)
    through = check(after / "ostiary.db", keys, acknowledged, start)
    shutil.rmtree(live)
    shutil.rmtree(after)
    return len(acknowledged), through


def test_acknowledged_acts_survive_a_power_cut_at_any_write(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], database: str
) -> None:
    counts = [one_cut(config, tmp_path, seed, PRAGMAS) for seed in range(ROUNDS)]
    kept, through = sum(a for a, _ in counts), sum(t for _, t in counts)
    with capsys.disabled():
        print(f"\npower cuts {ROUNDS}: acknowledged acts {kept}, lost 0, unacknowledged that came through {through}")
    assert kept > ROUNDS


def test_a_disk_without_sync_loses_acknowledged_acts_in_a_power_cut(
    config: Config, tmp_path: Path, database: str
) -> None:
    """The control: without the sync before the acknowledgement, the same cuts lose acts."""
    careless = tuple(pragma.replace("synchronous=full", "synchronous=off") for pragma in PRAGMAS)
    lost = 0
    for seed in range(20):
        try:
            one_cut(config, tmp_path, seed, careless)
        except Exception:  # noqa: BLE001 because any failure of the check counts as a loss
            lost += 1
    assert lost > 0

"""`kill -9` at any moment under load loses nothing that was acknowledged, on either database."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.merkle import tree_root
from ostiary.protocol.tiles import hashes_from
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import open_world
from ostiaryd.ledger import store
from ostiaryd.ledger.model import decode_entry

KILLS = 12


def load_and_kill(config: Config, seconds: float) -> set[int]:
    """Acts under load; the numbers of those acknowledged before the kill."""
    command = [sys.executable, "-m", "tests.ledger.loader", config.data_dir, config.database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # it is under way
        time.sleep(seconds)
        process.kill()
        rest = process.stdout.read()
    complete = (first + rest).rpartition(b"\n")[0]  # a line cut by the kill does not count
    return {int(line) for line in complete.split()}


@pytest.mark.slow
async def test_acknowledged_acts_survive_kill_9(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    rng, acknowledged, size = random.Random(9), 0, 0
    for _ in range(KILLS):
        numbers = load_and_kill(config, rng.uniform(0, 0.3))
        async with open_world(config) as world:
            reader = world.db.read()
            frontier, note = store.get_head(reader)
            key = store.get_log_key(reader, world.keys)
            checkpoint = open_checkpoint(note.encode(), [key], origin=key.name)
            assert (checkpoint.size, checkpoint.root) == (frontier.size, frontier.root())
            assert frontier.root() == tree_root(frontier.size, hashes_from(store.get_hash_reader(reader)))
            written = {decode_entry(body).action for body in store.list_entry_bodies(reader, size, frontier.size)}
            assert {f"load.{number}" for number in numbers} <= written
            acknowledged, size = acknowledged + len(numbers), frontier.size
    with capsys.disabled():
        print(
            f"\nkills {KILLS} ({'sqlite' if config.database_url.startswith('sqlite') else 'postgresql'}): "
            f"acknowledged acts {acknowledged}, lost 0"
        )
    assert acknowledged > KILLS * 10

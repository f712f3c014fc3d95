"""Stops that a guard keeps: across restarts, torn files and full disks, and never removed by another history."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from harness.clock import START, Clock, SeededRandom
from ostiary.decision.feed import (
    MAX_STOPS_BYTES,
    AgentFact,
    Fact,
    KeyFact,
    KeysFact,
    Message,
    RiskFact,
    StopFact,
    TaskFact,
    TokenFact,
    render_message,
)
from ostiary.guard.spool import SpoolFailed
from ostiary.guard.stops import KEPT_US, KeptStops
from ostiary.protocol import jose
from ostiary.protocol.checkpoint import Checkpoint, sign_checkpoint
from ostiary.protocol.jose import unb64u
from ostiary.protocol.note import NoteKey

ONE, TWO = "11" * 16, "22" * 16
KEY = jose.generate("EdDSA")
HOUR = 3_600_000_000


def note(size: int, history: str = ONE) -> str:
    """A signed checkpoint of that size."""
    key = NoteKey("example.org/ostiary", unb64u(KEY.public.jwk["x"]))
    checkpoint = Checkpoint(key.name, size, bytes([size % 256]) * 32, (f"history {history}",))
    return sign_checkpoint(checkpoint, key=key, sign=KEY.sign).decode()


def message(seq: int, *facts: Fact, history: str = ONE, snapshot: bool = False) -> Message:
    return Message(
        iss="https://x",
        prev=seq if snapshot else seq - 1,
        seq=seq,
        at=START + seq,
        facts=list(facts),
        head=note(seq, history),
        snapshot=snapshot,
    )


def keep(kept: KeptStops, *messages: Message) -> None:
    for one in messages:
        kept.store_message(render_message(KEY, one), one)


def open_stops(folder: Path, clock: Clock, seed: str) -> KeptStops:
    return KeptStops(folder, now=clock, random=SeededRandom(seed))


def agent(name: str, state: str = "suspended", epoch: int = 1, until: int = START + HOUR) -> AgentFact:
    return AgentFact(name, state, epoch, until)


STOPS: list[Fact] = [
    agent("ag_1"),
    TaskFact("tk_1", START + HOUR),
    TokenFact("tok_1", START + HOUR),
    KeyFact("jkt_1", START + HOUR),
    StopFact("model", "m-1"),
]


def test_a_restarted_guard_loads_the_stored_stops_and_the_head(tmp_path: Path, clock: Clock) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, *STOPS), message(2, RiskFact("ag_1", 5, START)), message(3))
    # It is killed: nothing is closed. The lock of a dead process is free, here by closing the descriptors alone.
    os.close(first._log)
    again = open_stops(tmp_path, clock, "two")
    assert (again.history, again.size) == (ONE, 3)
    assert again.facts(other_than=TWO) == STOPS
    assert again.facts(other_than=ONE) == []
    assert len([*tmp_path.iterdir()]) == 2  # the files of the first are taken over
    again.close()


def test_a_second_guard_does_not_take_over_the_files_of_a_running_guard(tmp_path: Path, clock: Clock) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, *STOPS))
    second = open_stops(tmp_path, clock, "two")
    assert second.facts(other_than=TWO) == STOPS
    keep(first, message(2, agent("ag_2")))
    first.close()
    second.close()
    third = open_stops(tmp_path, clock, "three")
    assert agent("ag_2") in third.facts(other_than=TWO)
    third.close()


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_line_is_passed_over(tmp_path: Path, clock: Clock, cut: int) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, agent("ag_1")), message(2, agent("ag_2")))
    first.close()
    [path] = tmp_path.glob("*.stops")
    path.write_bytes(path.read_bytes()[:-cut])
    again = open_stops(tmp_path, clock, "two")
    keep(again, message(3, agent("ag_3")))
    names = [fact.agent for fact in again.facts(other_than=TWO) if isinstance(fact, AgentFact)]
    # Without its signature the message still stops here; the server will not take it.
    assert names == (["ag_1", "ag_3"] if cut == 400 else ["ag_1", "ag_2", "ag_3"])
    again.close()


@pytest.mark.parametrize(("late", "count"), [(0, 5), (1, 1)])
def test_a_stop_is_in_force_until_its_expiry(tmp_path: Path, clock: Clock, late: int, count: int) -> None:
    kept = open_stops(tmp_path, clock, "one")
    keep(kept, message(1, *STOPS))
    clock.advance(us=HOUR + late)
    assert len(kept.facts(other_than=TWO)) == count  # the kill switch has no expiry
    kept.close()


@pytest.mark.parametrize(("late", "is_kept"), [(0, True), (1, False)])
def test_an_expired_agent_stop_is_kept_for_a_limited_time_for_delivery(
    tmp_path: Path, clock: Clock, late: int, is_kept: bool
) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, agent("ag_1")))
    first.close()
    clock.advance(us=HOUR + KEPT_US + late)
    again = open_stops(tmp_path, clock, "two")
    assert bool([*again.batches()]) is is_kept
    again.close()


def test_superseded_stops_are_dropped_and_lifted_stops_stay_lifted(tmp_path: Path, clock: Clock) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(
        first,
        message(1, agent("ag_1"), StopFact("model", "m-1")),
        message(2, agent("ag_1", "active", 2)),
        message(3, StopFact("model", "m-1", is_lifted=True)),
    )
    first.close()
    again = open_stops(tmp_path, clock, "two")
    assert again.facts(other_than=TWO) == [agent("ag_1", "active", 2), StopFact("model", "m-1", is_lifted=True)]
    again.close()


def test_the_stops_of_another_history_are_deleted_after_delivery(tmp_path: Path, clock: Clock) -> None:
    kept = open_stops(tmp_path, clock, "one")
    keep(kept, message(1, agent("ag_1")), message(2, agent("ag_2"), history=TWO, snapshot=True))
    assert kept.facts(other_than=TWO) == [agent("ag_1")]
    assert kept.has_others(TWO)
    kept.settle(TWO)
    assert not kept.has_others(TWO)
    assert kept.facts(other_than=TWO) == []
    kept.close()
    again = open_stops(tmp_path, clock, "two")
    assert (again.history, again.facts(other_than=ONE)) == (TWO, [agent("ag_2")])
    again.close()


def test_batches_of_stops_stay_within_the_limits_of_the_server(tmp_path: Path, clock: Clock) -> None:
    kept = open_stops(tmp_path, clock, "one")
    for number in range(1, 1502):
        keep(kept, message(number, agent(f"ag_{number}")))
    batches = [*kept.batches()]
    assert sum(map(len, batches)) == 1501
    assert all(sum(len(line) + 3 for line in batch) <= MAX_STOPS_BYTES for batch in batches)
    assert max(map(len, batches)) <= 1000
    kept.close()


def test_a_history_with_a_message_too_long_for_delivery_is_not_deleted(tmp_path: Path, clock: Clock) -> None:
    kept = open_stops(tmp_path, clock, "one")
    many = [StopFact("resource", f"https://{number}.example.org/{'x' * 200}") for number in range(3000)]
    lifted, other = StopFact("resource", many[0].value, is_lifted=True), StopFact("model", "m-1")
    keep(kept, message(1, other, history="33" * 16), message(1, *many, snapshot=True), message(2, lifted))
    keep(kept, message(1, agent("ag_0"), history=TWO))
    assert sum(map(len, kept.batches())) == 3
    assert kept.settle(TWO)
    assert kept.facts(other_than=TWO) == [lifted, *many[1:]]
    assert not kept.settle(TWO), "nothing else can be deleted"
    kept.close()
    again = open_stops(tmp_path, clock, "two")
    assert again.facts(other_than=TWO) == [lifted, *many[1:]]
    again.close()


def test_a_key_announcement_is_stored_and_comes_first_in_each_batch(tmp_path: Path, clock: Clock) -> None:
    kept = open_stops(tmp_path, clock, "one")
    keys = KeysFact([], [dict(KEY.public.jwk)])
    keep(kept, message(1, keys, snapshot=True), message(2, agent("ag_0")), message(3, keys))
    for number in range(4, 1504):
        keep(kept, message(number, agent(f"ag_{number}")))
    kept.close()
    again = open_stops(tmp_path, clock, "two")
    batches = [*again.batches()]
    assert len(batches) == 2
    first = render_message(KEY, message(3, keys)).decode().strip()
    assert [batch[0] for batch in batches] == [first, first]
    assert sum(map(len, batches)) == 1501 + 2
    assert max(map(len, batches)) <= 1000
    assert keys not in again.facts(other_than=TWO)
    again.close()


@pytest.mark.parametrize(("late", "count"), [(0, 1), (1, 0)])
def test_a_key_announcement_is_kept_for_the_retention_time(tmp_path: Path, clock: Clock, late: int, count: int) -> None:
    kept = open_stops(tmp_path, clock, "one")
    keep(kept, message(1, KeysFact([], [dict(KEY.public.jwk)])))
    kept.close()
    clock.advance(us=1 + KEPT_US + late)
    again = open_stops(tmp_path, clock, "two")
    assert sum(map(len, again.batches())) == count
    again.close()


def test_stops_received_while_the_disk_is_full_are_stored_after_the_disk_recovers(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = open_stops(tmp_path, clock, "one")
    keep(kept, message(1, agent("ag_1")))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "pwrite", full)
        keep(kept, message(2, agent("ag_2")))
    assert agent("ag_2") in kept.facts(other_than=TWO)
    keep(kept, message(3, agent("ag_3")))
    kept.close()
    again = open_stops(tmp_path, clock, "two")
    assert [fact.agent for fact in again.facts(other_than=TWO) if isinstance(fact, AgentFact)] == [
        "ag_1",
        "ag_2",
        "ag_3",
    ]
    again.close()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda head: b"",
    "zeros": lambda head: b"\0" * len(head),
    "cut": lambda head: head[:100],
    "another size": lambda head: head.replace(b"\n3\n", b"\n7\n", 1),
    "another signature": lambda head: head.replace(b"ostiary ", b"ostiary A", 1)[: len(head)],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_head_is_restored_from_the_stored_messages(tmp_path: Path, clock: Clock, damage: str) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, agent("ag_1")), message(3, agent("ag_2")))
    first.close()
    [path] = tmp_path.glob("*.head")
    whole = path.read_bytes()
    damaged = DAMAGE[damage](whole)
    assert damaged != whole
    path.write_bytes(damaged)
    again = open_stops(tmp_path, clock, "two")
    assert (again.head, again.history, again.size) == (note(3), ONE, 3)
    again.close()


@pytest.mark.parametrize("seed", range(40))
def test_damage_at_any_byte_loses_no_intact_line_and_prevents_no_start(tmp_path: Path, clock: Clock, seed: int) -> None:
    """The files of the stops and of the head at the same time; what is kept afterwards follows on a line of its own."""
    dice = Random(seed)
    first = open_stops(tmp_path, clock, "one")
    keep(first, *[message(number, fact) for number, fact in enumerate(STOPS, 1)])
    first.close()
    [path], [head] = tmp_path.glob("*.stops"), tmp_path.glob("*.head")
    lines, damaged = path.read_bytes().splitlines(), bytearray(path.read_bytes())
    place = dice.randrange(len(damaged))
    if dice.random() < 0.5:
        del damaged[place:]
    else:
        damaged[place] ^= 1 << dice.randrange(8)
    path.write_bytes(damaged)
    os.truncate(head, dice.randrange(head.stat().st_size))
    whole = [line.decode() for line in lines if line in bytes(damaged).splitlines()]

    again = open_stops(tmp_path, clock, "two")
    keep(again, message(len(STOPS) + 1, agent("ag_late")))
    again.close()
    last = open_stops(tmp_path, clock, "three")
    delivered = [line for batch in last.batches() for line in batch]
    last.close()
    assert set(whole) <= set(delivered)
    assert delivered[-1] == render_message(KEY, message(len(STOPS) + 1, agent("ag_late"))).decode().removesuffix("\n")
    assert len(delivered) <= len(STOPS) + 1


@pytest.mark.parametrize("part", [0, 2])
def test_a_line_with_a_flipped_bit_is_skipped_in_the_delivery(tmp_path: Path, clock: Clock, part: int) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, agent("ag_1")), message(2, agent("ag_2")))
    first.close()
    [path] = tmp_path.glob("*.stops")
    damaged, whole = path.read_bytes().splitlines()
    parts = damaged.split(b".")
    parts[part] = bytes([parts[part][0] | 0x80]) + parts[part][1:]
    path.write_bytes(b".".join(parts) + b"\n" + whole + b"\n")
    again = open_stops(tmp_path, clock, "two")
    assert [line for batch in again.batches() for line in batch] == [whole.decode()]
    again.close()


def test_a_start_that_fails_on_a_full_disk_leaves_no_files(tmp_path: Path, clock: Clock) -> None:
    first = open_stops(tmp_path, clock, "one")
    keep(first, message(1, *STOPS))
    first.close()
    before = {path.name for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(SpoolFailed):
            open_stops(tmp_path, clock, "two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == before
    again = open_stops(tmp_path, clock, "three")
    assert again.facts(other_than=TWO) == STOPS
    again.close()

"""The guard's time: no clock that is set wrong makes an old message fresh, or a guard forget."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.clock import START, Clock, MachineClock
from harness.feeder import RESOURCE_ID, SECOND, TASK, Feeder
from ostiary.decision.feed import TaskFact
from ostiary.guard import FeedStale
from ostiary.guard.clock import KEEP_EVERY_US, FeedClock
from ostiary.guard.feed import Feed

HOUR = 3600 * SECOND


class Station:
    """A guard on a machine of its own, and the server that it hears."""

    def __init__(self, tmp_path: Path, *, now: int = START) -> None:
        self.machine, self.server, self.file = MachineClock(now), Clock(now), tmp_path / "clock"
        self.start()

    def start(self) -> None:
        """Start the guard, again."""
        feed = Feed(
            resource_id=RESOURCE_ID,
            now=self.machine.wall,
            tick=lambda: self.machine.uptime,
            kept=self.file,
            boot=self.machine.boot_id,
            max_age=5 * SECOND,
            max_skew=2 * SECOND,
        )
        self.feeder = Feeder(self.server, feed=feed)

    def advance(self, seconds: float) -> None:
        self.machine.advance(seconds)
        self.server.advance(seconds)

    def beat(self, seconds: int) -> None:
        """Let the server say each second that it is alive."""
        for _ in range(seconds):
            self.advance(1)
            self.feeder.say()

    @property
    def is_open(self) -> bool:
        try:
            self.feeder.feed.current()
        except FeedStale:
            return False
        return True


@pytest.fixture
def station(tmp_path: Path) -> Station:
    station = Station(tmp_path)
    station.feeder.snapshot()
    return station


@pytest.mark.parametrize("step", [3600, -3600, 86_400 * 365])
def test_a_guard_denies_while_its_clock_is_wrong_and_keeps_its_facts(station: Station, step: int) -> None:
    station.feeder.say(TaskFact(TASK, START + 300 * SECOND))
    assert station.is_open
    station.machine.step(step)
    assert not station.is_open  # at once, before anything is heard
    station.beat(60)
    assert not station.is_open
    station.machine.step(-step)
    station.beat(1)
    assert station.is_open
    assert TASK in station.feeder.feed.current().facts.ended_tasks


@pytest.mark.parametrize("step", [3600, -3600])
def test_an_equal_step_of_both_wall_clocks_and_back_loses_no_facts(station: Station, step: int) -> None:
    """The server's time does not follow its wall clock, so the guard's wall clock alone is off."""
    station.feeder.say(TaskFact(TASK, START + 300 * SECOND))
    station.machine.step(step)
    station.beat(120)
    station.machine.step(-step)
    station.beat(1)
    assert TASK in station.feeder.feed.current().facts.ended_tasks


def test_delayed_messages_are_stale_even_if_the_wall_clock_is_set_back_with_them(station: Station) -> None:
    """An attacker controls the packets and the wall clock of the machine."""
    for second in range(1, 61):
        station.machine.advance(2)  # machine time runs twice as fast as message time
        station.machine.step(-1)
        station.server.advance(1)
        station.feeder.say()
        assert station.is_open is (second <= 2), second


def test_the_age_of_a_message_is_measured_by_the_boot_clock(station: Station) -> None:
    station.machine.advance(1.5)
    station.machine.step(-1.5)
    station.feeder.say()
    assert station.feeder.feed.age == 1.5 * SECOND


def test_a_guard_is_stale_after_its_machine_slept(station: Station) -> None:
    station.machine.advance(3600)
    station.server.advance(3600)
    assert not station.is_open
    station.feeder.say()
    assert station.is_open


def test_the_time_of_a_guard_does_not_decrease_over_a_restart(station: Station) -> None:
    station.beat(30)
    station.machine.step(-3600)
    station.server.now -= HOUR
    station.start()
    station.machine.advance(3)
    station.feeder.snapshot()  # too late after its request to prove the time
    assert not station.is_open
    assert station.feeder.feed.clock() >= START + 30 * SECOND
    assert station.feeder.feed.is_late


def test_a_prompt_first_message_proves_the_server_time_after_a_step_back(station: Station) -> None:
    """As after an operator has confirmed at the server that its clock went back. Nothing becomes valid again."""
    station.beat(30)
    station.machine.step(-3600)
    station.server.now -= HOUR
    station.feeder.begin()
    station.machine.advance(2)
    station.server.advance(2)
    station.feeder.snapshot()
    assert station.is_open
    assert station.feeder.feed.clock() == START + 32 * SECOND
    station.beat(10)
    assert station.feeder.feed.clock() == START + 32 * SECOND


def test_guard_time_that_passed_between_two_readings_is_not_taken_back() -> None:
    machine = MachineClock()
    clock = FeedClock(now=machine.wall, tick=lambda: machine.uptime)
    clock.set_from_message(START, is_proof=True)
    machine.advance(60)  # nothing reads the guard's time meanwhile
    clock.set_from_message(START - HOUR, is_proof=True)
    assert clock() == START + 60 * SECOND


def test_the_stored_time_advances_within_its_boot_and_stands_still_after_another_boot(tmp_path: Path) -> None:
    machine, file = MachineClock(), tmp_path / "clock"
    first = FeedClock(now=machine.wall, tick=lambda: machine.uptime, file=file, boot="one")
    first.set_from_message(START, is_proof=True)
    machine.advance(60)
    for boot, late in (("one", 60 * SECOND), ("two", 0), ("", 0)):
        again = FeedClock(now=machine.wall, tick=lambda: machine.uptime, file=file, boot=boot)
        assert again.late(START) == late


def test_the_time_is_stored_at_intervals_and_a_damaged_file_is_ignored(tmp_path: Path) -> None:
    machine, file = MachineClock(), tmp_path / "clock"
    clock = FeedClock(now=machine.wall, tick=lambda: machine.uptime, file=file, boot="one")
    clock.set_from_message(START, is_proof=True)
    first = file.read_bytes()
    machine.advance(us=KEEP_EVERY_US - 1)
    clock.set_from_message(machine.wall(), is_proof=False)
    assert file.read_bytes() == first
    machine.advance(us=1)
    clock.set_from_message(machine.wall(), is_proof=False)
    assert file.read_bytes() != first
    file.write_bytes(b"\x00\xff")
    assert FeedClock(now=machine.wall, tick=lambda: machine.uptime, file=file, boot="one").late(START) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["clock"]

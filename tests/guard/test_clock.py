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
def test_a_guard_denies_while_its_clock_is_wrong_and_keeps_what_it_knows(station: Station, step: int) -> None:
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
def test_both_clocks_together_change_nothing(station: Station, step: int) -> None:
    """The server's time does not follow its wall clock, so the guard's wall clock alone is off."""
    station.feeder.say(TaskFact(TASK, START + 300 * SECOND))
    station.machine.step(step)
    station.beat(120)
    station.machine.step(-step)
    station.beat(1)
    assert TASK in station.feeder.feed.current().facts.ended_tasks


def test_messages_that_are_held_back_are_old_though_the_wall_clock_goes_back_with_them(station: Station) -> None:
    """Somebody who holds the packets and the time of the machine in hand."""
    for second in range(1, 61):
        station.machine.advance(2)  # the machine lives twice as fast as what it hears
        station.machine.step(-1)
        station.server.advance(1)
        station.feeder.say()
        assert station.is_open is (second <= 2), second


def test_a_message_is_as_old_as_the_boot_clock_says(station: Station) -> None:
    station.machine.advance(1.5)
    station.machine.step(-1.5)
    station.feeder.say()
    assert station.feeder.feed.age == 1.5 * SECOND


def test_a_machine_that_slept_knows_that_it_has_heard_nothing(station: Station) -> None:
    station.machine.advance(3600)
    station.server.advance(3600)
    assert not station.is_open
    station.feeder.say()
    assert station.is_open


def test_the_time_of_a_guard_survives_a_restart(station: Station) -> None:
    station.beat(30)
    station.machine.step(-3600)
    station.server.now -= HOUR
    station.start()
    station.machine.advance(3)
    station.feeder.snapshot()  # it comes too late after it was asked for to prove anything
    assert not station.is_open
    assert station.feeder.feed.clock() >= START + 30 * SECOND
    assert station.feeder.feed.is_late


def test_an_opening_that_answers_at_once_proves_what_time_it_is(station: Station) -> None:
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


def test_time_that_passed_unread_is_not_taken_back() -> None:
    machine = MachineClock()
    clock = FeedClock(now=machine.wall, tick=lambda: machine.uptime)
    clock.set_from_message(START, is_proof=True)
    machine.advance(60)  # nothing reads the guard's time meanwhile
    clock.set_from_message(START - HOUR, is_proof=True)
    assert clock() == START + 60 * SECOND


def test_the_time_that_is_kept_counts_on_within_a_boot_and_stands_in_another(tmp_path: Path) -> None:
    machine, file = MachineClock(), tmp_path / "clock"
    first = FeedClock(now=machine.wall, tick=lambda: machine.uptime, file=file, boot="one")
    first.set_from_message(START, is_proof=True)
    machine.advance(60)
    for boot, late in (("one", 60 * SECOND), ("two", 0), ("", 0)):
        again = FeedClock(now=machine.wall, tick=lambda: machine.uptime, file=file, boot=boot)
        assert again.late(START) == late


def test_the_time_is_kept_seldom_and_a_damaged_file_is_none(tmp_path: Path) -> None:
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

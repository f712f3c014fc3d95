"""The time of the server: it never decreases, and it follows the wall clock only as far as the wall clock is credible.

Server time runs on CLOCK_BOOTTIME, which cannot be set and counts the time that a suspended machine slept. The wall
clock corrects it, within bounds:

    forward, up to 5 minutes at once    followed; a budget of 5 minutes that refills within a day bounds many small
                                        steps. The new course is on the disk before anything is decided by it
    forward, beyond that                a jump: server time goes on as if nothing had happened, so nothing expires and
                                        nothing is pruned, and nothing is granted until the wall clock comes back or an
                                        operator confirms it
    backward, by any amount             server time goes on at 99 per cent of its speed until the wall clock is level
                                        again. If an operator confirms the wall clock, server time waits for it instead

A restart goes on with the course on the disk, as long as the boot is the same. After a reboot it is unknown how long
the machine was off: the wall clock is followed without bound only if the kernel says that it is synchronised. Servers
that share a database also share the largest time that any of them has put on the disk.

Slewing (adjtimex) moves both clocks alike, so that it is no difference here.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ostiary.protocol.errors import Conflict, Unavailable

SECOND = 1_000_000
DAY = 86_400 * SECOND
SLACK = SECOND
"""Differences up to this are never a jump, even if the budget is used up: a leap second, a late reading."""
LIMIT = 300 * SECOND
BUDGET = LIMIT - SLACK
"""Budget for following the wall clock forward; it refills within a day."""
NOTICED = 10_000
"""Differences below this (10 ms) are not corrected."""
STEP = 2 * SECOND
"""Steps of the wall clock from this size on are recorded."""
FULL, SLOWED, STOPPED = 100, 99, 0
"""Speeds of server time, in per cent of boot time."""
MARGIN = 60 * SECOND
"""Additional time that a used proof stays on the disk, since another server's time may be less than ours."""
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
TIME_ERROR = 5
"""The result of adjtimex while the kernel's clock is not synchronised."""


class ClockJumped(Unavailable):
    """The wall clock is too far ahead of server time, so nothing is granted (`ostiary clock accept`)."""

    code = "clock_unconfirmed"

    def __init__(
        self,
        message: str = "the server's wall clock jumped forward; nothing is granted until the time is confirmed or back",
        *,
        hint: str = "set the clock right, or confirm the new time: ostiary clock show, ostiary clock accept",
    ) -> None:
        super().__init__(message, hint=hint)


def wall_clock() -> int:
    """Return microseconds since the epoch."""
    return time.time_ns() // 1000


def boot_clock() -> int:
    """Return microseconds since the machine booted, with sleep (CLOCK_BOOTTIME; CLOCK_MONOTONIC if there is none)."""
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1000


def boot_id(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the id of this boot of the machine; empty if the system does not provide it."""
    try:
        return source.read_text("ascii").strip()
    except OSError:
        return ""


def is_synchronised() -> bool:
    """Return whether the kernel says that its wall clock is synchronised (adjtimex(2)); False if unknown."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))  # modes 0: read only
    except (OSError, AttributeError):
        return False
    return 0 <= state < TIME_ERROR


class Boot(NamedTuple):
    """The clock of this boot, which cannot be set: microseconds, and the id of the boot."""

    now: Callable[[], int] = boot_clock
    id: str = ""
    is_synchronised: Callable[[], bool] = is_synchronised


class Course(NamedTuple):
    """The course of server time: `time` at boot time `boot`, both in microseconds, from there at `speed` per cent.

    `used`: the part of the budget for forward steps that was used at `boot`. A stopped course continues at boot time
    `until`, wherever the wall clock is then.
    """

    boot: int
    time: int
    speed: int = FULL
    used: int = 0
    until: int = 0

    def at(self, boot: int) -> int:
        """Return server time at boot time `boot`."""
        if self.speed == STOPPED:
            return self.time + max(0, boot - self.until)
        return self.time + (boot - self.boot) * self.speed // 100

    def rebased(self, boot: int) -> Course:
        """Return the same course, described from boot time `boot` on."""
        return Course(boot, self.at(boot), self.speed, BUDGET - self.left(boot), max(boot, self.until))

    def left(self, boot: int) -> int:
        """Return the size of the largest forward step at boot time `boot`."""
        return BUDGET - max(0, self.used - (boot - self.boot) * BUDGET // DAY)

    def is_jump(self, *, wall: int, boot: int) -> bool:
        """Return whether the wall clock is further ahead than is credible."""
        return wall - self.at(boot) > self.left(boot) + SLACK

    def follow(self, *, wall: int, boot: int) -> Course:
        """Return the course from now on; the same course if nothing is to be corrected."""
        now, left = self.at(boot), self.left(boot)
        ahead = wall - now
        if ahead > left + SLACK:  # not credible: as before, but not slowed down
            return self if self.speed == FULL else self.rebased(boot)._replace(speed=FULL)
        if (forward := min(ahead, left)) >= NOTICED:
            return Course(boot, now + forward, FULL, BUDGET - left + forward)
        if ahead <= -NOTICED:
            if self.speed == SLOWED or (self.speed == STOPPED and boot < self.until):
                return self
            return self.rebased(boot)._replace(speed=SLOWED)
        return self if self.speed == FULL else self.rebased(boot)._replace(speed=FULL)


class Clock:
    """Server time: `clock()` is microseconds since the epoch and never decreases. Thread-safe."""

    def __init__(self, course: Course, *, wall: Callable[[], int], boot: Boot) -> None:
        self.course = course
        self.boot = boot
        self._wall = wall
        self._last = 0
        self._stepped: tuple[int, int] | None = None
        """the last forward step of server time: boot time, and the time before"""

    def __call__(self) -> int:
        now = self.course.at(self.boot.now())
        if now < self._last:
            return self._last
        self._last = now
        return now

    def read(self) -> tuple[int, int]:
        """Return (wall time, boot time) of one moment."""
        best = wall = boot = -1
        for _ in range(4):
            before = self.boot.now()
            wall_now = self._wall()
            took = (after := self.boot.now()) - before
            if best < 0 or took < best:
                best, wall, boot = took, wall_now, (before + after) // 2
            if took < NOTICED // 10:
                break
        return wall, boot

    @property
    def ahead(self) -> int:
        """Return how far the wall clock is ahead of server time; negative if it is behind."""
        wall, boot = self.read()
        return wall - max(self.course.at(boot), self._last)

    @property
    def is_confirmed(self) -> bool:
        """Return whether the wall clock is no further ahead than is credible."""
        boot = self.boot.now()
        return not self.course.is_jump(wall=self._wall(), boot=boot)

    def check_confirmed(self) -> None:
        """Check that the clock has not jumped, or was confirmed since. Raises ClockJumped."""
        if not self.is_confirmed:
            raise ClockJumped

    def next_course(self, *, highest: int) -> Course:
        """Return the next course. `highest` is the largest time on the disk, from any server.

        Save it before `adopt`.
        """
        wall, boot = self.read()
        course = self.course.follow(wall=wall, boot=boot)
        return course if highest <= course.at(boot) else course.rebased(boot)._replace(time=highest)

    def confirm(self, *, wall: int) -> Course:
        """Return the course after an operator confirmed the time `wall`, which must be within a minute of the wall
        clock.

        Raises Conflict. Save it before `adopt`.
        """
        wall_now, boot = self.read()
        if abs(wall_now - wall) > MARGIN:
            raise Conflict(
                "the wall clock is not what was confirmed: the two differ by more than a minute",
                hint="compare again: ostiary clock show; then ostiary clock accept",
            )
        if wall_now >= self.course.at(boot):
            return Course(boot, wall_now)
        now = self.course.at(boot)
        return Course(boot, now, STOPPED, BUDGET - self.course.left(boot), until=boot + now - wall_now)

    def adopt(self, course: Course) -> None:
        """Continue with a course that is on the disk."""
        before = self()
        boot = self.boot.now()
        self.course = course
        if course.at(boot) - before > SLACK:
            self._stepped = boot, before

    @property
    def horizon(self) -> int:
        """Return the time before which ended objects may be deleted: no server of the database can have an
        earlier time.
        """
        if self._stepped is not None:
            boot, before = self._stepped
            if self.boot.now() - boot < MARGIN:
                return before - MARGIN
        return self() - MARGIN


def describe(difference: int) -> str:
    """Return a difference of clocks in words: `1 h 5 min`, `12 s`."""
    seconds = abs(difference) // SECOND
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if value]
    return " ".join(parts[:2]) or "less than 1 s"

"""The time of the server: it never decreases, and it follows the wall clock only as far as the wall clock is credible.

Server time runs on CLOCK_BOOTTIME, which cannot be set and counts the time that a suspended machine slept. The wall
clock corrects it, within bounds:

    forward, up to 5 minutes at once    followed; a budget of 5 minutes that refills within a day bounds many small
                                        steps. The new course is on the disk before anything is decided by it
    forward, beyond that                a jump: server time goes on as if nothing had happened, so nothing expires and
                                        nothing is pruned, and nothing is granted until the wall clock comes back or an
                                        operator confirms it
    backward, by any amount             server time goes on at 99 per cent of its speed until the wall clock is level
                                        again, or at half of its speed if an operator confirms the wall clock. It never
                                        stands still, because retries must become due

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
"""Maximum difference that is always followed, even if the budget is used up: a leap second, or a late reading."""
LIMIT = 300 * SECOND
BUDGET = LIMIT - SLACK
"""Maximum total of forward corrections; it refills within a day."""
NOTICED = 10_000
"""Differences below this value (10 ms) are not corrected."""
STEP = 2 * SECOND
"""Smallest correction of server time that is recorded, in microseconds."""
FULL, SLOWED, HALVED = 100, 99, 50
"""The three speeds of server time, in per cent of boot time."""
MARGIN = 60 * SECOND
"""Additional time for which a used proof is stored, in microseconds, because the time of another server
may be behind.
"""
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
TIME_ERROR = 5
"""Return value of adjtimex(2) while the kernel's clock is not synchronised."""


class ClockJumped(Unavailable):
    """The wall clock is so far ahead of server time that nothing is granted (`ostiary clock accept`)."""

    code = "clock_unconfirmed"

    def __init__(
        self,
        message: str = "the server's wall clock jumped forward; the server grants nothing until an operator "
        "confirms the wall clock or the clock is set back",
        *,
        hint: str = "set the clock right, or confirm the new time: ostiary clock show, ostiary clock accept",
    ) -> None:
        super().__init__(message, hint=hint)


def wall_clock() -> int:
    """Return the present time of the wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


def boot_clock() -> int:
    """Return the time since the machine booted, including sleep, in microseconds (CLOCK_BOOTTIME, or CLOCK_MONOTONIC
    where it is missing).
    """
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1000


def boot_id(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the id of this boot of the machine; empty if the system does not provide it."""
    try:
        return source.read_text("ascii").strip()
    except OSError:
        return ""


def is_synchronised() -> bool:
    """Return whether the kernel reports that its wall clock is synchronised (adjtimex(2)); false if this is unknown."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))  # modes 0: read only
    except (OSError, AttributeError):
        return False
    return 0 <= state < TIME_ERROR


class Boot(NamedTuple):
    """The boot clock, which cannot be set: `now` in microseconds, and the id of this boot."""

    now: Callable[[], int] = boot_clock
    id: str = ""
    is_synchronised: Callable[[], bool] = is_synchronised


class Course(NamedTuple):
    """The rule by which server time advances: it is `time` when the boot clock is `boot` (both in microseconds), and
    then runs at `speed` per cent.

    `used` is the part of the budget for forward corrections that was used up at `boot`. A course with half speed or
    less continues at full speed when the boot clock is `until`, regardless of the wall clock.
    """

    boot: int
    time: int
    speed: int = FULL
    used: int = 0
    until: int = 0

    def at(self, boot: int) -> int:
        """Return server time in microseconds when the boot clock is `boot` (microseconds)."""
        if self.speed > HALVED:
            return self.time + (boot - self.boot) * self.speed // 100
        return self.time + (min(boot, self.until) - self.boot) * self.speed // 100 + max(0, boot - self.until)

    def rebased(self, boot: int) -> Course:
        """Return the same course, described from the moment on at which the boot clock is `boot` (microseconds)."""
        return Course(boot, self.at(boot), self.speed, BUDGET - self.left(boot), max(boot, self.until))

    def left(self, boot: int) -> int:
        """Return the largest forward correction of server time that the budget permits when the boot clock is `boot`,
        in microseconds.
        """
        return BUDGET - max(0, self.used - (boot - self.boot) * BUDGET // DAY)

    def confirmed_lag(self, boot: int) -> int:
        """Return how far the wall clock may be behind server time when the boot clock is `boot`, because an operator
        has confirmed a step back, in microseconds; 0 without such a step.
        """
        return max(0, self.until - boot) * (FULL - self.speed) // FULL if self.speed <= HALVED else 0

    def is_jump(self, *, wall: int, boot: int) -> bool:
        """Return whether the wall clock (`wall`) is further ahead of server time than the budget and `SLACK` permit to
        correct, when the boot clock is `boot`. Times are in microseconds.
        """
        return wall - self.at(boot) > self.left(boot) + SLACK

    def follow(self, *, wall: int, boot: int) -> Course:
        """Return the course of server time that begins when the boot clock is `boot`, corrected by the wall clock
        `wall`; this course itself if nothing must change. Times are in microseconds.

        After a jump of the wall clock (`is_jump`), the course continues at full speed without a correction.
        """
        now, left = self.at(boot), self.left(boot)
        ahead = wall - now
        if ahead > left + SLACK:  # the wall clock is too far ahead to be followed: continue, but no longer slowed down
            return self if self.speed == FULL else self.rebased(boot)._replace(speed=FULL)
        if (forward := min(ahead, left)) >= NOTICED:
            return Course(boot, now + forward, FULL, BUDGET - left + forward)
        if ahead <= -NOTICED:
            if self.speed == SLOWED or (self.speed <= HALVED and boot < self.until):
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
        """Boot time of the last forward correction, and server time before it; None for none."""

    def __call__(self) -> int:
        now = self.course.at(self.boot.now())
        if now < self._last:
            return self._last
        self._last = now
        return now

    def read(self) -> tuple[int, int]:
        """Return (wall clock, boot clock) at the same moment, in microseconds."""
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
        """Return how far the wall clock is ahead of server time, in microseconds; negative if it is behind."""
        wall, boot = self.read()
        return wall - max(self.course.at(boot), self._last)

    @property
    def lag(self) -> int:
        """Return how far the wall clock is behind server time beyond the difference that an operator has confirmed, in
        microseconds; 0 if it is not behind.
        """
        wall, boot = self.read()
        return max(0, max(self.course.at(boot), self._last) - wall - self.course.confirmed_lag(boot))

    @property
    def is_confirmed(self) -> bool:
        """Return false if the wall clock is so far ahead that an operator must confirm it; otherwise true."""
        boot = self.boot.now()
        return not self.course.is_jump(wall=self._wall(), boot=boot)

    def check_confirmed(self) -> None:
        """Check that the wall clock need not be confirmed. Raises ClockJumped otherwise."""
        if not self.is_confirmed:
            raise ClockJumped

    def next_course(self, *, highest: int) -> Course:
        """Return the next course of server time, corrected by the wall clock, and not behind `highest`: the latest time
        that any server has stored, in microseconds.

        The caller must save the course before `adopt`.
        """
        wall, boot = self.read()
        course = self.course.follow(wall=wall, boot=boot)
        return course if highest <= course.at(boot) else course.rebased(boot)._replace(time=highest)

    def confirm(self, *, wall: int) -> Course:
        """Return the course after an operator has confirmed `wall` (microseconds) as the time. If the wall clock is
        behind server time, server time has half of its speed until both are equal.

        Raises Conflict if `wall` differs from the wall clock by more than a minute. The caller must save the course
        before `adopt`.
        """
        wall_now, boot = self.read()
        if abs(wall_now - wall) > MARGIN:
            raise Conflict(
                "the wall clock differs from the confirmed time by more than a minute",
                hint="compare again: ostiary clock show; then ostiary clock accept",
            )
        if wall_now >= self.course.at(boot):
            return Course(boot, wall_now)
        now = self.course.at(boot)
        return Course(boot, now, HALVED, BUDGET - self.course.left(boot), until=boot + 2 * (now - wall_now))

    def adopt(self, course: Course) -> None:
        """Use a course of server time that the caller has saved in the database."""
        before = self()
        boot = self.boot.now()
        self.course = course
        if course.at(boot) - before > SLACK:
            self._stepped = boot, before

    @property
    def horizon(self) -> int:
        """Return the time before which ended objects may be deleted: no server of the database can have an earlier
        time.
        """
        if self._stepped is not None:
            boot, before = self._stepped
            if self.boot.now() - boot < MARGIN:
                return before - MARGIN
        return self() - MARGIN


def describe(difference: int) -> str:
    """Return the size of a time difference as text: `1 h 5 min`, `12 s`."""
    seconds = abs(difference) // SECOND
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if value]
    return " ".join(parts[:2]) or "less than 1 s"

"""A clock that only a test moves, and random bytes that depend only on a seed, for code that takes time and randomness
as arguments.
"""

from __future__ import annotations

import hashlib

START = 1_800_000_000_000_000


class Clock:
    """A clock. `clock()` returns the time in microseconds since the epoch, which changes only by `advance`."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float = 0, *, us: int = 0) -> int:
        """Move the clock forward, and return the new time."""
        self.now += round(seconds * 1_000_000) + us
        return self.now


class SeededRandom:
    """A source of random bytes. `dice(n)` returns n bytes of a stream that depends only on the seed."""

    def __init__(self, seed: str) -> None:
        self._seed, self._throws = seed.encode(), 0

    def __call__(self, count: int) -> bytes:
        self._throws += 1
        return hashlib.shake_256(b"%s|%d" % (self._seed, self._throws)).digest(count)


class MachineClock:
    """A simulated machine with a wall clock, which a test sets, and a boot clock, which cannot be set."""

    def __init__(self, now: int = START, *, boot: str = "boot-1", is_synchronised: bool = False) -> None:
        self.boot_id, self.uptime, self.offset = boot, 0, now
        self.is_synchronised = is_synchronised

    def wall(self) -> int:
        """Return the wall clock of the machine in microseconds since the epoch."""
        return self.offset + self.uptime

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Let time pass, on both clocks."""
        self.uptime += round(seconds * 1_000_000) + us

    def step(self, seconds: float = 0, *, us: int = 0) -> None:
        """Set the wall clock, forward or back."""
        self.offset += round(seconds * 1_000_000) + us

    def reboot(self, *, off: float, boot: str = "boot-2") -> None:
        """Switch the machine off for so many seconds."""
        self.offset, self.uptime, self.boot_id = self.wall() + round(off * 1_000_000), 0, boot

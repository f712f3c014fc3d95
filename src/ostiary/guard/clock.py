"""The guard's time: the server's, as fresh messages of the feed state it, carried on by the boot clock.

It never decreases, across restarts too: it is kept in the guard's spool folder. No wall clock that is set back, here or
at the server, makes an old message fresh or a token live longer. A wall clock that is set forward does not make a guard
forget replay protection or revocations.

A message is as late as its `at` is behind this time. Only an opening that arrives quickly proves that the server's time
is less than ours, because it answers a number that the guard threw just before. Then our time stands still until the
server's is level.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder

log = logging.getLogger("ostiary.guard")

KEEP_EVERY_US = 10_000_000
"""Maximum age of the stored time, in microseconds of the boot clock."""


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stored time: the guard's time when the boot clock of that boot showed `tick`; both in microseconds."""

    boot: str
    tick: int
    time: int


_decode = json_decoder(Kept)


class _Anchor(NamedTuple):
    """The server's time at the boot clock's `tick`."""

    tick: int
    time: int


class FeedClock:
    """The time of the guard, in microseconds since the epoch. Before the first message it is the wall clock, which
    decides nothing.

    `heard` is called by one thread, the rest by any.
    """

    def __init__(
        self, *, now: Callable[[], int], tick: Callable[[], int], file: Path | None = None, boot: str = ""
    ) -> None:
        """Read the stored time. `file`: where the time is stored. `boot`: the id of the machine's boot; empty
        if unknown.
        """
        self._now, self._tick, self._file, self._boot = now, tick, file, boot
        self._anchor: _Anchor | None = None
        self._last = 0
        self._kept_at: int | None = None
        if (kept := _read(file)) is not None:
            ticks = tick() - kept.tick if boot and kept.boot == boot else 0
            self._anchor = _Anchor(tick(), kept.time + max(0, ticks))
            self._last = self._anchor.time

    def __call__(self) -> int:
        if (anchor := self._anchor) is None:
            return self._now()
        self._last = last = max(self._last, anchor.time + self._tick() - anchor.tick)
        return last

    def late(self, at: int) -> int:
        """Return the delay of a message made at the server's time `at`; 0 before the first message."""
        anchor = self._anchor
        return 0 if anchor is None else anchor.time + self._tick() - anchor.tick - at

    @property
    def difference(self) -> int:
        """Return the difference between the wall clock and this time; 0 before the first message."""
        return -self.late(self._now())

    def hear(self, at: int, *, is_proof: bool) -> None:
        """Set the time from a fresh message. `is_proof`: the message answers a request that the guard has just sent."""
        self()  # what has passed stays passed
        if self._anchor is None or is_proof or self.late(at) < 0:
            self._anchor = _Anchor(self._tick(), at)
        if self._kept_at is None or self._tick() - self._kept_at >= KEEP_EVERY_US:
            self.keep()

    def keep(self) -> None:
        """Store the time in the folder. A failure is logged; the file matters only after a restart."""
        if self._file is None or self._anchor is None:
            return
        self._kept_at = self._tick()
        partial = self._file.with_name(f".clock-{os.getpid()}-{id(self)}")
        try:
            partial.write_bytes(msgspec.json.encode(Kept(self._boot, self._kept_at, self())))
            os.replace(partial, self._file)
        except OSError as error:
            log.warning("the guard's time cannot be kept in %s: %s", self._file, error.strerror)


def _read(file: Path | None) -> Kept | None:
    """Return the stored time; None if it is missing or damaged, which is logged."""
    if file is None:
        return None
    try:
        return _decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the guard's time in %s cannot be read: %s", file, error)
        return None

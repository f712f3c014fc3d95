"""The guard's time: the server time in the newest message of the feed, plus the time since then by the boot clock.

The guard's time is stored in the spool folder, so it never decreases, not even after a restart. If a wall clock is set
back, at the guard or at the server, an old message therefore does not become fresh, and a token does not live longer.
If a wall clock is set forward, the guard does not forget replay protection or revocations.

The delay of a message is the difference between the guard's time and the `at` of the message. Only the first message of
a stream can prove that the server time is less than the guard's time, because this message contains a random number
that the guard has sent just before. Then the guard's time stands still until the server time has caught up.
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
    """The stored time: `time` is the guard's time at the moment when the boot clock showed `tick`, both in
    microseconds. `boot` identifies the boot of the machine to which `tick` belongs.
    """

    boot: str
    tick: int
    time: int


_decode = json_decoder(Kept)


class _Anchor(NamedTuple):
    """A pair of simultaneous times: the server time `time`, and the reading `tick` of the boot clock, both in
    microseconds.
    """

    tick: int
    time: int


class FeedClock:
    """The time of the guard, in microseconds since the epoch. Without a stored time and before the first message, the
    time is that of the wall clock, and no call is decided with it. Only one thread may call `set_from_message`; any
    thread may call the other methods.
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
        """Return by how many microseconds a message that the server made at `at` is older than the guard's time:
        negative for a newer message, 0 without a stored time and before the first message.
        """
        anchor = self._anchor
        return 0 if anchor is None else anchor.time + self._tick() - anchor.tick - at

    def difference(self, tick: int) -> int:
        """Return the wall clock minus the guard's time, in microseconds; 0 without a stored time and before the first
        message. `tick`: the present time by the boot clock.
        """
        anchor = self._anchor
        return 0 if anchor is None else self._now() - (anchor.time + tick - anchor.tick)

    def set_from_message(self, at: int, *, is_proof: bool) -> None:
        """Follow a fresh message that the server made at `at` (microseconds): set the time to `at` if no time is set
        yet, if the message is newer than the guard's time, or if `is_proof`. The time never decreases: after an older
        proof, the time stands still until the server has caught up. `is_proof`: the message answers a request that the
        guard has just sent.
        """
        self()  # remember the present time, so that time never decreases
        if self._anchor is None or is_proof or self.late(at) < 0:
            self._anchor = _Anchor(self._tick(), at)
        if self._kept_at is None or self._tick() - self._kept_at >= KEEP_EVERY_US:
            self.save()

    def save(self) -> None:
        """Store the guard's time in the file. A failure is logged, because only a restart needs the file."""
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
    """Return the time stored in `file`; None if the file is missing or damaged. Damage is logged."""
    if file is None:
        return None
    try:
        return _decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the guard's time in %s cannot be read: %s", file, error)
        return None

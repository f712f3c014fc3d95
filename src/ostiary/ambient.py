"""The SDK's only access to clocks, randomness and environment. All other modules take these as arguments."""

from __future__ import annotations

import os
import time
from pathlib import Path

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> int:
    """Return the wall clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def tick() -> int:
    """Return microseconds since boot, on a clock that cannot be set and that counts the time asleep.

    CLOCK_BOOTTIME; CLOCK_MONOTONIC on systems without it.
    """
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1000


def random(count: int) -> bytes:
    """Return `count` unpredictable bytes."""
    return os.urandom(count)


def boot(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the id of the present boot of the machine; empty on systems without one, such as macOS."""
    try:
        return source.read_text("ascii").strip()
    except OSError:
        return ""


def environ(name: str) -> str | None:
    """Return a variable of the environment; None if it is not set."""
    return os.environ.get(name)


def environment() -> dict[str, str]:
    """Return the whole environment, for a program to start."""
    return dict(os.environ)

"""The one place where the SDK touches the world: clocks, dice, environment. Everything else takes them as arguments."""

from __future__ import annotations

import os
import time
from pathlib import Path

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> int:
    """The wall clock: microseconds since the epoch."""
    return time.time_ns() // 1000


def tick() -> int:
    """Microseconds since the machine booted, on a clock that nobody sets and that counts the time it slept.

    CLOCK_BOOTTIME; CLOCK_MONOTONIC where the system has none.
    """
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1000


def random(count: int) -> bytes:
    """Bytes that nobody can guess."""
    return os.urandom(count)


def boot(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Which boot of this machine it is; empty where the system does not say, as on macOS."""
    try:
        return source.read_text("ascii").strip()
    except OSError:
        return ""


def environ(name: str) -> str | None:
    return os.environ.get(name)


def environment() -> dict[str, str]:
    """All of it, for a program that we start."""
    return dict(os.environ)

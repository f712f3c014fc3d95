"""The only access of the SDK to clocks, randomness and the environment. All other modules call these functions."""

from __future__ import annotations

import os
import time
from pathlib import Path

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> int:
    """Return the wall clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def tick() -> int:
    """Return microseconds since boot, on a clock that cannot be set and that includes time in sleep mode.

    The clock is CLOCK_BOOTTIME, or CLOCK_MONOTONIC on systems without CLOCK_BOOTTIME.
    """
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1000


def random(count: int) -> bytes:
    """Return `count` random bytes, suitable for cryptography."""
    return os.urandom(count)


def boot(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the id of the current boot of the machine; empty on systems without a boot id, such as macOS."""
    try:
        return source.read_text("ascii").strip()
    except OSError:
        return ""


def environ(name: str) -> str | None:
    """Return an environment variable; None if the variable is not set."""
    return os.environ.get(name)


def environment() -> dict[str, str]:
    """Return the environment variables for a program that is started, without those of Ostiary: they can name the
    administrator's credential, or be the root key.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}

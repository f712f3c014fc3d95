"""Identifiers: a prefix that tells the kind, then a UUID version 7 (RFC 9562 5.7), so that they sort by time.

Also generates secrets that people type on a command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TAIL = re.compile(r"[0-9a-f]{32}")
SECRET_BYTES = 32
_HYPHEN = 62
"""Value of the character `-` in base64url (RFC 4648 section 5)."""


def new_id(prefix: str, *, now: int, random: Callable[[int], bytes]) -> str:
    """Return `<prefix>_<32 hex digits>`; `now` in microseconds since the epoch."""
    tail = int.from_bytes(random(10), "big")
    value = (now // 1000) << 80 | 0x7 << 76 | (tail >> 68) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return f"{prefix}_{value:032x}"


def new_secret(random: Callable[[int], bytes]) -> bytes:
    """Return 32 random bytes whose base64url form does not begin with `-`, because a command line would read that as an
    option.
    """
    while (secret := random(SECRET_BYTES))[0] >> 2 == _HYPHEN:
        pass
    return secret


def is_id(text: str, prefix: str) -> bool:
    """Return whether a text has the form of an id with that prefix."""
    return text.startswith(f"{prefix}_") and _TAIL.fullmatch(text, len(prefix) + 1) is not None


def standing_task(agent: str) -> str:
    """Return the id of the standing task of an agent: the id of the agent with another prefix."""
    return "tk_" + agent.removeprefix("ag_")


def standing_agent(task: str) -> str:
    """Return the id of the agent whose standing task has this id."""
    return "ag_" + task.removeprefix("tk_")

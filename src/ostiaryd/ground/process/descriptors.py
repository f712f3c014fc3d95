"""File descriptors of the process: the limit is raised at start, and a part is reserved for new connections and files.

If more connections are open than the rest allows, idle ones are closed: a new connection always finds a descriptor, and
so does an administrator who revokes. Other modules bound the cost of a connection before it is idle.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

MOST = 1 << 20
"""The value of a limit that means unlimited."""


class UvicornConnection(Protocol):
    """The members of uvicorn's connection that are read here; `cycle` is its present or latest request."""

    cycle: Any


C = TypeVar("C", bound=UvicornConnection)


def raise_limit() -> int:
    """Raise the limit of open files to the most that is allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def most_connections(limit: int) -> int:
    """Return the maximum number of open connections: three quarters of the descriptors."""
    return limit * 3 // 4


def idle(connections: Iterable[C], *, most: int) -> list[C]:
    """Return the idle connections to close so that at most `most` remain, or all idle ones.

    The order: connections that wait for their next request, then the longest wait for a first request.
    """
    opened = list(connections)
    if (over := len(opened) - most) <= 0:
        return []
    idle_ones = [one for one in opened if one.cycle is None or getattr(one.cycle, "response_complete", False)]
    return sorted(idle_ones, key=lambda one: getattr(one, "_waits_since", None) or 0.0)[:over]

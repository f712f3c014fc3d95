"""File descriptors of the process: the limit is raised at start, and each kind of connection gets a part of it.

Connections of unauthenticated callers get three eighths, and connections that are accepted but not open a sixteenth. If
more than three quarters are open, idle connections are closed. So a new connection, for example of an administrator who
revokes something, always gets a descriptor, and strangers cannot displace the connections of authenticated callers.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

MOST = 1 << 20
"""Value of a limit from which it counts as unlimited."""


class UvicornConnection(Protocol):
    """The attributes of a connection that this module reads. `cycle` is its present or latest request."""

    cycle: Any

    @property
    def is_proven(self) -> bool:
        """Return whether a caller has authenticated on the connection. Always false for the connection of a proxy.
        Such a connection carries many callers.
        """
        ...


C = TypeVar("C", bound=UvicornConnection)


def raise_limit() -> int:
    """Raise the limit of open files of this process as far as permitted, and return the new limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def most_connections(limit: int) -> int:
    """Return the maximum number of open connections, from the limit of open files: three quarters of it."""
    return limit * 3 // 4


def most_anonymous(limit: int) -> int:
    """Return the maximum number of open connections of unauthenticated callers: three eighths of the limit of
    open files.
    """
    return limit * 3 // 8


def most_unopened(limit: int, *, listeners: int) -> int:
    """Return the maximum number of connections of one listener that are accepted but not open: a sixteenth of the
    limit of open files for all listeners.
    """
    return max(1, limit // 16 // listeners)


def select_idle(connections: Iterable[C], *, most: int) -> list[C]:
    """Return the idle connections that must be closed so that at most `most` stay open; all idle ones if they are too
    few.

    Connections of unauthenticated callers are closed before all others. Among the connections of each kind, connections
    after a completed request are closed first, then connections that have waited longest for their first request.
    """
    opened = list(connections)
    if (over := len(opened) - most) <= 0:
        return []
    idle_ones = [one for one in opened if one.cycle is None or getattr(one.cycle, "response_complete", False)]
    return sorted(idle_ones, key=lambda one: (one.is_proven, getattr(one, "_waits_since", None) or 0.0))[:over]

"""Core dumps, which would write keys and secrets from the memory of the server to a disk."""

from __future__ import annotations

import resource


def forbid_dumps() -> None:
    """Forbid core dumps of this process, and of all processes that it starts.

    Linux enforces a limit of 1 also if a program receives the dumps; such a program need not respect a limit of 0. No
    file is as short as 1 byte.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))

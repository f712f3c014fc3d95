"""Limits of the process: no core dumps, and a minimum of address space."""

from __future__ import annotations

import os
import resource

from ostiary.protocol.errors import Conflict

LEAST_BYTES = (1 << 30) + (72 << 20) * min(os.cpu_count() or 1, 32)
"""Minimum limit of the address space, in bytes: 1 GiB, where a server on two processors reached 703 MiB under load, and
the stack and heap of one more thread for each processor.
"""


def forbid_dumps() -> None:
    """Forbid core dumps of this process, and of all processes that it starts. A dump would write keys and secrets from
    the memory of the server to a disk.

    Linux enforces a limit of 1 also if a program receives the dumps; such a program need not respect a limit of 0. No
    file is as short as 1 byte.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def check_addresses() -> None:
    """Check that the limit of the address space (RLIMIT_AS) is high enough for a server. Raises Conflict if the limit
    is too low.

    If a library gets no address space, the process can end with SIGSEGV, because not every library checks the result of
    an allocation. Each thread reserves address space for its stack and for its heap, of which it uses little. A limit
    of memory that is in use (a control group) has no such effect.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_BYTES:
        raise Conflict(
            f"the address space of this process is limited to {limit >> 20} MiB (RLIMIT_AS), less than "
            f"{LEAST_BYTES >> 20} MiB",
            hint="remove the limit (`ulimit -v unlimited`, LimitAS), and limit memory by a control group (MemoryMax)",
        )

"""A part of the server in a process of its own, so that its work takes no time of the one that answers requests.

It gets its orders and sends what it has to say over two pipes, ends when the other end is closed, and knows nothing of
the environment but how the database lets us in: no root key.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from asyncio.subprocess import PIPE, Process
from typing import IO

MAX_FRAME = 16 << 20
_LENGTH = struct.Struct(">I")
_BEGIN = """
import os, sys
sys.path[:] = sys.argv[3:]
os.nice(int(sys.argv[2]))
from importlib import import_module
module, _, name = sys.argv[1].partition(":")
getattr(import_module(module), name)()
"""
"""The child imports what its parent would."""
_KNOWN = ("HOME", "PATH", "TZ")


async def spawn(target: str, *, nice: int) -> Process:
    """Run MODULE:FUNCTION; `nice` is how far it gives way to others. What it prints to stderr goes to our log."""
    environ = {name: value for name, value in os.environ.items() if name in _KNOWN or name.startswith("PG")}
    command = [sys.executable, "-c", _BEGIN, target, str(nice), *sys.path]
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environ)


async def receive(pipe: asyncio.StreamReader) -> bytes:
    """The next frame. Raises EOFError when the child has ended, ValueError for nonsense."""
    try:
        (length,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise ValueError("a frame that is too long")
        return await pipe.readexactly(length)
    except asyncio.IncompleteReadError:
        raise EOFError from None


def send(pipe: IO[bytes], body: bytes) -> None:
    """From the child: one frame; waits until there is room for it."""
    pipe.write(_LENGTH.pack(len(body)) + body)
    pipe.flush()

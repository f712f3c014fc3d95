"""Child processes of the server, whose work takes no time from the process that answers requests.

A child reads orders from one pipe and writes frames to another, and ends when the server closes the pipe. Its
environment has only the variables for the database, and not the root key.
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
import gc, os, sys
sys.path[:] = sys.argv[3:]
gc.set_threshold(200_000)  # imports create few cycles
os.nice(int(sys.argv[2]))
from importlib import import_module
module, _, name = sys.argv[1].partition(":")
getattr(import_module(module), name)()
"""
"""Program of the child, which sets the import path of its parent."""
_KNOWN = ("HOME", "PATH", "TZ")


async def spawn(target: str, *, nice: int) -> Process:
    """Start a child process that runs MODULE:FUNCTION with this niceness, and return it. Its stderr goes to the log of
    the server.
    """
    environ = {name: value for name, value in os.environ.items() if name in _KNOWN or name.startswith("PG")}
    command = [sys.executable, "-c", _BEGIN, target, str(nice), *sys.path]
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environ)


async def receive(pipe: asyncio.StreamReader) -> bytes:
    """Return the next frame. Raises EOFError when the child has ended, ValueError for a malformed frame."""
    try:
        (length,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise ValueError("a frame that is too long")
        return await pipe.readexactly(length)
    except asyncio.IncompleteReadError:
        raise EOFError from None


def send(pipe: IO[bytes], body: bytes) -> None:
    """Write a frame in the child. Blocks until the pipe has space."""
    pipe.write(_LENGTH.pack(len(body)) + body)
    pipe.flush()

"""A server for all tests of the command line that leave it as they found it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from harness.cli import Commands
from harness.patience import eventually
from harness.prepared import PreparedServer
from harness.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with PreparedServer(tmp_path_factory.mktemp("cli") / "data") as server:
        Commands(server.folder).json("person", "create", "ada", "--email", "ada@example.org")
        yield server


@pytest.fixture
def ostiary(server: Server) -> Commands:
    return Commands(server.folder)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    test: str = request.node.name
    return test.lower().replace("_", "-").replace("[", "-").rstrip("]")[-60:].lstrip("-")


@pytest.fixture(autouse=True)
def sockets_are_closed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that a test leaves no socket open: the garbage collector would report it in any later test."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server")
    before = count_sockets()
    yield
    eventually(lambda: count_sockets() <= before)


def count_sockets() -> int:
    """Return the number of open TCP sockets of this process."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # no socket, or closed meanwhile
            one = socket.socket(fileno=int(name))
            count += one.family in (socket.AF_INET, socket.AF_INET6)
            one.detach()
    return count

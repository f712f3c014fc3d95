"""One server for all tests of the command line that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.server import Server, running
from tests.support.cli import Commands


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("cli") / "data") as server:
        Commands(server.folder).json("owner", "create", "ada", "--email", "ada@example.org")
        yield server


@pytest.fixture
def ostiary(server: Server) -> Commands:
    return Commands(server.folder)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    test: str = request.node.name
    return test.lower().replace("_", "-").replace("[", "-").rstrip("]")[-60:].lstrip("-")

"""One server for all tests of the command line that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.command import Commands
from tests.server import Server, running

TOOLS: dict[str, Any] = {
    "tools": [
        {"name": "read_file", "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}}},
        {"name": "write_file", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": False}},
    ]
}


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

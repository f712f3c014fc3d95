"""An agent with one stdio server that `ostiary run` guards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import COMMAND, Server

HERE = Path(__file__).parent


CALLS = [["write_file", {"path": "reports/q3.txt", "text": "up 4 %"}], ["read_file", {"path": "reports/q3.txt"}]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with PreparedServer(tmp_path_factory.mktemp("run") / "data") as server:
        yield server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    test: str = request.node.name
    return test.removeprefix("test_").lower().replace("_", "-").replace("[", "-").rstrip("]")[:40].strip("-")


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    said: list[Any]
    err: str


@dataclass(frozen=True, slots=True)
class StdioAgent:
    """An agent with one stdio server, and the folder that this one works in."""

    server: Server
    name: str
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "mcp.json"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def uri(self) -> str:
        return f"http://localhost/stdio/{self.name}/files"

    @property
    def keys(self) -> Path:
        return self.server.folder / "run" / self.name

    def ostiary(self, *arguments: str) -> Any:
        return self.server.ostiary(*arguments)

    def run(
        self, calls: Sequence[Any] = CALLS, *options: str, command: Sequence[str] | None = None, stdin: str = ""
    ) -> Ran:
        """`ostiary run` with the agent of the official SDK, or another command."""
        own = [sys.executable, str(HERE / "agent_program.py"), "{mcp_config}", "files", json.dumps(calls)]
        words = ["run", "--agent", self.name, "--config", str(self.config), *options, "--", *(command or own)]
        done = subprocess.run(
            [COMMAND, "--data-dir", self.server.folder, *words],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=PATIENCE_S,
            check=False,
            cwd=self.folder,
        )
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return Ran(done.returncode, said, done.stderr)

    def entries(self, action: str = "tool.call") -> list[dict[str, Any]]:
        """Of the server, the oldest first."""
        found: list[dict[str, Any]] = self.ostiary("audit", "search", "--resource", self.uri, "--action", action)
        return found[::-1]

"""A running server, and existing agents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.server import Server
from tests.run.stdio_agent import HERE, StdioAgent, name, server

__all__ = ["name", "server"]


@pytest.fixture
def stdio_agent(server: Server, name: str, tmp_path: Path) -> StdioAgent:
    stdio_agent = StdioAgent(server, name, tmp_path)
    stdio_agent.root.mkdir()
    entry = {"command": sys.executable, "args": [str(HERE / "files_server.py"), str(stdio_agent.root)]}
    stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": entry}}))
    return stdio_agent

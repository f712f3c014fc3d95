"""Lists the tools of the servers of `package.json`: each is started, asked for its tools, and ended."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.contain.suites import Tool

HERE = Path(__file__).resolve().parent
PATIENCE_S = 120.0
COMMANDS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "mcp-server-filesystem": ((str(HERE),), {}),
    "mcp-server-memory": ((), {}),
    "mcp-server-github": ((), {"GITHUB_PERSONAL_ACCESS_TOKEN": "none"}),
    "mcp-server-slack": ((), {"SLACK_BOT_TOKEN": "none", "SLACK_TEAM_ID": "none"}),
    "notion-mcp-server": ((), {"NOTION_TOKEN": "none"}),
    "airtable-mcp-server": ((), {"AIRTABLE_API_KEY": "none"}),
}
"""by the name of the program: arguments, and variables without which it does not start"""
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}},
}


@cache
def tools() -> tuple[Tool, ...]:
    """The tools of all servers. Raises FileNotFoundError where they are not installed, OSError for one that fails."""
    return tuple(tool for program in COMMANDS for tool in _tools_of(program))


def _tools_of(program: str) -> list[Tool]:
    arguments, variables = COMMANDS[program]
    process = subprocess.Popen(
        [str(HERE / "node_modules" / ".bin" / program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | variables,
    )
    late = threading.Timer(PATIENCE_S, process.kill)
    late.start()
    try:
        _ask(process, _INITIALIZE)
        _send(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        listed = _ask(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})["tools"]
    finally:
        late.cancel()
        process.kill()
        process.wait()
    return [
        Tool(one["name"], one.get("description", ""), one["inputSchema"], _hints(one.get("annotations", {})))
        for one in listed
    ]


def _hints(annotations: Mapping[str, Any]) -> dict[str, bool]:
    return {name: value for name, value in annotations.items() if isinstance(value, bool)}


def _send(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def _ask(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> Any:
    """The result of a request; what the server says of its own is left out."""
    _send(process, message)
    assert process.stdout is not None
    for line in process.stdout:
        answer = json.loads(line)
        if answer.get("id") == message["id"]:
            return answer["result"]
    raise OSError(f"{process.args!r} ended without an answer")

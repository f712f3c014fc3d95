"""A guard names tools as it likes, and an administrator reads them: names must not reach a terminal alive."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import COMMAND
from ostiary import ambient
from ostiary.agent import Agent

TOOLS = (
    "ag_\x1b[2J\x1b]0;owned\x07",
    "ag_\n999999 2026-01-01 00:00:00 ok      agent.create     admin            nothing to see",
    "ag_\u202eevil",
    "ag_/../../../doctor?x=",
    "ag_x/keys",
    "[red]bold[/red]:warning:\x7f\x9b2J",
)


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    folder = tmp_path_factory.mktemp("terminal")
    with PreparedServer(folder / "server") as server, ServerFixture(server, folder) as live_server:
        _, key = live_server.resource("https://files.example/mcp")
        with Agent.from_credential(key, url=server.url) as guard:
            records = [record(tool) for tool in TOOLS]
            told = {"spool": "0" * 32, "first": 1, "records": records}
            answer = guard.post(f"{server.url}/feed/v1/report", json=told, resource=f"{server.url}/api/v1")
            assert answer.status_code == 200, answer.text
        yield live_server


def record(tool: str) -> dict[str, Any]:
    return {
        "kind": "call",
        "at": ambient.now(),
        "token": "tok_1",
        "agent": "ag_1",
        "tool": tool,
        "outcome": "allow",
        "verdict": "allow",
    }


def ostiary(live_server: ServerFixture, *arguments: str) -> str:
    run = subprocess.run(
        [COMMAND, "--data-dir", live_server.server.folder, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("arguments", [("tail",), ("search", "--outcome", "refused")])
def test_a_name_in_a_table_cannot_move_the_cursor_or_add_lines(
    live_server: ServerFixture, arguments: tuple[str, ...]
) -> None:
    shown = ostiary(live_server, "audit", *arguments)
    rows = [line.split("\t") for line in shown.splitlines()]  # a piped table separates its cells by tabs
    assert all(cell.isprintable() for row in rows for cell in row)
    assert len({len(row) for row in rows}) == 1
    numbers = [int(row[0]) for row in rows[1:]]
    assert 999999 not in numbers
    assert "[red]bold[/red]:warning:\\x7f\\x9b2J" in shown


def test_control_characters_of_a_shown_entry_are_escaped(live_server: ServerFixture) -> None:
    line = next(line for line in ostiary(live_server, "audit", "tail").splitlines() if "owned" in line)
    shown = ostiary(live_server, "audit", "show", line.split()[0])
    assert all(cell.isprintable() for row in shown.splitlines() for cell in row.split("\t"))
    assert "\\x1b[2J" in shown

"""The page about `ostiary run`: its commands, one after the other, as a reader would type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "run.md"
PROGRAMS = Path(__file__).resolve().parents[1] / "run"
CALLS = [["write_file", {"path": "a.txt", "text": "hello"}], ["read_file", {"path": "a.txt"}]]


@pytest.mark.slow
def test_the_commands_of_the_page_succeed_with_the_documented_output(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    commands = re.findall(r"^\$ (ostiary .+)$", text, re.MULTILINE)
    assert len(commands) == 6
    (tmp_path / "root").mkdir()
    entry = {"command": sys.executable, "args": [str(PROGRAMS / "files_server.py"), str(tmp_path / "root")]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"files": entry}}))
    agent = (PROGRAMS / "agent_program.py").read_text("utf-8")
    given = f'main(json.loads(Path(sys.argv[1]).read_text("utf-8")), "files", {json.dumps(CALLS)!r})'
    (tmp_path / "my_agent.py").write_text(re.sub(r"main\(json\.loads\(.*\)(?=\)$)", lambda _: given, agent, flags=re.M))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = []
    with PreparedServer(tmp_path / "data") as server:
        environment = os.environ | {"PATH": path, "OSTIARY_DATA_DIR": str(server.folder), "TERM": "dumb"}
        for command in commands:
            done = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
            said.append(done)
    shown = re.search(r"```text\n(.*)\n```", text)
    assert shown is not None
    assert shown[1] in re.sub(r"\bag_\w{32}", "ag_01..", said[0].stderr).splitlines()
    assert (tmp_path / "least" / "bounds.json").exists()
    assert "2 of 2 calls would be allowed" in said[4].stdout
    assert "2 allowed" in said[5].stderr

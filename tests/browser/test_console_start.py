"""First run in the console: the programs that the page shows lead from an empty server to a denied call."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli import run
from harness.live_server import free_port, own_server
from harness.patience import eventually
from tests.support.chromium import Chromium
from tests.support.console import enter_console, needs_console

pytestmark = [needs_console, pytest.mark.slow]
TOOLS = '''
from mcp.server.mcpserver import MCPServer

mcp_server = MCPServer("files", log_level="WARNING")


@mcp_server.tool()
def read(name: str) -> str:
    """Read a file."""
    return name
'''


@contextmanager
def program(folder: Path, text: str) -> Iterator[None]:
    """A running program in a folder."""
    process = subprocess.Popen([sys.executable, "-c", text], cwd=folder)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def is_open(port: int) -> bool:
    """Return whether a program accepts connections at a port of this machine."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def save(chromium: Chromium, button: str, path: Path) -> None:
    """Click a button that saves a key, and store the key as its owner does."""
    path.touch(0o600)
    path.write_text(chromium.download(f"text={button}"))


def test_the_programs_on_the_first_run_page_produce_a_denied_call(chromium: Chromium, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "my_server.py").write_text(TOOLS)
    with own_server(tmp_path) as server:
        run("doctor", "--data-dir", server.server.folder)  # one of its experiments is a denied decision
        site = enter_console(server, chromium, "ada", "administrator")
        chromium.goto(f"{site}/console/start")
        chromium.fill("form:has-text('Purpose') input >> nth=0", "writer")
        chromium.fill("form:has-text('Purpose') input >> nth=1", "Writes reports")
        save(chromium, "Register and save its key", tmp_path / "writer.json")
        chromium.fill("form:has-text('Name of the tool server') input >> nth=0", "files")
        chromium.fill("form:has-text('Name of the tool server') input >> nth=1", f"http://127.0.0.1:{port}/mcp")
        save(chromium, "Register and save the key of its guard", tmp_path / "files.json")
        chromium.wait_for("text=Start its guard")
        assert server.entries(outcome="deny")
        assert "was denied" not in chromium.text("main")
        guard, call = (chromium.evaluate(f"document.querySelectorAll('pre.code')[{n}].textContent") for n in (0, 1))
        with program(tmp_path, guard):
            chromium.wait_for("text=1 guard connected to this server")
            eventually(lambda: is_open(port), pause_s=0.2)
            output = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True).stdout
            assert "denied: the catalogue of `files` has no tool 'read'" in output, output
            chromium.wait_for("text=was denied")
        assert "read was denied" in chromium.text("main")

"""A server without the extra `detect`: it runs, and says which detectors are off and how to turn them on.

numpy is hidden from the server's process by an entry in `sys.modules`, which makes every import of it fail.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.server import running

WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from ostiary.cli import main
main()
"""
INSTALL = 'pip install "ostiary[server,detect]"'


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "without_numpy.py"
    script.write_text(WITHOUT_NUMPY, "utf-8")
    return [sys.executable, str(script)]


@pytest.mark.slow
def test_a_server_without_numpy_runs_and_names_the_detectors_that_are_off(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with running(tmp_path / "data", command=command) as server:
        server.ostiary("person", "create", "ada", "--email", "ada@example.org")
        line = next(line for line in server.ostiary("doctor") if line["name"] == "detectors")
        status = server.ostiary("watch", "status")
    assert line["state"] == "weak"
    assert "canary" in line["saw"]
    assert "threat_list" in line["saw"]
    assert INSTALL in line["hint"]
    assert (status["phase"], status["starts"]) == ("off", 0)
    log = (tmp_path / "data" / "server.log").read_text("utf-8")
    assert log.count(INSTALL) == 1
    assert "14 detectors are off" in log


def test_replaying_without_numpy_is_refused_with_the_command_to_install(tmp_path: Path, command: list[str]) -> None:
    entries = tmp_path / "entries.jsonl"
    entries.write_text("", "utf-8")
    run = subprocess.run(
        [*command, "watch", "replay", str(entries)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert run.returncode == 3, run.stderr
    assert "need numpy" in run.stderr
    assert INSTALL in run.stderr


def test_importing_the_server_does_not_import_numpy() -> None:
    program = "import sys, ostiaryd.serve; sys.exit('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], timeout=PATIENCE_S, check=False)
    assert run.returncode == 0

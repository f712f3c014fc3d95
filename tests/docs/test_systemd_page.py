"""The page about systemd: systemd finds nothing wrong with the unit, and the command of the unit starts the server."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.server import COMMAND, running

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "systemd.md"
[UNIT] = re.findall(r"```ini\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
[START] = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
SYSTEMD = shutil.which("systemd-analyze")


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """Where systemd is not installed, only the form of the unit is checked."""
    assert re.fullmatch(r"(\[[A-Z][a-z]+\]\n([A-Za-z]+=.*\n|\n)*)+", UNIT)
    if SYSTEMD is None:
        return
    file = tmp_path / "ostiary.service"
    file.write_text(UNIT.replace("/opt/ostiary/bin/ostiary", str(COMMAND)), "utf-8")
    run = subprocess.run(
        [SYSTEMD, "verify", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    complaints = [line for line in run.stderr.splitlines() if "ostiary.service" in line]
    assert (run.returncode, complaints) == (0, []), run.stderr


@pytest.mark.slow
def test_the_command_of_the_unit_has_the_options_with_which_the_server_starts(tmp_path: Path) -> None:
    program, command, *options = shlex.split(START)
    assert (program, command) == ("/opt/ostiary/bin/ostiary", "serve")
    assert options == ["--data-dir", "/var/lib/ostiary", "--listen", "127.0.0.1:8700"]
    with running(tmp_path / "data") as server:  # the same options, in another folder and on another port
        assert server.url.startswith("http://127.0.0.1:")

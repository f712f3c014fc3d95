"""The tutorial about certificates: every file written, every command run, every output compared."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from tests.docs.page_script import is_in, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "certificates.md"


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    with socket.create_server(("127.0.0.1", 0)) as free:
        text = re.sub(r"\b8702\b", str(free.getsockname()[1]), text)
    path, output = f"{Path(sys.executable).parent}:{os.environ['PATH']}", tmp_path / "output"
    with output.open("w") as file:
        run = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "TERM": "dumb"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = run.wait(PATIENCE_S)
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    said = dict(re.findall(r"=== (\d+)\n(.*?)(?==== |\Z)", output.read_text(), re.DOTALL))
    assert code == 0, output.read_text()
    assert len(wanted) == 4
    for number, lines in wanted:
        assert is_in(lines, said[str(number)]), f"block {number} printed:\n{said[str(number)]}\ninstead of\n{lines}"

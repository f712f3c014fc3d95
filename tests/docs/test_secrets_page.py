"""The tutorial about secrets: every file written, every command run, every output compared."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from tests.docs.page_script import is_in, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "secrets.md"


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
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
    assert len(wanted) == 5
    for number, lines in wanted:
        assert is_in(lines, said[str(number)]), f"block {number} printed:\n{said[str(number)]}\ninstead of\n{lines}"
    written = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file() and one.name != "buyer.py")
    assert [value in written for value in (b"sk-4711", b"p-4712")] == [False, False]

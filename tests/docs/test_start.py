"""The first pages: one after the other in one folder, every file written, every command run, every output compared."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.live_server import free_port
from harness.patience import PATIENCE_S
from tests.docs.page_script import is_in, script

PAGES = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
ORDER = ("tool-owner", "agent-developer", "security-engineer")
ALONE = ("certificates", "company-login", "secrets")  # tests of their own run them


@pytest.mark.slow
def test_the_first_tutorials_run_in_order_with_the_documented_output(tmp_path: Path) -> None:
    pages = [(PAGES / f"{name}.md").read_text("utf-8") for name in ORDER]
    assert sorted(f"{name}.md" for name in ORDER + ALONE) == sorted(file.name for file in PAGES.iterdir())
    text, wanted = script(pages)
    for port in ("8700", "8701"):
        text = re.sub(rf"(127\.0\.0\.1:|port=){port}", rf"\g<1>{free_port()}", text)
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
        os.killpg(run.pid, signal.SIGTERM)  # with what it left in the background
    said = output.read_text("utf-8")
    assert code == 0, said
    blocks = re.split(r"^=== \d+\n", said, flags=re.MULTILINE)
    for number, lines in wanted:
        assert is_in(lines, blocks[number]), f"wanted:\n{lines}\nsaid:\n{blocks[number]}"

"""The page about delegation: every file written, every command run, every output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from tests.docs.page_script import is_in, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "delegation.md"


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_documented_output(tmp_path: Path) -> None:
    text, wanted = script([re.sub(r"```\nPOST .*?```", "", PAGE.read_text("utf-8"), flags=re.DOTALL)])
    assert len(wanted) == 3
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with PreparedServer(tmp_path / "data") as server:
        environment = os.environ | {"PATH": path, "OSTIARY_DATA_DIR": str(server.folder), "TERM": "dumb"}
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    blocks = re.split(r"^=== \d+\n", run.stdout, flags=re.MULTILINE)
    for number, lines in wanted:
        assert is_in(lines, blocks[number]), f"wanted:\n{lines}\nsaid:\n{blocks[number]}"

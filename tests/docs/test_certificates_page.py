"""The tutorial about certificates: every file written, every command run, every output compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.live_server import free_port
from tests.docs.page_script import missing_in, run_script, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "certificates.md"


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    text = re.sub(r"\b8702\b", str(free_port()), text)
    said = run_script(text, tmp_path)
    assert len(wanted) == 4
    assert missing_in(said, wanted) == [], said

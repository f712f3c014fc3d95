"""The tutorial about certificates: every file written, every command run, every output compared."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.docs.page_script import missing_in, run_script, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "certificates.md"


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    with socket.create_server(("127.0.0.1", 0)) as free:
        text = re.sub(r"\b8702\b", str(free.getsockname()[1]), text)
    said = run_script(text, tmp_path)
    assert len(wanted) == 4
    assert missing_in(said, wanted) == [], said

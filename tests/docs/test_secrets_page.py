"""The tutorial about secrets: every file written, every command run, every output compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.page_script import missing_in, run_script, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "secrets.md"


@pytest.mark.slow
def test_the_commands_of_the_tutorial_give_the_documented_output(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    said = run_script(text, tmp_path)
    assert len(wanted) == 6
    assert missing_in(said, wanted) == [], said
    written = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file() and one.name != "buyer.py")
    assert [value in written for value in (b"sk-4711", b"p-4712")] == [False, False]

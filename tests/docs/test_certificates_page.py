"""The tutorial about certificates: every file written, every command run, every output compared; rows of metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.live_server import free_port
from tests.docs.page_script import missing_in, run_script, script
from tests.support.sources import ROOT

PAGE = ROOT / "docs" / "tutorials" / "certificates.md"


@pytest.mark.slow
def test_the_commands_of_the_tutorial_give_the_documented_output(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    text = re.sub(r"\b8702\b", str(free_port()), text)
    said = run_script(text, tmp_path)
    assert len(wanted) == 4
    assert missing_in(said, wanted) == [], said


def test_each_metric_has_a_row_on_a_page() -> None:
    metrics = set(re.findall(r'"(ostiary_\w+)"', (ROOT / "src/ostiaryd/metrics.py").read_text("utf-8")))
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "how-to").glob("*.md"))
    assert len(metrics) > 3
    assert metrics == set(re.findall(r"^\| `(ostiary_\w+)(?:\{[\w,]+\})?` \| ", pages, re.M))

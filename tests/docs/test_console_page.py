"""The table of docs/how-to/console.md has the pages of the menu, and the page has the keys of an approval request. The
overview has words for each counted action.
"""

from __future__ import annotations

import re
from pathlib import Path

from ostiaryd.incidents.wire_admin.overview import CHANGES

ROOT = Path(__file__).parents[2]
DETAIL = {"one agent"}
"""A page that no menu leads to."""


def test_the_page_has_a_row_for_each_page_of_the_menu() -> None:
    menu = re.findall(r'label: "([^"]+)", icon', (ROOT / "console" / "src" / "shell.tsx").read_text("utf-8"))
    page = (ROOT / "docs" / "how-to" / "console.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    assert set(menu) == set(rows) - {"page", "---"} - DETAIL


def test_the_page_has_each_key_of_an_approval_request() -> None:
    keys = re.findall(r'event\.key === "(\w+)"', (ROOT / "console/src/pages/approvals.tsx").read_text("utf-8"))
    page = (ROOT / "docs" / "how-to" / "console.md").read_text("utf-8")
    section = page.partition("## Answer an approval request with the keyboard\n")[2].partition("\n## ")[0]
    assert len(set(keys)) >= 5
    assert set(keys) == set(re.findall(r"`(\w+)`", section))


def test_the_overview_has_a_text_for_each_action_that_it_counts() -> None:
    page = (ROOT / "console" / "src" / "pages" / "overview.tsx").read_text("utf-8")
    words = re.findall(r'^  "([a-z_.]+)": \[', page.partition("const CHANGES")[2].partition("};")[0], re.MULTILINE)
    assert sorted(words) == sorted(CHANGES)

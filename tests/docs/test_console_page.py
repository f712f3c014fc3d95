"""The table of docs/how-to/console.md has the pages of the console's menu."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DETAIL = {"one agent"}
"""A page that no menu leads to."""


def test_there_is_a_row_for_each_page_of_the_menu() -> None:
    menu = re.findall(r'label: "([^"]+)", icon', (ROOT / "console" / "src" / "shell.tsx").read_text("utf-8"))
    page = (ROOT / "docs" / "how-to" / "console.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    assert set(menu) == set(rows) - {"page", "---"} - DETAIL

"""Pages that are generated say what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_committed_page_is_what_the_program_generates(page: Path) -> None:
    assert page.read_text("utf-8") == PAGES[page](), "make docs"

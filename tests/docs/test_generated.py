"""Pages that are generated say what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import listings
from docs.generate import PAGES


@pytest.mark.impatient  # a page states the limits of a guard
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_committed_page_is_what_the_program_generates(page: Path) -> None:
    assert page.read_text("utf-8") == PAGES[page](), "make docs"


def test_every_reason_code_of_the_source_has_a_meaning_on_the_page() -> None:
    missing = listings.decision_codes() - listings.REASONS.keys()
    assert not missing, "add the code and its meaning to docs/listings.py"

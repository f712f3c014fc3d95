"""Pages that are generated say what the program says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from docs import listings
from docs.generate import PAGES
from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.decision.access.policies import Because
from ostiary.protocol.secret_forms import SEARCH_REFUSALS


@pytest.mark.impatient  # a page states the limits of a guard
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_committed_page_is_what_the_program_generates(page: Path) -> None:
    assert page.read_text("utf-8") == PAGES[page](), "make docs"


def test_the_rules_of_decisions_give_exactly_the_codes_of_the_page() -> None:
    codes = listings.decision_codes() | SEARCH_REFUSALS
    assert codes == listings.REASONS.keys(), "add the code and its meaning to docs/listings.py"
    assert codes > {INSUFFICIENT, *get_args(Because)} - {""}

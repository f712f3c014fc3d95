"""Pages that are generated say what the program says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from docs import listings
from docs.generate import PAGES
from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.decision.access.policies import Because
from ostiary.protocol.secret_forms import SEARCH_REFUSALS
from ostiaryd.registry.model.agent import AgentState
from ostiaryd.watch.model.batch import is_excused
from tests.support.sources import ROOT


@pytest.mark.impatient  # a page states the limits of a guard
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_committed_page_equals_the_generated_page(page: Path) -> None:
    assert page.read_text("utf-8") == PAGES[page](), "make docs"


def test_each_generated_page_has_the_merge_driver_for_generated_pages() -> None:
    attributes = (ROOT / ".gitattributes").read_text("utf-8")
    generated = {str(page.relative_to(ROOT)) for page in PAGES}
    assert set(re.findall(r"^(\S+) merge=generated$", attributes, re.M)) == generated


def test_the_reason_codes_of_decisions_are_exactly_those_of_the_page() -> None:
    codes = listings.decision_codes() | SEARCH_REFUSALS
    assert codes == listings.REASONS.keys(), "add the code and its meaning to docs/listings.py"
    assert codes > {INSUFFICIENT, *get_args(Because)} - {""}


COUNTED = {
    "agent_not_active",
    "denied",
    "forbidden_by_policy",
    "history_full",
    "key_revoked",
    "no_permit",
    "outside_task",
    "policy_error",
    "stopped",
    "task_ended",
    "token_expired",
    "token_revoked",
    "tool_changed",
    "unknown_tool",
    "wrong_audience",
    *SEARCH_REFUSALS,
}
"""codes of denials that detectors count against the agent"""


def test_each_reason_code_is_either_counted_or_excused_by_detectors() -> None:
    excused = {code for code in listings.REASONS if is_excused(code)}
    assert COUNTED | excused == listings.REASONS.keys(), "docs/extending/decisions.md: a reason code"
    assert COUNTED & excused == set()


_CODE = re.compile(
    r"""\bcode=\s*"([a-z_]+)"|\b(?:Rejected|_refuse|render_refusal)\(\s*\d{3},\s*"([a-z_]+)"|\bAcmeRefused\(\s*"(\w+)\""""
)
"""The code of a single refusal in source, by its name or by its place."""


def test_the_page_of_reason_codes_lists_each_refusal_code_in_the_source() -> None:
    page = listings.reasons()
    sources = [path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py")]
    given = {next(filter(None, match.groups())) for text in sources for match in _CODE.finditer(text)}
    given |= {f"agent_{state}" for state in AgentState if state is not AgentState.ACTIVE}
    given |= {"agent_expired", "person_left", "person_suspended"}  # computed
    given |= {"elevation_ended", "task_ended", "too_many_questions"}  # variables
    assert given > {"too_slow", "upstream_timeout", "badNonce", "too_many_keys"}
    assert {code for code in given if not re.search(rf"^\| `{code}` \| .*\w", page, re.M)} == set()


def test_the_row_of_a_reason_code_with_several_meanings_lists_all_of_them() -> None:
    [row] = [line for line in listings.reasons().splitlines() if line.startswith("| `private_address` |")]
    assert row.split("|")[2].strip().split("<br>") == [
        "The probe may not visit this address or port.",
        "the name … leads to an address that is not public",
        "… resolves to an address that is not public",
    ]

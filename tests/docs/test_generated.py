"""Pages that are generated say what the program says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from docs import listings
from docs.generate import PAGES
from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.catalogue_advisor.suggest.suggestion import LASTING
from ostiary.cli.enforce import WITHOUT_ARGUMENTS
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


TRAITS: dict[str, set[str]] = {
    "agent_not_active": {"counted", "without arguments"},
    "approval_needed": set(),
    "denied": {"counted"},
    "forbidden_by_policy": {"counted", "lasting"},
    "history_full": {"counted"},
    "history_unavailable": set(),
    INSUFFICIENT: set(),
    "key_revoked": {"counted"},
    "memory_unavailable": set(),
    "narrowed": {"without arguments"},
    "no_permit": {"counted", "lasting"},
    "outside_task": {"counted", "without arguments"},
    "policy_error": {"counted", "lasting"},
    "stopped": {"counted", "without arguments"},
    "task_ended": {"counted"},
    "throttled": {"without arguments"},
    "token_expired": {"counted"},
    "token_revoked": {"counted"},
    "tool_changed": {"counted"},
    "unknown_tool": {"counted", "without arguments"},
    "wrong_audience": {"counted"},
    **{code: {"counted"} for code in SEARCH_REFUSALS},
}
"""Each reason code of a denial. `counted`: detectors count the denial against the agent. `lasting`: neither a scope nor
a wider bound removes the denial. `without arguments`: the denial does not depend on the arguments of the call.
"""


def test_each_reason_code_has_its_traits_in_detectors_suggestions_and_enforcement() -> None:
    assert TRAITS.keys() == listings.REASONS.keys(), "docs/extending/decisions.md: a reason code"
    for code, traits in TRAITS.items():
        assert ("counted" in traits) is not is_excused(code), code
        assert ("lasting" in traits) is (code in LASTING), code
        assert ("without arguments" in traits) is (code in WITHOUT_ARGUMENTS), code


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


def test_the_page_of_events_lists_composed_actions_and_no_type_of_a_call_to_another_service() -> None:
    page = listings.events()
    assert "`incident.take`" in page
    assert "`secret.rotate`" not in page


def test_the_row_of_a_reason_code_with_several_meanings_lists_all_of_them() -> None:
    [row] = [line for line in listings.reasons().splitlines() if line.startswith("| `private_address` |")]
    assert row.split("|")[2].strip().split("<br>") == [
        "The probe may not visit this address or port.",
        "the name … leads to an address that is not public",
        "… resolves to an address that is not public",
    ]

"""Restrictions of an agent: at each limit and on both its sides, for the agent and for calls through it."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.assurance import ACRS, INSUFFICIENT, KEY, PERSON, TWO_KEYS
from ostiary.decision.access import Decision, Restriction
from ostiary.decision.access.restrictions import RestrictionKind
from tests.decision.chain_fixtures import chained, link
from tests.support.decision_fixtures import AGENT, NOW, PARENT, SECOND, call, codes, principal, resource

SINCE = NOW - 40 * SECOND
UNTIL = NOW + 60 * SECOND


def held(kind: RestrictionKind, limit: int = 0, *, agent: str = AGENT, until: int = UNTIL) -> dict[str, Any]:
    return {agent: (Restriction(kind, limit, SINCE, until),)}


def pay(**more: Any) -> Decision:
    return call(tool="pay", arguments={"amount": 1}, **more)


def proved(acr: str = PERSON, at: int | None = SINCE // SECOND) -> Any:
    return principal(acr=acr, auth_time=at)


@pytest.mark.parametrize("at", [resource(), resource(mode="watch")])
def test_a_narrowed_agent_may_call_only_tools_that_read_in_any_mode(at: Any) -> None:
    assert call(at=at, restrictions=held("narrow")).allowed
    assert pay(at=at).allowed
    denied = pay(at=at, restrictions=held("narrow"))
    assert (codes(denied), denied.allowed) == (["narrowed"], False)
    unknown = call(at=at, tool="of tomorrow", restrictions=held("narrow"))
    assert (codes(unknown), unknown.allowed) == (["narrowed"], False), "what nobody describes may do anything"


@pytest.mark.parametrize(("until", "is_held"), [(NOW - 1, False), (NOW, False), (NOW + 1, True)])
def test_a_restriction_is_not_in_force_from_its_end(until: int, is_held: bool) -> None:
    assert pay(restrictions=held("narrow", until=until)).allowed is not is_held


def test_an_ended_restriction_does_not_hide_a_restriction_in_force() -> None:
    both = {AGENT: (Restriction("step_up", 2, SINCE, NOW), Restriction("narrow", 0, SINCE, UNTIL))}
    assert codes(pay(restrictions=both)) == ["narrowed"]
    assert call(restrictions=both).allowed


def test_a_restriction_applies_to_calls_through_its_agent_and_to_no_other_call() -> None:
    through = chained(link(PARENT))
    assert codes(pay(who=through, restrictions=held("narrow", agent=PARENT))) == ["narrowed"]
    assert pay(restrictions=held("narrow", agent=PARENT)).allowed


@pytest.mark.parametrize(
    ("limit", "levels"), [(0, ACRS), (1, ACRS[ACRS.index(TWO_KEYS) :]), (2, ACRS[ACRS.index(PERSON) :]), (3, ())]
)
@pytest.mark.parametrize("acr", ["", "urn:somebody:else", KEY, TWO_KEYS, PERSON])
def test_a_step_up_accepts_the_required_authentication_level_or_a_stronger_level(
    acr: str, limit: int, levels: tuple[str, ...]
) -> None:
    decision = call(proved(acr), restrictions=held("step_up", limit))
    assert decision.allowed is (acr in levels)
    if not decision.allowed:
        [reason] = decision.reasons
        assert (reason.code, reason.acr_values, reason.max_age) == (INSUFFICIENT, " ".join(levels), 40)


@pytest.mark.parametrize(("off", "is_new"), [(-1, False), (0, True), (1, True), (None, False)])
def test_a_step_up_requires_an_authentication_since_the_start_of_the_restriction(off: int | None, is_new: bool) -> None:
    at = None if off is None else SINCE // SECOND + off
    assert call(proved(at=at), restrictions=held("step_up")).allowed is is_new


def test_a_throttle_does_not_change_the_decision_of_a_call() -> None:
    assert call(restrictions=held("throttle", 0)).allowed

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
def test_who_is_narrowed_may_call_what_reads_and_nothing_else_in_any_mode(at: Any) -> None:
    assert call(at=at, restrictions=held("narrow")).allowed
    assert pay(at=at).allowed
    denied = pay(at=at, restrictions=held("narrow"))
    assert (codes(denied), denied.allowed) == (["narrowed"], False)
    unknown = call(at=at, tool="of tomorrow", restrictions=held("narrow"))
    assert (codes(unknown), unknown.allowed) == (["narrowed"], False), "what nobody describes may do anything"


@pytest.mark.parametrize(("until", "is_held"), [(NOW - 1, False), (NOW, False), (NOW + 1, True)])
def test_a_hold_is_over_at_its_end(until: int, is_held: bool) -> None:
    assert pay(restrictions=held("narrow", until=until)).allowed is not is_held


def test_one_that_is_over_does_not_hide_one_that_is_not() -> None:
    both = {AGENT: (Restriction("step_up", 2, SINCE, NOW), Restriction("narrow", 0, SINCE, UNTIL))}
    assert codes(pay(restrictions=both)) == ["narrowed"]
    assert call(restrictions=both).allowed


def test_it_holds_for_what_comes_through_the_agent_and_for_nobody_else() -> None:
    through = chained(link(PARENT))
    assert codes(pay(who=through, restrictions=held("narrow", agent=PARENT))) == ["narrowed"]
    assert pay(restrictions=held("narrow", agent=PARENT)).allowed


@pytest.mark.parametrize(
    ("limit", "levels"), [(0, ACRS), (1, ACRS[ACRS.index(TWO_KEYS) :]), (2, ACRS[ACRS.index(PERSON) :]), (3, ())]
)
@pytest.mark.parametrize("acr", ["", "urn:somebody:else", KEY, TWO_KEYS, PERSON])
def test_a_step_up_takes_that_level_or_a_stronger_one(acr: str, limit: int, levels: tuple[str, ...]) -> None:
    decision = call(proved(acr), restrictions=held("step_up", limit))
    assert decision.allowed is (acr in levels)
    if not decision.allowed:
        [reason] = decision.reasons
        assert (reason.code, reason.acr_values, reason.max_age) == (INSUFFICIENT, " ".join(levels), 40)


@pytest.mark.parametrize(("off", "is_new"), [(-1, False), (0, True), (1, True), (None, False)])
def test_a_step_up_takes_a_proof_since_then(off: int | None, is_new: bool) -> None:
    at = None if off is None else SINCE // SECOND + off
    assert call(proved(at=at), restrictions=held("step_up")).allowed is is_new


def test_a_throttle_is_for_who_counts_calls() -> None:
    assert call(restrictions=held("throttle", 0)).allowed

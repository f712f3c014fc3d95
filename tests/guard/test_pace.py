"""How many calls of a throttled agent a guard lets through in a minute, and that nothing else counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ostiary.core.access.holds import MINUTE
from ostiary.core.cedar import ir
from ostiary.core.claims import Actor, Link
from ostiary.core.feed import HoldFact, PolicyFact, ResourceFact
from ostiary.guard import Guard
from tests.clock import Clock
from tests.guard.feeder import AGENT, RESOURCE_ID, TOOLS, URI, Feeder
from tests.guard.test_guard import enter, records

GIVER = "ag_00000000000000000000000000000002"


@pytest.fixture
def throttle(feeder: Feeder) -> Callable[..., None]:
    """At the beginning of a minute."""
    feeder.clock.advance(us=MINUTE - feeder.clock() % MINUTE)
    feeder.say()

    def say(limit: int, *, agent: str = AGENT, minutes: int = 60) -> None:
        now = feeder.clock()
        feeder.say(HoldFact(agent, "throttle", limit, now, now + minutes * MINUTE))

    return say


def codes(guard: Guard, feeder: Feeder, count: int, *, tool: str = "read_file", **claims: Any) -> list[str]:
    who = enter(guard, feeder, feeder.token(**claims))
    decisions = [guard.decide(who, tool, {"path": "/x"}).decision for _ in range(count)]
    return [one.reasons[0].code if one.reasons else "" for one in decisions]


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_so_many_calls_are_let_through_in_a_minute_and_the_others_are_on_record(
    guard: Guard, feeder: Feeder, throttle: Callable[..., None], limit: int
) -> None:
    throttle(limit)
    assert codes(guard, feeder, 3) == [""] * limit + ["throttled"] * (3 - limit)
    assert [one["outcome"] for one in records(guard)] == ["allow"] * limit + ["deny"] * (3 - limit)
    feeder.clock.advance(us=MINUTE - 1)
    feeder.say()
    assert codes(guard, feeder, 1) == ["throttled"]
    feeder.clock.advance(us=1)
    assert codes(guard, feeder, 3) == [""] * limit + ["throttled"] * (3 - limit)


def test_what_is_denied_for_another_reason_does_not_count(
    guard: Guard, feeder: Feeder, throttle: Callable[..., None]
) -> None:
    throttle(1)
    assert codes(guard, feeder, 3, tool="write_file") == ["outside_task"] * 3
    assert codes(guard, feeder, 2) == ["", "throttled"]


def test_calls_of_others_do_not_count_and_those_that_come_through_it_do(
    guard: Guard, feeder: Feeder, throttle: Callable[..., None]
) -> None:
    throttle(1, agent=GIVER)
    assert codes(guard, feeder, 3) == [""] * 3
    through: dict[str, Any] = {"act": Actor(AGENT), "sub": GIVER, "chain": [Link(GIVER, 0, "tk_9")], "jti": "tok_2"}
    assert codes(guard, feeder, 2, **through) == ["", "throttled"]


def test_one_that_is_let_go_goes_on_at_once(guard: Guard, feeder: Feeder, throttle: Callable[..., None]) -> None:
    throttle(1)
    assert codes(guard, feeder, 2) == ["", "throttled"]
    throttle(1, minutes=0)
    assert codes(guard, feeder, 3) == [""] * 3


def test_it_is_enforced_in_mode_watch_too(guard: Guard, feeder: Feeder, throttle: Callable[..., None]) -> None:
    feeder.say(
        ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="watch", segment="default", catalogue=TOOLS),
        PolicyFact("nothing is permitted", ir.render(ir.PolicySetIR(())).decode()),
    )
    throttle(1)
    assert codes(guard, feeder, 2) == ["no_permit", "throttled"]
    assert [one["outcome"] for one in records(guard)] == ["allow", "deny"]


def test_many_threads_let_no_call_more_through(
    guard: Guard, feeder: Feeder, throttle: Callable[..., None], clock: Clock
) -> None:
    throttle(10)
    who = enter(guard, feeder)
    with ThreadPoolExecutor(8) as threads:
        calls = list(threads.map(lambda _: guard.decide(who, "read_file", {"path": "/x"}), range(50)))
    assert sum(one.decision.allowed for one in calls) == 10

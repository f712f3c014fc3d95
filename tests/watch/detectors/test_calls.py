"""Calls of tools and their order: decoys, new tools, unusual sequences, and gaps in the reports of guards."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from ostiary.provenance.noticing import Event
from ostiaryd.watch.detectors import canary, first_seen, guard_gap, transition
from ostiaryd.watch.model.batch import word
from tests.watch.detectors.days import Held, event

MINUTE, HOUR, DAY = 60, 3600, 86_400


@pytest.mark.parametrize("outcome", ["allow", "deny"])
def test_an_allowed_or_denied_call_of_a_decoy_by_an_agent_is_a_finding(outcome: str) -> None:
    [(_, found)] = Held(canary).see([event(0, canary=True, tool="vault/keys", outcome=outcome), event(1)])
    assert (found.score, found.says) == (2 * canary.THRESHOLD, "called vault/keys, which is a decoy")
    assert not Held(canary).would_find([event(0, 0, canary=True)]), "nobody's call is nobody's finding"


def grown(*, before: float = DAY) -> Held:
    """Return a detector whose four peers have called one tool, `before` seconds ago."""
    held = Held(first_seen)
    held.see(event(n - before, agent, tool="files/read") for n in range(60) for agent in range(1, 5))
    return held


def new(tool: str, effect: str, at: float = HOUR, agent: int = 1, **fields: object) -> Event:
    return event(at, agent, tool=tool, effect=effect, **fields)


def known_elsewhere(held: Held, *tools: str) -> Held:
    """Mark the tools as used by an agent that is not a peer."""
    for tool in tools:
        held.kept.all["users"][0][_slot(tool)] = 1
    return held


def _slot(tool: str) -> int:
    return word(tool) % first_seen.ALL_SLOTS


@pytest.mark.parametrize(
    ("effects", "is_found"),
    [
        (["pay"], True),
        (["destroy"], True),
        (["send"], True),
        (["write"], False),
        (["write", "write"], True),
        (["read", "read"], False),
        (["read", "read", "read"], True),
    ],
)
def test_fewer_new_tools_are_a_finding_if_their_effects_are_stronger(effects: list[str], is_found: bool) -> None:
    tools = [f"bank/tool{number}" for number in range(len(effects))]
    held = known_elsewhere(grown(), *tools)
    acts = [new(tool, effect, HOUR + at) for at, (tool, effect) in enumerate(zip(tools, effects, strict=True))]
    assert held.would_find(acts) is is_found
    assert held.would_find(acts[:1] * 5) is (is_found and len(acts) == 1), "a tool is new once"


def test_a_tool_that_was_new_more_than_an_hour_ago_counts_little() -> None:
    held = known_elsewhere(grown(), "bank/a", "bank/b")
    assert held.would_find([new("bank/a", "write"), new("bank/b", "write", 1.9 * HOUR)])
    assert not held.would_find([new("bank/a", "write"), new("bank/b", "write", 2.1 * HOUR)])


@pytest.mark.parametrize(("users", "is_found"), [(0, True), (1, False), (2, False)])
def test_a_new_tool_that_a_peer_uses_is_not_a_finding(users: int, is_found: bool) -> None:
    held = known_elsewhere(grown(), "bank/pay")
    for peer in range(2, 2 + users):
        held.see([new("bank/pay", "pay", 2000, peer)])
    assert held.would_find([new("bank/pay", "pay")]) is is_found


def test_a_new_tool_that_no_agent_used_before_is_not_a_finding() -> None:
    assert not grown().would_find([new("bank/pay", "pay")])


def test_a_new_tool_of_a_new_agent_is_not_a_finding() -> None:
    held = known_elsewhere(grown(), "bank/pay")
    assert not held.would_find([new("bank/pay", "pay", agent=9)])
    held.see(event(2000 + n, 9) for n in range(50))
    assert held.would_find([new("bank/pay", "pay", agent=9)])


@pytest.mark.parametrize(("before", "is_found"), [(DAY - HOUR - 1, False), (DAY - HOUR, True)])
def test_a_new_tool_is_not_a_finding_without_a_day_of_history(before: float, is_found: bool) -> None:
    held = known_elsewhere(grown(before=before), "bank/pay")
    assert held.would_find([new("bank/pay", "pay")]) is is_found


@pytest.mark.parametrize(("calls", "is_found"), [(first_seen.GROWN - 1, False), (first_seen.GROWN, True)])
def test_a_new_tool_is_not_a_finding_without_enough_earlier_calls(calls: int, is_found: bool) -> None:
    held = known_elsewhere(Held(first_seen), *(f"bank/pay{number}" for number in range(9)))
    held.see([event(n - DAY, 1, tool="files/read") for n in range(calls)])
    acts = [new(f"bank/pay{number}", "pay", agent=1) for number in range(9)]
    assert held.would_find(acts[:1]) is is_found


def test_an_agent_that_uses_many_tools_on_a_new_server_is_not_noticed() -> None:
    held = Held(first_seen)
    assert not held.would_find([event(n, 1 + n % 2, tool=f"files/t{n}", effect="destroy") for n in range(500)])


def test_a_tool_that_was_used_before_a_day_of_history_is_known() -> None:
    held = known_elsewhere(grown(before=HOUR), "bank/pay")
    held.see([new("bank/pay", "pay", 0)])
    assert not held.would_find([new("bank/pay", "pay", 2 * DAY)])


def test_a_tool_whose_call_was_denied_does_not_count_as_used() -> None:
    held = known_elsewhere(grown(), "bank/pay")
    assert not held.would_find([new("bank/pay", "pay", outcome="deny")])
    held.see([new("bank/pay", "pay", outcome="deny")])
    assert held.would_find([new("bank/pay", "pay", HOUR + 1)])


TOOLS = [f"files/t{number}" for number in range(6)]


def rounds(day: int, agent: int, dice: Random, *, sessions: int = 12) -> Iterator[Event]:
    """Sessions in which each tool is followed by the next, nearly always."""
    for session in range(sessions):
        at, step = day * DAY + (8 + session) * HOUR + agent, 0
        for call in range(10):
            yield event(at + call, agent, tool=TOOLS[step], task=f"tk_{agent}_{day}_{session}")
            step = (step + (1 if dice.random() < 0.97 else 2)) % len(TOOLS)


@pytest.fixture(scope="module")
def orderly() -> Held:
    held, dice = Held(transition), Random(1)
    for day in range(5):
        assert held.see(one for agent in range(1, 7) for one in rounds(day, agent, dice)) == []
    return held


def backwards(count: int, at: float, *, agent: int = 1, tasks: int = 1) -> list[Event]:
    return [event(at + n, agent, tool=TOOLS[-n % len(TOOLS)], task=f"tk_x{n % tasks}") for n in range(count)]


def test_the_usual_tools_in_reverse_order_are_noticed(orderly: Held) -> None:
    assert not orderly.would_find(backwards(3, 5 * DAY + 9 * HOUR)), "a step or two are nothing"
    assert orderly.would_find(backwards(8, 5 * DAY + 9 * HOUR))
    assert orderly.would_find(backwards(12, 5 * DAY + 9 * HOUR, agent=9)), "of a new agent peers say what is usual"


def test_the_order_of_tools_is_judged_within_each_task(orderly: Held) -> None:
    """Two tasks at once, each in the usual order."""
    acts = [
        event(5 * DAY + 9 * HOUR + 4 * n + task, tool=TOOLS[(n + task) % 6], task=f"tk_y{task}")
        for n in range(20)
        for task in range(2)
    ]
    assert not orderly.would_find(acts)


def test_an_agent_that_repeats_an_odd_order_does_not_make_the_order_usual_for_peers(orderly: Held) -> None:
    """An unusual order that an agent repeats all day does not become usual for its peers."""
    held = orderly.copy()
    held.see(backwards(20_000, 5 * DAY + 8 * HOUR))
    assert held.kept.agents["tools"].max() <= transition.FULL
    assert held.would_find(backwards(12, 6 * DAY + 9 * HOUR, agent=2))


def test_the_usual_surprise_of_an_agent_rises_by_at_most_one_bit(orderly: Held) -> None:
    held, dice = orderly.copy(), Random(2)
    for day in range(5, 35):
        for one in (1, 2):
            held.see(
                event(day * DAY + (8 + n % 12) * HOUR + n, one, tool=dice.choice(TOOLS), task=f"tk_{day}_{n % 12}")
                for n in range(120)
            )
    state = held.kept.agents[1]
    usual = transition._usual(held.kept, np.array([1]), np.array([1]))
    assert usual[0] <= state["start"] + 1
    assert state["bits"][0] / state["n"][0] > state["start"] + 1, "what it did was odder than that"


def test_the_first_calls_of_a_day_count_the_same_in_one_batch_as_one_by_one(orderly: Held) -> None:
    """The state is the same for one batch and for several."""
    first = [event(5 * DAY + 9 * HOUR + n, task=f"tk_z{n}") for n in range(3)]
    at_once, one_by_one = orderly.copy(), orderly.copy()
    at_once.see(first)
    for one in first:
        one_by_one.see([one])
    for held in (at_once, one_by_one):
        assert held.kept.agents[1]["n"][0] > 0
    assert at_once.kept.agents[1].tobytes() == one_by_one.kept.agents[1].tobytes()


GAP = {"action": "report.gap", "outcome": "error", "tool": "", "task": ""}


def told(*by: int, gap_at: int) -> list[Event]:
    """Return calls of the agents `by` at one guard, with a gap before the call number `gap_at`."""
    calls = [event(at, agent, reporter="guard") for at, agent in enumerate(by)]
    return [*calls[:gap_at], event(gap_at - 0.5, 0, reporter="guard", **GAP), *calls[gap_at:]]


def test_a_gap_in_the_reports_of_a_guard_of_one_agent_is_a_finding_about_that_agent() -> None:
    [(one, found)] = Held(guard_gap).see(told(1, 1, 1, 1, gap_at=2))
    assert (one.agent, found.points, found.entries) == ("ag_1", 50, (2,))
    assert found.score >= 2 * guard_gap.THRESHOLD


def test_a_gap_in_the_reports_of_a_guard_of_several_agents_is_a_weak_finding() -> None:
    [(one, found)] = Held(guard_gap).see(told(1, 2, 3, 2, gap_at=2))
    assert (one.agent, found.points) == ("ag_3", 15)
    assert found.score < 2 * guard_gap.THRESHOLD


def test_a_gap_is_a_finding_once_and_only_about_an_agent_of_the_same_guard() -> None:
    assert not Held(guard_gap).would_find(event(at, 1, reporter="guard") for at in range(9))
    other = [event(5, 0, reporter="other", **GAP), event(6, 1, reporter="guard"), event(7, 2, reporter="other")]
    held = Held(guard_gap)
    assert [(one.agent, found.points) for one, found in held.see(other)] == [("ag_2", 15)]
    assert not held.would_find([event(8, 2, reporter="other")]), "it is told once"


def test_a_gap_is_remembered_until_the_guard_reports_a_call_of_an_agent() -> None:
    held = Held(guard_gap)
    assert held.see([event(0, 1, reporter="guard"), event(1, 0, reporter="guard", **GAP)]) == []
    [(_, found)] = held.see([event(9 * HOUR, 1, reporter="guard")])
    assert found.points == 50

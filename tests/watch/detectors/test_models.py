"""Comparison with peers, and the half-space detector: agents and hours that differ from the usual ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from ostiary.provenance.noticing import Event
from ostiaryd.watch.detectors import half_space, peer_outlier
from tests.watch.detectors.days import Held, event

HOUR, DAY = 3600, 86_400


def work(
    day: int, agent: int, *, size: int = 1000, effects: tuple[str, ...] = ("read",) * 9 + ("write",)
) -> Iterator[Event]:
    """Twenty calls in each of six hours."""
    dice = Random(f"{day}/{agent}")
    for hour in range(8, 14):
        for call in range(20):
            effect = effects[call % len(effects)]
            yield event(
                day * DAY + hour * HOUR + agent + call,
                agent,
                tool=f"files/{effect}",
                effect=effect,
                bytes=round(size * dice.uniform(0.5, 2)),
            )


def kind(agents: int, days: int = 4) -> Held:
    held = Held(peer_outlier)
    for day in range(days):
        assert held.see(one for agent in range(1, agents + 1) for one in work(day, agent)) == []
    return held


@pytest.fixture(scope="module")
def alike() -> Held:
    return kind(8)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"size": 16_000}, "larger answers"),
        ({"effects": ("read", "read", "destroy")}, "more calls that destroy, pay or administer"),
        ({"effects": ("read", "read", "send")}, "more calls that send or share"),
        ({"effects": ("read", "write", "write")}, "more calls that write or change"),
        ({"size": 2000}, None),
        ({}, None),
    ],
    ids=["answers", "destroys", "sends", "writes", "a little", "alike"],
)
def test_a_new_agent_that_differs_from_its_peers_is_noticed_once_a_day(
    alike: Held, how: dict, says: str | None
) -> None:
    held = alike.copy()
    found = held.see(one for day in (4, 5) for one in work(day, 9, **how))
    assert [one.says for _, one in found][:1] == ([] if says is None else [f"{says} than all agents of its kind"])
    hours = [one.at // (HOUR * 1_000_000) for one, _ in found]
    assert all(b - a >= peer_outlier.AGAIN for a, b in pairwise(hours)), "once a day"


@pytest.mark.parametrize(("agents", "is_found"), [(5, False), (6, True)])
def test_an_agent_is_compared_with_at_least_five_peers(agents: int, is_found: bool) -> None:
    """The number includes the unusual agent. A smaller group is not compared."""
    held = kind(agents - 1)
    assert held.would_find(one for day in (4, 5) for one in work(day, 9, size=64_000)) is is_found


def test_an_agent_with_few_calls_is_not_compared_with_its_peers(alike: Held) -> None:
    few = list(work(4, 9, size=64_000))
    assert not alike.would_find([*few[:39], event(4 * DAY + 15 * HOUR, 9)])
    assert alike.would_find([*few[:60], event(4 * DAY + 15 * HOUR, 9)])


def test_an_unusual_agent_does_not_make_its_behaviour_usual(alike: Held) -> None:
    """The unusual agent also sends many calls."""
    held = alike.copy()
    for day in range(4, 8):
        held.see(one for agent in range(1, 9) for one in work(day, agent, size=500_000 if agent == 8 else 1000))
        held.see(event(day * DAY + 16 * HOUR + n / 100, 8, tool="files/read", bytes=1 << 20) for n in range(500))
    assert held.would_find(one for day in (8, 9) for one in work(day, 9, size=64_000))


def shift(day: int, agent: int, hours: range = range(8, 16), *, more: float = 1.0, seed: int = 0) -> Iterator[Event]:
    """Twelve calls or so in each of these hours."""
    dice = Random(f"{day}/{agent}/{seed}")
    for hour in hours:
        for call in range(round(dice.uniform(9, 15))):
            effect = "read" if dice.random() < 0.8 else "write"
            yield event(
                day * DAY + hour * HOUR + agent + 20 * call,
                agent,
                tool=f"files/{effect}",
                effect=effect,
                bytes=round(more * 1000 * dice.lognormvariate(0, 0.5)),
            )


@pytest.fixture(scope="module")
def staff() -> Held:
    """Fifteen agents on twenty-four days."""
    held = Held(half_space)
    found = [one for day in range(24) for one in held.see(e for agent in range(1, 16) for e in shift(day, agent))]
    assert len(found) <= 3
    return held


def test_night_work_with_larger_answers_is_unusual(staff: Held) -> None:
    assert not staff.would_find(shift(24, 1))
    found = staff.copy().see(shift(24, 1, range(20, 24), more=3.0))
    assert found
    assert "at an hour at which the agent works on 0 % of its days" in found[0][1].says


def test_a_new_agent_is_not_judged_by_the_half_space_detector(staff: Held) -> None:
    held = staff.copy()
    held.kept.agents[1] = np.zeros((), half_space.AGENT)
    assert not held.would_find(shift(24, 1, range(20, 24), more=3.0))


def test_the_half_space_detector_finds_no_anomaly_before_enough_days_are_learned(staff: Held) -> None:
    held = staff.copy()
    held.kept.all["days"] = half_space.DAYS_LEARNED - 1
    held.kept.all["day"] = 24
    assert not held.would_find(shift(24, 1, range(20, 24), more=3.0))
    held.kept.all["days"] = half_space.DAYS_LEARNED
    assert held.would_find(shift(24, 1, range(20, 24), more=3.0))


def test_an_agent_adds_at_most_one_learned_point_in_ten_minutes(staff: Held) -> None:
    held = staff.copy()
    held.see(event(24 * DAY + 9 * HOUR + n / 10, 1) for n in range(5000))
    assert float(held.kept.all["points"][0, 1, 0]) == 1


def test_the_trees_of_the_half_space_detector_are_fixed() -> None:
    which, where = half_space._grown()
    assert (which == half_space.WHICH).all()
    assert (where == half_space.WHERE).all()
    points = np.array([[0.1, 0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.5, 0.5, 0.5]])
    assert half_space._leaves(points)[:, :6].tolist() == [[37, 49, 28, 21, 33, 44], [37, 50, 50, 38, 33, 53]]

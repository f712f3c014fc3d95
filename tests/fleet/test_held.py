"""A small run of the benchmark: a fleet with all detectors, its found attacks and its false alarms."""

from __future__ import annotations

import pytest

from benchmarks.fleet.__main__ import main, worth
from benchmarks.fleet.attacks import ATTACKS, Planted, plant
from benchmarks.fleet.figures import Row, false_alarms, figures
from benchmarks.fleet.held import Held, hold
from benchmarks.fleet.plan import DAY, FIRST_DAY, draw
from benchmarks.fleet.stream import stream
from ostiary.provenance.noticing import Event
from ostiaryd.watch.model import Sighting
from ostiaryd.watch.model.detector import detectors

AGENTS, DAYS = 64, 10
FOUND_BY = {
    "scrape": "rate_volume",
    "haul": "rate_volume",
    "probe": "denied_burst",
    "twin": "key_in_two_places",
    "travel": "impossible_travel",
    "novelty": "first_seen",
    "storm": "delegation_storm",
    "gap": "guard_gap",
    "canary": "canary",
    "order": "transition",
    "listed": "threat_list",
    "flood": "flood",
}
"""Each kind of attack that is found in a fleet of this size, with the detector that is there for it."""
MISSED = {"misfit", "night"}
"""Kinds of attack that are not always found in a fleet of this size."""


def held_of(seed: int) -> tuple[Held, list[Planted]]:
    fleet = draw(seed, agents=AGENTS, kinds=4, days=DAYS)
    planted = plant(fleet, days=DAYS, each=1)
    return hold(fleet, stream(fleet, days=DAYS, planted=planted), detectors(), budget=0.02), planted


@pytest.fixture(scope="module")
def one() -> tuple[Held, list[Planted]]:
    return held_of(3)


def test_most_kinds_of_attack_are_found_and_honest_agents_are_left_alone(one: tuple[Held, list[Planted]]) -> None:
    found = figures(*one)
    assert {row.kind for row in found.rows} == ATTACKS.keys() == FOUND_BY.keys() | MISSED
    seen = {row.kind for row in found.rows if row.found}
    assert seen >= FOUND_BY.keys()
    assert found.rate <= 0.05
    assert sum(blame.alarms for blame in found.blames) == len(false_alarms(*one))


def test_each_kind_of_attack_is_found_by_its_own_detector(one: tuple[Held, list[Planted]]) -> None:
    by = {row.kind: row.by for row in figures(*one).rows}
    for kind, detector in FOUND_BY.items():
        assert detector in by[kind]


def test_an_attack_is_missed_without_its_detector_and_the_row_states_it(one: tuple[Held, list[Planted]]) -> None:
    whole, less = figures(*one), figures(*one, without="canary")
    assert worth(whole, less) == "canary 1 -> 0"
    assert worth(whole, whole) == "nothing"


def test_findings_do_not_depend_on_the_division_of_acts_into_batches(one: tuple[Held, list[Planted]]) -> None:
    fleet = draw(5, agents=24, kinds=4, days=5)
    planted = plant(fleet, days=5, each=1)
    told = [
        hold(fleet, stream(fleet, days=5, planted=planted), detectors(), budget=0.02, batch=size).alarms
        for size in (100_000, 301)
    ]
    assert told[0]
    assert told[0] == told[1]


def test_alarms_count_as_found_false_or_neither_by_agent_and_time() -> None:
    fleet = draw(1, agents=24, kinds=4, days=6)
    agent, other = fleet.agents[0], fleet.agents[1]
    planted = [Planted("canary", agent, 4, FIRST_DAY + 4 * DAY)]

    def alarm(who: str, at: int, number: int) -> Sighting:
        return Sighting(number, at, "canary", who, "", "", 80, 2.0, "", ())

    held = Held(seconds={"canary": 0.0})
    held.at_work = [frozenset({agent.id, other.id})] * 6
    held.harm[0] = [Event(at=planted[0].at + n, action="tool.call", outcome="allow", number=10 + n) for n in range(3)]
    held.alarms = [
        alarm(other.id, FIRST_DAY + 2 * DAY, 1),  # while the fleet is new
        alarm(other.id, FIRST_DAY + 3 * DAY, 2),  # wrong
        alarm(agent.id, planted[0].at - 1, 3),  # wrong: before
        alarm(agent.id, planted[0].at + 1, 11),  # found, after two acts
        alarm(agent.id, planted[0].at + 2 * DAY, 99),  # neither
    ]
    found = figures(held, planted)
    [row] = [row for row in found.rows if row.kind == "canary"]
    assert row == Row("canary", 1, 1, 2, 1 / 60e6, ("canary",))
    assert [one.number for one in false_alarms(held, planted)] == [2, 3]
    assert found.rate == 2 / 4, "of the other on three days and of this one on the one before"


def test_the_command_prints_a_row_for_each_detector_and_attack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agents", "24", "--days", "4", "--each", "1", "--only", "canary"]) == 0
    out = capsys.readouterr().out
    assert "canary          1/1      1      0.0  canary" in out
    assert "canary               canary 1 -> 0" in out

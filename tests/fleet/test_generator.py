"""The generator: a seed determines all acts, honest changes are unlabelled, and attacks match their kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from itertools import pairwise

import msgspec
import pytest

from benchmarks.fleet.attacks import ATTACKS, DECOY, Planted, plant
from benchmarks.fleet.change import changes, kind_on
from benchmarks.fleet.plan import DAY, FIRST_DAY, Fleet, draw
from benchmarks.fleet.stream import Labelled, stream
from ostiary.provenance.noticing import Event
from ostiaryd.watch.wire_threats import DEFAULT_POINTS

DAYS = 6


def acts(seed: int, *, each: int = 1) -> tuple[Fleet, list[Planted], list[Labelled]]:
    fleet = draw(seed, agents=24, kinds=4, days=DAYS)
    planted = plant(fleet, days=DAYS, each=each)
    return fleet, planted, [act for day in stream(fleet, days=DAYS, planted=planted) for act in day]


@pytest.fixture(scope="module")
def made() -> tuple[Fleet, list[Planted], list[Labelled]]:
    return acts(7)


def test_the_seed_determines_all_acts_of_a_fleet(made: tuple[Fleet, list[Planted], list[Labelled]]) -> None:
    def digest(found: list[Labelled]) -> str:
        return sha256(msgspec.json.encode([(one.event, one.attack) for one in found])).hexdigest()

    assert digest(acts(7)[2]) == digest(made[2])
    assert digest(acts(8)[2]) != digest(made[2])


def test_acts_are_numbered_and_in_order_of_time(made: tuple[Fleet, list[Planted], list[Labelled]]) -> None:
    events = [one.event for one in made[2]]
    assert [event.number for event in events] == list(range(len(events)))
    assert all(one.at <= other.at for one, other in pairwise(events))


def test_each_kind_of_attack_occurs_at_its_planted_agent_and_day(
    made: tuple[Fleet, list[Planted], list[Labelled]],
) -> None:
    _, planted, found = made
    assert Counter(one.kind for one in planted) == dict.fromkeys(ATTACKS, 1)
    assert len({one.agent.id for one in planted}) == len(planted)
    harm = defaultdict[str, list[Event]](list)
    for one in found:
        if one.attack >= 0:
            harm[planted[one.attack].kind].append(one.event)
            assert one.event.agent in (planted[one.attack].agent.id, "")
    assert harm.keys() == ATTACKS.keys()
    assert {event.tool.partition("/")[2] for event in harm["canary"]} == {DECOY}
    assert {event.outcome for event in harm["probe"] if event.tool} == {"deny"}
    assert {event.action for event in harm["gap"]} == {"report.gap"}
    assert {event.threat for event in harm["listed"]} == {("of a provider", DEFAULT_POINTS)}
    assert Counter(event.action for event in harm["flood"])["telemetry.flood"] == 2, "one in five minutes"
    honest = [one.event for one in found if one.attack < 0]
    assert any(event.action == "telemetry.tool" for event in honest)
    assert not [event for event in honest if event.action == "telemetry.flood" or event.threat], "none by itself"
    for attack in planted:
        days = {(event.at - FIRST_DAY) // DAY for event in harm[attack.kind]}
        assert days <= {attack.day, attack.day + 1} or attack.kind == "misfit"


def test_an_agent_does_not_act_before_its_first_day(made: tuple[Fleet, list[Planted], list[Labelled]]) -> None:
    fleet, _, found = made
    born = {agent.id: FIRST_DAY + agent.born * DAY for agent in fleet.agents}
    assert any(agent.born for agent in fleet.agents)
    assert all(one.event.at >= born[one.event.agent] for one in found if one.event.agent)


def test_models_tools_and_networks_of_a_fleet_change_without_attacks() -> None:
    fleet = draw(7, agents=24, kinds=8, days=DAYS)
    plan = changes(fleet, DAYS)
    first, last = ([kind_on(fleet, plan, number, day) for number in range(8)] for day in (0, DAYS - 1))
    assert any(one.model != other.model for one, other in zip(first, last, strict=True))
    assert any(len(one.tools) < len(other.tools) for one, other in zip(first, last, strict=True))
    assert any(one.networks != other.networks for one, other in zip(first, last, strict=True))


def test_all_honest_calls_to_one_resource_are_denied_for_an_hour(
    made: tuple[Fleet, list[Planted], list[Labelled]],
) -> None:
    fleet, _, found = made
    day, hour, resource = changes(fleet, DAYS).outage
    start = FIRST_DAY + day * DAY + hour * 3_600_000_000
    during = [
        one.event
        for one in found
        if one.attack < 0 and one.event.resource == resource and start <= one.event.at < start + 3_600_000_000
    ]
    assert during
    assert {event.outcome for event in during} == {"deny"}

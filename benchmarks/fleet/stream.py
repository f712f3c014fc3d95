"""All acts of a fleet in order, and which attack each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from msgspec.structs import replace as with_

from benchmarks.fleet.attacks import ATTACKS, Planted, Scene
from benchmarks.fleet.change import Changes, agent_on, changes, kind_on
from benchmarks.fleet.plan import DAY, FIRST_DAY, HOUR, Fleet
from benchmarks.fleet.work import Hands, day_of, telling
from ostiary.provenance.noticing import Event


@dataclass(frozen=True, slots=True)
class Labelled:
    """`attack`: which of those planted it belongs to, -1 for honest work."""

    event: Event
    attack: int


def stream(fleet: Fleet, *, days: int, planted: list[Planted]) -> Iterator[list[Labelled]]:
    """Day by day."""
    plan = changes(fleet, days)
    number, late = 0, list[Labelled]()
    for day in range(days):
        end = FIRST_DAY + (day + 1) * DAY
        acts = [*late, *_acts(fleet, plan, day, planted)]
        late = [act for act in acts if act.event.at >= end and day < days - 1]
        today = sorted((act for act in acts if act.event.at < end or day == days - 1), key=_place)
        yield [
            Labelled(
                with_(
                    act.event,
                    number=at,
                    place=fleet.places.get(act.event.network),
                    threat=fleet.threats.get(act.event.network),
                ),
                act.attack,
            )
            for at, act in enumerate(today, number)
        ]
        number += len(today)


def _place(act: Labelled) -> tuple[int, str, str]:
    return act.event.at, act.event.agent, act.event.task


def _acts(fleet: Fleet, plan: Changes, day: int, planted: list[Planted]) -> Iterator[Labelled]:
    mine = {one.agent.id: number for number, one in enumerate(planted)}
    kinds = [kind_on(fleet, plan, number, day) for number in range(len(fleet.kinds))]
    for agent in fleet.agents:
        if day < agent.born:
            continue
        now, dice = agent_on(fleet, plan, agent, day), Random(f"{fleet.seed}/{agent.id}/{day}")
        honest = day_of(now, kinds[agent.kind], day, dice)
        number = mine.get(agent.id, -1)
        if number >= 0 and _is_on(planted[number], day):
            scene = Scene(fleet, replace(planted[number], agent=now), Hands(now, kinds[agent.kind], dice), honest)
            ATTACKS[planted[number].kind](scene)
            yield from (Labelled(event, number) for event in scene.hands.events)
        if agent.kind % 2:
            honest += telling(now, kinds[agent.kind], honest, is_late=plan.busy[agent.kind] == day)
        yield from (Labelled(_in_outage(event, plan, day), -1) for event in honest)


def _is_on(planted: Planted, day: int) -> bool:
    return planted.kind == "misfit" or planted.day == day


def _in_outage(event: Event, plan: Changes, day: int) -> Event:
    """For one hour a resource denies everybody."""
    outage, hour, resource = plan.outage
    start = FIRST_DAY + outage * DAY + hour * HOUR
    if outage != day or event.resource != resource or not start <= event.at < start + HOUR:
        return event
    return with_(event, outcome="deny", reasons=("forbidden",), bytes=0, records=0)

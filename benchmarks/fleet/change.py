"""How a fleet changes for honest reasons: none of this is an attack, and a detector that says so is wrong.

Everything grows a little day by day; a kind gets another model or one tool more, or moves to another network; one day
is busier than others; for an hour all calls at one resource are denied, because a policy was mistyped; keys rotate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from benchmarks.fleet.plan import Agent, Fleet, Kind, Tool, moved


@dataclass(frozen=True, slots=True)
class Changes:
    """Days by kind (-1: never). `outage`: day, hour and resource."""

    model: tuple[int, ...]
    tool: tuple[int, ...]
    network: tuple[int, ...]
    busy: tuple[int, ...]
    outage: tuple[int, int, str]


def changes(fleet: Fleet, days: int) -> Changes:
    dice = Random(f"{fleet.seed}/changes")
    model, tool, network, busy = (_when(dice, len(fleet.kinds), days) for _ in range(4))
    resource = dice.choice(fleet.kinds[0].tools).resource
    hours = [hour for hour, pace in enumerate(fleet.kinds[0].pace) if pace]
    return Changes(model, tool, network, busy, (dice.randrange(days // 2, days), dice.choice(hours), resource))


def _when(dice: Random, count: int, days: int) -> tuple[int, ...]:
    """A day for half of them."""
    chosen = dice.sample(range(count), (count + 1) // 2)
    return tuple(dice.randrange(1, days) if at in chosen else -1 for at in range(count))


def kind_on(fleet: Fleet, plan: Changes, number: int, day: int) -> Kind:
    """The kind as it is on that day."""
    kind = fleet.kinds[number]
    if 0 <= plan.model[number] <= day:
        dice = Random(f"{fleet.seed}/model/{number}")
        kind = replace(
            kind,
            model=kind.model + "-next",
            calls=kind.calls * dice.uniform(0.75, 1.3),
            steps=tuple(tuple(weight * dice.uniform(0.5, 1.6) for weight in row) for row in kind.steps),
        )
    if 0 <= plan.tool[number] <= day:
        kind = _with_tool(kind, Random(f"{fleet.seed}/tool/{number}"))
    if 0 <= plan.network[number] <= day:
        kind = replace(kind, networks=tuple(moved(one) for one in kind.networks))
    factor = 2.0 if plan.busy[number] == day else 1.0
    return replace(kind, pace=tuple(pace * factor for pace in kind.pace))


def agent_on(fleet: Fleet, plan: Changes, agent: Agent, day: int) -> Agent:
    """It grows by a per cent or so a day; its key is another every nine days."""
    dice = Random(f"{fleet.seed}/{agent.id}")
    rate = agent.rate * (1 + dice.uniform(-0.01, 0.03)) ** day
    networks = agent.networks
    if 0 <= plan.network[agent.kind] <= day:
        networks = tuple(moved(one) for one in networks)
    likes = (*agent.likes, 1.0)  # for one tool more
    turn = (day + dice.randrange(9)) // 9
    return replace(agent, rate=rate, networks=networks, likes=likes, key=f"{agent.key}-{turn}")


def _with_tool(kind: Kind, dice: Random) -> Kind:
    like = dice.choice(kind.tools)
    new = Tool(f"{like.name}_v2", like.effect, like.classes, like.shapes, like.bytes, like.records)
    steps = (*((*row, dice.choice((0.01, 0.3))) for row in kind.steps), kind.steps[kind.tools.index(like)] + (0.1,))
    return replace(kind, tools=(*kind.tools, new), first=(*kind.first, 0.1), steps=steps)

"""Kinds of attack, each planted in the day of one agent; all that it adds is harm.

Whoever holds the agent knows its keys, its tools and its hours, and gets tokens as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from benchmarks.fleet.plan import DAY, FIRST_DAY, HOUR, PLACES, Agent, Fleet, Tool
from benchmarks.fleet.work import MINUTE, SECOND, Hands, session
from ostiary.provenance.noticing import Event
from ostiaryd.ground.http.buckets import Bucket
from ostiaryd.watch.wire_otlp import BURST, PER_SECOND


@dataclass(frozen=True, slots=True)
class Planted:
    """`at`: when it begins."""

    kind: str
    agent: Agent
    day: int
    at: int


@dataclass(slots=True)
class Scene:
    """An attack as it is planted: `hands` writes down what it does, `honest` is the agent's own day."""

    fleet: Fleet
    planted: Planted
    hands: Hands
    honest: list[Event]

    @property
    def task(self) -> str:
        return f"tk_{self.planted.agent.id}_x"

    @property
    def network(self) -> str:
        return self.planted.agent.networks[0]

    def foreign(self, effects: tuple[str, ...]) -> list[Tool]:
        """Tools of other kinds of agents."""
        own = {tool.name for tool in self.hands.kind.tools}
        found = [tool for kind in self.fleet.kinds for tool in kind.tools if tool.effect in effects]
        return [tool for tool in found if tool.name not in own]

    def spare(self, length: int) -> None:
        """Take the agent's own acts out while the attack goes on."""
        start = self.planted.at
        self.honest[:] = [event for event in self.honest if not start - HOUR // 3 <= event.at < start + length]


def scrape(scene: Scene) -> None:
    """Its own tools that read, as fast as they answer, for ten minutes."""
    hands, at = scene.hands, scene.planted.at
    tools = [tool for tool in hands.kind.tools if tool.effect == "read"] or list(hands.kind.tools)
    hands.token(at, scene.task, network=scene.network)
    while at < scene.planted.at + 10 * MINUTE:
        at += int(hands.dice.expovariate(1 / 1.5) * SECOND)
        hands.call(at, hands.dice.choice(tools), scene.task, network=scene.network)


def haul(scene: Scene) -> None:
    """Run a session as always, in which each answer is twenty-five times its usual size."""
    session(scene.hands, scene.planted.at, scene.task, network=scene.network, more=25.0)


def probe(scene: Scene) -> None:
    """Try calls that the agent is not allowed, one after the other."""
    hands, at = scene.hands, scene.planted.at
    hands.token(at, scene.task, network=scene.network)
    for tool in hands.dice.choices(scene.foreign(("read", "write", "destroy", "pay")), k=25):
        at += int(hands.dice.expovariate(1 / 12) * SECOND)
        hands.call(at, tool, scene.task, network=scene.network, outcome="deny", reason="outside_task")


def twin(scene: Scene) -> None:
    """Its key is used on a machine in the same town, while it goes on working itself."""
    home = scene.fleet.places[scene.network]
    network = next(f"203.0.{number}.0/24" for number, place in enumerate(PLACES.values()) if place == home)
    at = scene.planted.at
    for number in range(4):
        session(scene.hands, at + MINUTE, f"{scene.task}{number}", network=network)
        own = Hands(scene.planted.agent, scene.hands.kind, scene.hands.dice)
        at = session(own, at, f"{scene.task}{number}_own")
        scene.honest += own.events


def travel(scene: Scene) -> None:
    """It has come to the other side of the world within twenty minutes."""
    lat, lon = scene.fleet.places[scene.network]
    places = enumerate(PLACES.values())
    far = max(places, key=lambda one: abs(one[1][1] - lon) + abs(one[1][0] - lat))[0]
    scene.spare(3 * HOUR)
    session(scene.hands, scene.planted.at - 25 * MINUTE, f"{scene.task}_own")  # where it was
    scene.honest += scene.hands.events
    scene.hands.events = []
    session(scene.hands, scene.planted.at, scene.task, network=f"203.0.{far}.0/24")


def novelty(scene: Scene) -> None:
    """Tools that it was allowed all along and never used: those that pay, send and destroy."""
    hands, at = scene.hands, scene.planted.at
    hands.token(at, scene.task, network=scene.network)
    for tool in hands.dice.choices(scene.foreign(("send", "destroy", "pay")), k=6):
        at += int(hands.dice.expovariate(1 / 20) * SECOND)
        hands.call(at, tool, scene.task, network=scene.network)


def misfit(scene: Scene) -> None:
    """From its first day on it works unlike all others of its kind: it loads what they look at."""
    agent, kind = scene.planted.agent, scene.hands.kind
    rare = min(range(len(kind.tools)), key=lambda at: sum(row[at] for row in kind.steps))
    odd = replace(
        agent, size=agent.size * 8, likes=tuple(40.0 if at == rare else like for at, like in enumerate(agent.likes))
    )
    hands = Hands(odd, kind, scene.hands.dice)
    tasks = sorted({event.task for event in scene.honest if event.action == "token.issue"})
    starts = {event.task: event.at for event in reversed(scene.honest)}
    scene.honest.clear()
    for task in tasks:
        session(hands, starts[task], task)
    scene.hands.events += hands.events


def storm(scene: Scene) -> None:
    """It hands on forty parts of its task within five minutes."""
    hands, at = scene.hands, scene.planted.at
    hands.token(at, scene.task, network=scene.network)
    for number in range(40):
        at += int(hands.dice.expovariate(1 / 7) * SECOND)
        hands.part(at, f"{scene.task}{number}", network=scene.network)


def gap(scene: Scene) -> None:
    """Leave a gap in the record numbers of a guard in the agent's own process: records of its calls never arrive."""
    at = scene.planted.at
    scene.honest[:] = [event for event in scene.honest if not at <= event.at < at + HOUR // 4]
    before = Hands(scene.planted.agent, scene.hands.kind, scene.hands.dice)
    session(before, at - 2 * MINUTE, f"{scene.task}_own")
    scene.honest += [event for event in before.events if event.at < at]
    guard = scene.planted.agent.guard
    scene.hands.events.append(
        Event(at=at + MINUTE, action="report.gap", outcome="error", reporter=guard, reasons=("missing_records",))
    )


def canary(scene: Scene) -> None:
    """Call a tool that no agent needs."""
    like = scene.hands.kind.tools[0]
    resource = like.name.partition("/")[0]
    decoy = Tool(f"{resource}/{DECOY}", "read", (), like.shapes, 100.0, 1.0, canary=True)
    scene.hands.call(scene.planted.at, decoy, scene.task, network=scene.network)


def order(scene: Scene) -> None:
    """Its own tools, at its own pace, in an order in which it never uses them."""
    hands, at = scene.hands, scene.planted.at
    tools, steps = hands.kind.tools, hands.kind.steps
    hands.token(at, scene.task, network=scene.network)
    step = 0
    for _ in range(20):
        odd = [other for other in range(len(tools)) if steps[step][other] <= 0.03 and other != step]
        step = hands.dice.choice(odd or range(len(tools)))
        at += int(hands.dice.expovariate(1 / 15) * SECOND)
        hands.call(at, tools[step], scene.task, network=scene.network)


def night(scene: Scene) -> None:
    """Work as always, and a little more of all of it, at hours at which it never works."""
    for number in range(6):
        at = scene.planted.at + number * 12 * MINUTE
        session(scene.hands, at, f"{scene.task}{number}", network=scene.network, more=2.5)


def listed(scene: Scene) -> None:
    """Run a session as always, from the same town, but from a network that a threat list has."""
    home = scene.fleet.places[scene.network]
    network = next(one for one in scene.fleet.threats if scene.fleet.places[one] == home)
    scene.spare(2 * HOUR)
    session(scene.hands, scene.planted.at, scene.task, network=network)


def flood(scene: Scene) -> None:
    """It tells of itself without end for ten minutes, as who wants that something else is not seen."""
    at, room = scene.planted.at, Bucket(BURST, PER_SECOND, 0)
    while at < scene.planted.at + 10 * MINUTE:
        at += int(scene.hands.dice.expovariate(10) * SECOND)
        scene.hands.export(at, 200, room)


DECOY = "vault_master_key"
ATTACKS: Mapping[str, Callable[[Scene], None]] = {
    made.__name__: made
    for made in (scrape, haul, probe, twin, travel, novelty, misfit, storm, gap, canary, order, night, listed, flood)
}


def plant(fleet: Fleet, *, days: int, each: int) -> list[Planted]:
    """`each` attacks of each kind, on agents of their own that have worked for half of the time by then."""
    dice = Random(f"{fleet.seed}/attacks")
    old = [agent for agent in fleet.agents if agent.born == 0]
    dice.shuffle(old)
    planted = []
    for kind in ATTACKS:
        for _ in range(each):
            agent = next(one for one in old if _is_fit(kind, one, fleet))
            old.remove(agent)
            day = dice.randrange(days // 2, days)
            pace = fleet.kinds[agent.kind].pace
            hours = [hour for hour in range(3, 21) if bool(pace[hour]) != (kind == "night")]
            at = FIRST_DAY + day * DAY + dice.choice(hours) * HOUR + dice.randrange(HOUR // 2)
            planted.append(Planted(kind, agent, day, at))
    return planted


def _is_fit(kind: str, agent: Agent, fleet: Fleet) -> bool:
    if kind == "night":
        return not all(fleet.kinds[agent.kind].pace)
    return kind != "gap" or agent.guard != ""

"""A day of an agent: sessions, each with a task, a token and calls of its tools one after the other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from benchmarks.fleet.plan import DAY, FIRST_DAY, HOUR, Agent, Kind, Tool
from ostiary.provenance.noticing import Event
from ostiaryd.ground.http.buckets import Bucket
from ostiaryd.watch.model.telemetry import FLOOD
from ostiaryd.watch.wire_otlp import BURST, LEAST, PER_SECOND

SECOND = 1_000_000
MINUTE = 60 * SECOND
SPANS = 5
"""records of telemetry for each act"""


@dataclass(slots=True)
class Hands:
    """How acts of one agent are written down. What an attack changes is an argument."""

    agent: Agent
    kind: Kind
    dice: Random
    events: list[Event] = field(default_factory=list)

    def token(self, at: int, task: str, *, network: str, key: str = "", outcome: str = "ok") -> None:
        self._add(at=at, action="token.issue", outcome=outcome, task=task, network=network, key=key or self.agent.key)

    def part(self, at: int, task: str, *, network: str) -> None:
        self._add(at=at, action="task.start", outcome="ok", task=task, network=network, key=self.agent.key)

    def call(
        self,
        at: int,
        tool: Tool,
        task: str,
        *,
        network: str,
        key: str = "",
        outcome: str = "allow",
        reason: str = "",
        more: float = 1.0,
    ) -> None:
        """`more`: how many times what the tool returns else."""
        size = more * self.agent.size * self.dice.lognormvariate(0, 0.6) if outcome == "allow" else 0.0
        self._add(
            at=at,
            action="tool.call",
            outcome=outcome,
            task=task,
            resource=tool.resource,
            tool=tool.name,
            effect=tool.effect,
            canary=tool.canary,
            classes=tool.classes,
            shape=self.dice.choice(tool.shapes),
            reasons=(reason,) if reason else (),
            bytes=int(tool.bytes * size),
            records=round(tool.records * size),
            key=key or self.agent.key,
            network=network,
            reporter=self.agent.guard or tool.resource,
        )

    def export(self, at: int, records: int, room: Bucket) -> None:
        """Say what it has done itself, where the server takes it: an act; where that is told, a flood."""
        room.fill(at)
        if room.has(LEAST):
            room.take(max(LEAST, records))
            self._add(at=at, action="telemetry.tool", outcome="ok", tool="~/work", reporter=self.agent.id)
        elif room.refuse():
            self._add(at=at, action=FLOOD, outcome="ok")

    def _add(self, **fields: object) -> None:
        self.events.append(
            Event(agent=self.agent.id, owner=self.agent.owner, model=self.kind.model, **fields)  # type: ignore[arg-type]
        )


def day_of(agent: Agent, kind: Kind, day: int, dice: Random) -> list[Event]:
    """In no order."""
    hands = Hands(agent, kind, dice)
    for hour, pace in enumerate(kind.pace):
        for number in range(poisson(dice, pace * agent.rate)):
            start = FIRST_DAY + day * DAY + hour * HOUR + dice.randrange(HOUR)
            session(hands, start, f"tk_{agent.id}_{day}_{hour}_{number}")
    return hands.events


def session(hands: Hands, at: int, task: str, *, network: str = "", key: str = "", more: float = 1.0) -> int:
    """When it is over. Without a network, one of the agent's own."""
    dice, kind = hands.dice, hands.kind
    network = network or dice.choice(hands.agent.networks)
    hands.token(at, task, network=network, key=key)
    for tool in walk(hands):
        at += int(dice.expovariate(1 / 15) * SECOND)
        denied = dice.random() < kind.denied
        hands.call(
            at,
            tool,
            task,
            network=network,
            key=key,
            outcome="deny" if denied else "allow",
            reason="outside_task" if denied else "",
            more=more,
        )
        if dice.random() < kind.parts / kind.calls:
            hands.part(at, f"{task}_{at}", network=network)
    return at


def telling(agent: Agent, kind: Kind, acts: Sequence[Event], *, is_late: bool) -> list[Event]:
    """The telemetry of a day: each minute in which the agent acts, or all of it at night, when that failed."""
    hands, room = Hands(agent, kind, Random(0)), Bucket(BURST, PER_SECOND, 0)
    for minute, count in sorted(Counter(event.at // MINUTE for event in acts).items()):
        at = (minute // 1440 + 1) * DAY - MINUTE if is_late else (minute + 1) * MINUTE - 1
        hands.export(at, SPANS * count, room)
    return hands.events


def walk(hands: Hands) -> Iterator[Tool]:
    """Tools as the kind uses them one after the other, and as this agent likes them."""
    kind, dice = hands.kind, hands.dice
    count = 1 + poisson(dice, kind.calls - 1)
    weights = kind.first
    for _ in range(count):
        liked = list(accumulate(w * like for w, like in zip(weights, hands.agent.likes, strict=False)))
        at = dice.choices(range(len(kind.tools)), cum_weights=liked)[0]
        yield kind.tools[at]
        weights = kind.steps[at]


def poisson(dice: Random, mean: float) -> int:
    """Knuth's way; for the small means here."""
    limit, count, product = math.exp(-mean), 0, dice.random()
    while product > limit:
        count += 1
        product *= dice.random()
    return count

"""A fleet held before the detectors: what they say, of which act, and how long each of them takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.fleet.plan import Fleet
from benchmarks.fleet.stream import Labelled
from ostiary.core.watch import Event
from ostiaryd.watch.model import Batch, Detector, zeros

BATCH = 2048


@dataclass(frozen=True, slots=True)
class Alarm:
    """`event`: of which it was said."""

    detector: str
    event: Event
    score: float
    says: str


@dataclass(slots=True)
class Held:
    """`harm`: the acts of each attack, in order; `at_work`: how many agents did anything, by day."""

    alarms: list[Alarm] = field(default_factory=list)
    harm: defaultdict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))
    at_work: list[frozenset[str]] = field(default_factory=list)
    events: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """of the processor, by detector"""


def hold(
    fleet: Fleet, days: Iterable[list[Labelled]], detectors: Mapping[str, Detector], *, batch: int = BATCH
) -> Held:
    """All acts, in order, before all detectors. Agents of one kind are peers."""
    rows = {agent.id: row for row, agent in enumerate(fleet.agents, 1)}
    peers = [0, *(agent.kind + 1 for agent in fleet.agents)]
    kept = {name: zeros(one, agents=len(peers), peers=len(fleet.kinds) + 1) for name, one in detectors.items()}
    held = Held()
    for acts in days:
        held.at_work.append(frozenset(act.event.agent for act in acts) - {""})
        held.events += len(acts)
        for act in acts:
            if act.attack >= 0:
                held.harm[act.attack].append(act.event)
        for start in range(0, len(acts), batch):
            events = [act.event for act in acts[start : start + batch]]
            who = [rows.get(event.agent, 0) for event in events]
            columns = Batch(events, who, [peers[row] for row in who])
            for name, detector in detectors.items():
                started = time.process_time()
                found = detector.notice(columns, kept[name])
                held.seconds[name] += time.process_time() - started
                held.alarms += [Alarm(name, columns.events[one.row], one.score, one.says) for one in found]
    return held

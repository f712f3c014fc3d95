"""A fleet held before the detectors, as the server does it: what is told of which act, and how long each takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.fleet.plan import Fleet
from benchmarks.fleet.stream import Labelled
from ostiary.provenance.noticing import Event
from ostiaryd.watch.model import Sighting
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import Anomaly, Detector, Kept, Record
from ostiaryd.watch.model.watcher import Watcher

BATCH = 2048


class Timed:
    """A detector that says how much of the processor it took."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.seconds = 0.0

    @property
    def AGENT(self) -> Record:
        return self._detector.AGENT

    @property
    def PEERS(self) -> Record:
        return self._detector.PEERS

    @property
    def ALL(self) -> Record:
        return self._detector.ALL

    @property
    def THRESHOLD(self) -> float:
        return self._detector.THRESHOLD

    @property
    def CERTAIN(self) -> bool:
        return self._detector.CERTAIN

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        started = time.process_time()
        found = self._detector.notice(batch, kept)
        self.seconds += time.process_time() - started
        return found


@dataclass(slots=True)
class Held:
    """`harm`: the acts of each attack, in order; `at_work`: who did anything, by day; `seconds`: by detector."""

    alarms: list[Sighting] = field(default_factory=list)
    harm: defaultdict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))
    at_work: list[frozenset[str]] = field(default_factory=list)
    events: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    all_seconds: float = 0.0


def hold(
    fleet: Fleet,
    days: Iterable[list[Labelled]],
    detectors: Mapping[str, Detector],
    *,
    budget: float,
    batch: int = BATCH,
) -> Held:
    """All acts, in order. Agents of one kind are peers. Raises RuntimeError for a detector that failed."""
    kinds = {agent.id: f"kind-{agent.kind}" for agent in fleet.agents}
    timed = {name: Timed(one) for name, one in detectors.items()}
    watcher, held = Watcher(timed, budget=budget, peers_of=kinds.__getitem__), Held()
    for acts in days:
        held.at_work.append(frozenset(act.event.agent for act in acts) - {""})
        held.events += len(acts)
        for act in acts:
            if act.attack >= 0:
                held.harm[act.attack].append(act.event)
        started = time.process_time()
        for start in range(0, len(acts), batch):
            held.alarms += watcher.take([act.event for act in acts[start : start + batch]])
        held.all_seconds += time.process_time() - started
        if watcher.failing:
            raise RuntimeError(f"{watcher.failing}")
    held.seconds = {name: one.seconds for name, one in timed.items()}
    return held

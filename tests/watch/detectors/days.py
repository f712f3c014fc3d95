"""Events of some agents over some days, passed to one detector as the server does: no batch spans two hours."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import groupby

import msgspec

from ostiary.provenance.noticing import Event
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import Anomaly, Detector, Kept, zeros

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
AGENTS = 16


def event(at: float, agent: int = 1, **fields: object) -> Event:
    """Return an event at `at` (seconds): a call of a tool that reads, unless `fields` state otherwise."""
    values: dict[str, object] = {
        "at": round(at * SECOND),
        "action": "tool.call",
        "outcome": "allow",
        "agent": f"ag_{agent}" if agent else "",
        "resource": "https://files.example",
        "tool": "files/read",
        "effect": "read",
        "task": f"tk_{agent}",
    }
    return msgspec.convert(values | fields, Event)


class Held:
    """The state of a detector for agents 1 to 15, who are peers of each other; 0 is no agent."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.kept: Kept = zeros(detector, agents=AGENTS, peers=2)
        self.number = 0

    def see(self, events: Iterable[Event]) -> list[tuple[Event, Anomaly]]:
        """The findings, each with its event."""
        found = []
        for _, group in groupby(sorted(events, key=lambda one: one.at), key=lambda one: one.at // HOUR):
            part = [msgspec.structs.replace(one, number=self.number + at) for at, one in enumerate(group)]
            self.number += len(part)
            who = [int(one.agent[3:]) if one.agent else 0 for one in part]
            batch = Batch(part, who, [1 if row else 0 for row in who])
            found += [(batch.events[one.row], one) for one in self.detector.notice(batch, self.kept)]
        return found

    def copy(self) -> Held:
        other = Held(self.detector)
        other.kept, other.number = copy.deepcopy(self.kept), self.number
        return other

    def would_find(self, events: Iterable[Event]) -> bool:
        """Return whether the detector finds anything in the events; its state does not change."""
        return bool(self.copy().see(events))

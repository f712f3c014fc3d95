"""Runs all detectors over events, and leaves out repeated reports.

No I/O. The same events lead to the same sightings, independently of their division into batches, and equally at the
server, from a file, or after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from ostiary.provenance.noticing import HALF_LIFE, MAX_SAYS, Event, Noticed, total_points
from ostiaryd.watch.model.batch import NOBODY, Batch, Ints, word
from ostiaryd.watch.model.detector import Anomaly, Detector, Kept
from ostiaryd.watch.model.memory import Memory
from ostiaryd.watch.model.narrowing import NAME, Narrowing, Records
from ostiaryd.watch.model.reading import FindingJudgement
from ostiaryd.watch.model.sighting import Piece, Sighting, Snapshot

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
QUIET_MIN = 5
"""Time after a report about an agent in which the same detector reports the agent again only with more points, in
minutes.
"""
QUIET_GUARD_MIN = 30
"""Time after a report of a guard's observation in which a further observation is reported only with more points, in
minutes.
"""
WEAKEST = 10
"""Minimum points of a guard's observation that becomes a sighting."""
BY_GUARD = 0.0
"""Score of a sighting that a guard observed, because guards state points and no score."""
CERTAIN_BY_GUARD = frozenset({"bearer_in_two_networks", "threat_list"})
"""Names of a guard's observations that are sufficient evidence alone. Calls of decoys are missing: the server's own
detector finds them, from the catalogue.
"""
CLEAR = 30
"""Minimum points of a sighting that is sufficient evidence alone."""


ASKED = 0.5
"""Factor on the points of a guard's observation about a call that a person decides: the question already tells a
person about the call.
"""


def combine(event: Event) -> Noticed:
    """Return one observation in place of all observations of a guard about one call: with the name of the strongest,
    the points of all together, and all texts. If a person is asked about the call, and no observation is sufficient
    evidence alone, half of the points remain.
    """
    strongest, *others = sorted(event.noticed, key=lambda one: -one.points)
    says = "; ".join(one.says for one in (strongest, *others))[:MAX_SAYS]
    points = total_points(event.noticed)
    if event.is_asked and not _is_certain(event):
        points = round(ASKED * points)
    return Noticed(detector=strongest.detector, points=points, says=says)


def _is_certain(event: Event) -> bool:
    """Return whether a guard's observation in this event is sufficient evidence alone."""
    return any(one.detector in CERTAIN_BY_GUARD and one.points >= CLEAR for one in event.noticed)


class Watcher:
    def __init__(self, detectors: Mapping[str, Detector], *, budget: float, peers_of: Callable[[str], str]) -> None:
        """Create a watcher with empty memory. `budget` is the share of tasks in which statistical detectors may
        restrict an agent by mistake. `peers_of` returns the name of an agent's group of peers.
        """
        self._detectors, self._peers_of = detectors, peers_of
        self.memory = Memory({**detectors, NAME: Records()})
        self.narrowing = Narrowing(budget=budget)
        self.position = 0
        """Number of the next event to examine."""
        self.failing: dict[str, str] = {}
        """Name of each detector that failed, with its latest error."""
        self.clock = 0
        """Time of the newest event, in microseconds."""

    def take(self, events: Sequence[Event | FindingJudgement]) -> list[Sighting]:
        """Let all detectors examine events, whose times and numbers must not decrease. Return the sightings (anomalies
        to report) in the order of the events.
        """
        reported: list[Sighting] = []
        batch: list[Event] = []
        for event in events:
            if isinstance(event, FindingJudgement):
                reported += self._run(batch)
                batch = []
                self._learn_judgement(event)
            else:
                if event.at // HOUR != self.clock // HOUR:
                    reported += self._run(batch)
                    batch = []
                    self._forget_inactive(event.at)
                self.clock = event.at
                batch.append(event)
        reported += self._run(batch)
        if events:
            self.position = events[-1].number + 1
        return reported

    def _forget_inactive(self, now: int) -> None:
        """Remove inactive agents from the memory if `now` (microseconds) begins a new day."""
        if now // DAY != self.clock // DAY:
            self.memory.forget(now_s=now // SECOND)

    def _run(self, events: Sequence[Event]) -> list[Sighting]:
        if not events:
            return []
        memory = self.memory
        rows = np.array([memory.row(event.agent) for event in events], np.int64)
        batch = Batch(events, rows, self._peers(rows))
        memory.touch(batch.agent[batch.first], now_s=self.clock // SECOND)
        sightings = [
            self._sighting(
                batch.events[one.row],
                name,
                one.points,
                one.score,
                one.says,
                one.entries,
                is_certain=self._detectors[name].CERTAIN,
            )
            for name in self._detectors
            for one in self._notice(name, batch)
            if one.score >= self._detectors[name].THRESHOLD
        ]
        sightings += [
            self._sighting(
                event,
                observation.detector,
                observation.points,
                BY_GUARD,
                observation.says,
                (),
                is_certain=_is_certain(event),
            )
            for event in events
            if event.noticed and (observation := combine(event)).points >= WEAKEST
        ]
        sightings.sort(key=lambda one: (one.number, one.detector))
        return self._narrowing(batch, [news for one in sightings if (news := self._news(one)) is not None])

    def _narrowing(self, batch: Batch, sightings: Sequence[Sighting]) -> list[Sighting]:
        """Return the sightings with `may_narrow` set: whether each may restrict its agent, by the state of the budget
        at its event.
        """
        kept, begins, marked = self.memory.kept[NAME], self.narrowing.begins(batch, self.memory.kept[NAME]), []
        begins.reverse()
        for one in sightings:
            self._begin(batch, kept, begins, one.number)
            marked.append(
                one if one.agent == "" else msgspec.structs.replace(one, may_narrow=self._may_narrow(kept, one))
            )
        self._begin(batch, kept, begins, batch.number[batch.order[-1]])
        return marked

    def _begin(self, batch: Batch, kept: Kept, begins: list[int], until: int) -> None:
        """Start the trials whose first event is at most the entry `until`, and remove these events from `begins`, which
        is in reverse order.
        """
        while begins and batch.number[begins[-1]] <= until:
            row = begins.pop()
            event = batch.events[row]
            self.narrowing.begin(kept, int(batch.agent[row]), int(batch.peers[row]), word(event.task), event.at)

    def _may_narrow(self, kept: Kept, one: Sighting) -> bool:
        row = self.memory.row(one.agent)
        return self.narrowing.judge(
            kept,
            row,
            int(self.memory.own["peers"][row]),
            word(one.task),
            one.at,
            points=one.points,
            certain=one.may_narrow,
            by_guard=one.score == BY_GUARD,
        )

    def _learn_judgement(self, judgement: FindingJudgement) -> None:
        """Update the budget of the agent with a person's verdict on its findings. After an attack, a further finding is
        news: the release has set the risk to zero.
        """
        row = self.memory.row(judgement.agent)
        if row != NOBODY:
            self.memory.touch(np.array([row]), now_s=self.clock // SECOND)
            if judgement.is_real:
                self.memory.own["told"][row] = 0
            peers = int(self._peers(np.array([row]))[0])
            self.narrowing.learn_judgement(
                self.memory.kept[NAME], row, peers, is_real=judgement.is_real, trials=judgement.tasks
            )

    def _notice(self, name: str, batch: Batch) -> list[Anomaly]:
        """Run one detector and return its anomalies. If it fails, record the error and return no anomalies; the other
        detectors still run.
        """
        try:
            return self._detectors[name].notice(batch, self.memory.kept[name])
        except Exception as error:  # noqa: BLE001 because a detector may fail in any way
            self.failing[name] = f"entry {batch.number[0]}: {type(error).__name__}: {error}"[:200]
            return []

    def _peers(self, rows: Ints) -> Ints:
        memory = self.memory
        for row in set(rows[memory.own["peers"][rows] == 0].tolist()) - {NOBODY}:
            memory.own["peers"][row] = memory.peers(word(self._peers_of(memory.name(row))))
        return memory.own["peers"][rows].astype(np.int64)

    def _sighting(
        self,
        event: Event,
        detector: str,
        points: int,
        score: float,
        says: str,
        entries: tuple[int, ...],
        *,
        is_certain: bool,
    ) -> Sighting:
        return Sighting(
            event.number,
            event.at,
            detector,
            event.agent,
            event.task,
            event.resource,
            points,
            round(score, 3),
            says[:MAX_SAYS],
            (*entries, event.number),
            is_certain and points >= CLEAR,
        )

    def _news(self, one: Sighting) -> Sighting | None:
        """Return a sighting that is to be reported, and store the report. Return None if the same topic was reported
        recently with as many points.

        Work that a guard notices in each task is one piece of evidence: the points of the latest report that are left
        are `counted`.
        """
        row, minute = self.memory.row(one.agent), one.at // MINUTE & 0xFFFF
        topic = self._topic(one, is_nobody=row == NOBODY)
        reported = self.memory.own["told"][row]
        age = np.where(reported["what"] == 0, 0x10000, (minute - reported["at"].astype(np.int64)) & 0xFFFF)
        same = np.flatnonzero(reported["what"] == topic)
        slot = int(same[0]) if len(same) else int(np.argmax(age))
        quiet = QUIET_GUARD_MIN if one.score == BY_GUARD else QUIET_MIN
        if len(same) and age[slot] < quiet and one.points <= int(reported["points"][slot]):
            return None
        counted = 0
        if len(same) and one.score == BY_GUARD:
            counted = int(reported["points"][slot] * 0.5 ** (int(age[slot]) * MINUTE / HALF_LIFE))
        reported[slot] = (topic, minute, max(one.points, counted))  # a weak finding does not end the evidence before
        return msgspec.structs.replace(one, counted=counted)

    def _topic(self, one: Sighting, *, is_nobody: bool) -> int:
        """Return a hash of the topic of a sighting, by which repeated reports are recognised. All observations of one
        guard have one topic, because a guard can invent names.
        """
        if one.score == BY_GUARD:
            return word(f"guard {one.resource}") & 0xFFFF
        return word(f"{one.detector} {one.resource if is_nobody else ''}") & 0xFFFF

    @property
    def status(self) -> dict[str, float]:
        """Return the state of the narrowing budget; see `Narrowing.status`."""
        return self.narrowing.status(self.memory.kept[NAME])

    # --- saving -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Snapshot, list[Piece], list[str]]:
        """Return the state to save: the snapshot, the pieces that changed since the last snapshot, and the keys of
        pieces that no longer exist.
        """
        pieces, gone = self.memory.changed()
        return Snapshot(self.position, self.memory.layout, self.clock), pieces, gone

    def load(self, snapshot: Snapshot, pieces: Sequence[Piece]) -> None:
        """Load a saved state into this new watcher."""
        self.memory.load(snapshot.layout, pieces)
        self.position, self.clock = snapshot.position, snapshot.clock

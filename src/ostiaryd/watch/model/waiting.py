"""A queue of events that the detectors have not examined yet.

An examination takes a few milliseconds, plus a few microseconds per event. Under load the detectors therefore examine
events ten times a second. A harmful event, and the first event after a quiet time, are examined at once, together with
all earlier events. The division of events into examinations changes no finding.
"""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.provenance.noticing import Event
from ostiaryd.watch.model.reading import FindingJudgement

LOOK_US = 100_000
"""Time between the starts of two examinations, in microseconds, unless a harmful event or `MOST` events wait."""
MOST = 2048
"""Number of waiting events from which an examination is due at once."""


class Waiting:
    """Events that were read from the ledger and wait for their examination by the detectors, in order. Times are in
    microseconds of the boot clock.
    """

    def __init__(self) -> None:
        self._events: list[Event | FindingJudgement] = []
        self._is_harmful = False
        self._looked_at: int | None = None

    def __len__(self) -> int:
        return len(self._events)

    def add(self, events: Iterable[Event | FindingJudgement]) -> None:
        """Add events to the queue."""
        for event in events:
            self._events.append(event)
            self._is_harmful = self._is_harmful or _is_harmful(event)

    def due_in(self, now: int) -> int:
        """Return the time until the waiting events must be examined, in microseconds; 0 if that is due at `now`."""
        if self._looked_at is None or self._is_harmful or len(self._events) >= MOST:
            return 0
        return max(0, self._looked_at + LOOK_US - now)

    def take(self, now: int) -> list[Event | FindingJudgement]:
        """Remove all waiting events from the queue, and return them. `now` (microseconds): time at which their
        examination starts.
        """
        events, self._events = self._events, []
        self._looked_at, self._is_harmful = now, False
        return events


def _is_harmful(event: Event | FindingJudgement) -> bool:
    """Return whether the event alone is sufficient evidence: the call of a decoy, a match with a threat list, or an
    observation of its guard.
    """
    return isinstance(event, Event) and (event.canary or event.threat is not None or event.noticed != ())

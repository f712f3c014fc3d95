"""Threat list: a call came from a network, or a report named a value, that is on a threat list.

The guard checks the values in a call before the call; this detector checks values that only the server sees. The
detector learns nothing: it reports each match, whatever the budget of alarms.
"""

from __future__ import annotations

from ostiary.provenance.noticing import Event
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each event that matches a threat list."""
    return [
        Anomaly(row, 2 * THRESHOLD, event.threat[1], f"{_describe(event)} on the threat list `{event.threat[0]}`")
        for row, event in enumerate(batch.events)
        if event.threat is not None
    ]


def _describe(event: Event) -> str:
    return "it says itself that it went to what is" if event.reporter == event.agent else "where it came from is"

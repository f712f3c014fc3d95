"""Threat list: a call came from a network, or a report named a value, that is on a threat list.

The guard checks the values in a call before the call runs; this detector checks networks and telemetry, which only the
server sees. The detector has no learned state: it reports each match, independently of the budget of statistical
detectors.
"""

from __future__ import annotations

from ostiary.provenance.noticing import Event
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each call or request that matches a value of a threat list."""
    return [
        Anomaly(row, 2 * THRESHOLD, event.threat[1], f"{_describe(event)} on the threat list `{event.threat[0]}`")
        for row, event in enumerate(batch.events)
        if event.threat is not None
    ]


def _describe(event: Event) -> str:
    return "reported in its own telemetry a value" if event.reporter == event.agent else "acted from a network"

"""Threat list: it came from a network, or named something, that others know to be evil.

What a call names is looked for by the guard, before the call; this is for what the server sees by itself. A list knows,
or it does not: there is nothing to learn or to calibrate, so it is told whatever the budget of alarms.
"""

from __future__ import annotations

from ostiary.provenance.noticing import Event
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import NOTHING, Found, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Found]:
    return [
        Found(row, 2 * THRESHOLD, event.threat[1], f"{_what(event)} on the threat list `{event.threat[0]}`")
        for row, event in enumerate(batch.events)
        if event.threat is not None
    ]


def _what(event: Event) -> str:
    return "it says itself that it went to what is" if event.reporter == event.agent else "where it came from is"

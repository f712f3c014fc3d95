"""Denied burst: far more refusals within minutes than this agent usually meets.

Somebody who has taken over an agent tries doors. Refusals are counted with a memory that halves every five minutes,
and beside it over a day, for how many are usual. What is usual raises the bar to twice its start at most, so that
whoever is refused all day long does not buy himself silence.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model import NOTHING, Batch, Found, Kept

SHORT = 300e6
"""microseconds in which what is counted halves"""
LONG = 86_400e6
BAR = 12.0
"""refusals in the short memory that are a burst for an agent that usually meets none"""
MARGIN = 4.0
"""how many times what is usual is a burst"""
ENTRIES = 4
LOUD = 3.0

AGENT = np.dtype(
    [("at", np.int64), ("short", np.float32), ("long", np.float32), ("entries", np.int64, (ENTRIES,))]
)  # counts as they were at `at`; the newest entries plus one, the newest last: 0 is none
PEERS = ALL = NOTHING
THRESHOLD = 1.0


def notice(batch: Batch, kept: Kept) -> list[Found]:
    found = []
    for row in np.flatnonzero(batch.is_denied & (batch.agent != 0)).tolist():
        state = kept.agents[batch.agent[row]]
        at = int(batch.at[row])
        age = max(0, at - int(state["at"]))
        short, long = 1 + state["short"] * 0.5 ** (age / SHORT), 1 + state["long"] * 0.5 ** (age / LONG)
        state["at"], state["short"], state["long"] = max(at, int(state["at"])), short, long
        before = tuple(int(entry) - 1 for entry in state["entries"] if entry)
        state["entries"] = np.append(state["entries"][1:], batch.number[row] + 1)
        usual = MARGIN * float(long - short) * SHORT / LONG
        score = float(short) / min(max(BAR, usual), 2 * BAR)
        if score >= THRESHOLD:
            says = f"it was refused {int(short)} times within minutes, where {int(usual / MARGIN)} are usual"
            found.append(Found(row, score, 50 if score >= LOUD else 30, says, before))
    return found

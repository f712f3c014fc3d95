"""Guard gap: numbered records of a guard did not arrive; the agent in the guard's next record is suspected.

A guard numbers its records. If numbers are missing, the server writes an entry about the gap. A lost disk causes a gap,
and so does an agent that took control of the guard in its own process. The suspicion is strong if the guard reported
the same agent immediately before the gap, and weak otherwise.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

GAP = np.uint64(word("report.gap"))
SLOTS = 1024
"""Number of slots for the state of guards. Two guards with the same slot overwrite each other's state."""

AGENT, PEERS = NOTHING, NOTHING
ALL = np.dtype([("guard", np.uint64, (SLOTS,)), ("agent", np.uint64, (SLOTS,)), ("gap", np.int64, (SLOTS,))])
"""State of the server: for each slot, the guard, the agent that the guard reported last, and the entry of a gap after
that report (its number plus one; 0 for no gap).
"""
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each gap in the numbered records of a guard; the finding is about the agent in the guard's first record
    after the gap.
    """
    state = kept.all[0]
    rows = batch.order[(batch.reporter != 0)[batch.order]]
    guard = batch.reporter[rows]
    slot = (guard % np.uint64(SLOTS)).astype(np.int64)
    is_odd = np.isin(slot, np.append(slot[batch.action[rows] == GAP], np.flatnonzero(state["gap"])))
    guards = [_update_guard(batch, state, int(rows[at]), int(slot[at])) for at in np.flatnonzero(is_odd).tolist()]
    plain = ~is_odd & (batch.agent[rows] != NOBODY)
    state["guard"][slot[plain]], state["agent"][slot[plain]] = guard[plain], batch.agent_word[rows[plain]]
    return [one for one in guards if one is not None]


def _update_guard(batch: Batch, state: np.void, row: int, slot: int) -> Anomaly | None:
    """Update the state of a guard with its record in `row`. Return an anomaly if the record is the first record about
    an agent after a gap; otherwise None.
    """
    guard, agent = batch.reporter[row], batch.agent_word[row]
    before = state["agent"][slot] if state["guard"][slot] == guard else 0
    gap = int(state["gap"][slot]) if state["guard"][slot] == guard else 0
    state["guard"][slot] = guard
    if batch.action[row] == GAP:
        state["gap"][slot], state["agent"][slot] = batch.number[row] + 1, before
        return None
    if batch.agent[row] == NOBODY:
        return None
    state["gap"][slot], state["agent"][slot] = 0, agent
    if gap == 0:
        return None
    if before == agent:
        return Anomaly(row, 4.0, 50, "the guard lost records between two records of this agent", (gap - 1,))
    return Anomaly(row, 1.0, 15, "the guard lost records, some of which may be about this agent", (gap - 1,))

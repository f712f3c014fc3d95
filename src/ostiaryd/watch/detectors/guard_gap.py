"""Guard gap: numbered records of a guard that never arrived, and the agents whose calls they may have been.

A guard numbers its decisions; the ledger records the numbers that never arrived. A lost disk causes a gap, and so does
an agent that took control of the guard in its own process. The next agent in the guard's reports is the suspect. The
suspicion is strong if the guard reported the same agent before the gap, weak if many agents use the guard.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

GAP = np.uint64(word("report.gap"))
SLOTS = 1024
"""number of slots for guards; another guard with the same slot replaces the earlier one"""

AGENT, PEERS = NOTHING, NOTHING
ALL = np.dtype([("guard", np.uint64, (SLOTS,)), ("agent", np.uint64, (SLOTS,)), ("gap", np.int64, (SLOTS,))])
# of whom it spoke last; the entry of a gap since then plus one, 0 for none
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report the first agent after each gap."""
    state = kept.all[0]
    rows = batch.order[(batch.reporter != 0)[batch.order]]
    guard = batch.reporter[rows]
    slot = (guard % np.uint64(SLOTS)).astype(np.int64)
    is_odd = np.isin(slot, np.append(slot[batch.action[rows] == GAP], np.flatnonzero(state["gap"])))
    guards = [_hear(batch, state, int(rows[at]), int(slot[at])) for at in np.flatnonzero(is_odd).tolist()]
    plain = ~is_odd & (batch.agent[rows] != NOBODY)
    state["guard"][slot[plain]], state["agent"][slot[plain]] = guard[plain], batch.agent_word[rows[plain]]
    return [one for one in guards if one is not None]


def _hear(batch: Batch, state: np.void, row: int, slot: int) -> Anomaly | None:
    """Return the anomaly of a record after a gap of its guard; None for the gap itself, and without a gap."""
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
    return Anomaly(row, 1.0, 15, "the guard lost records, and some may have been of this agent", (gap - 1,))

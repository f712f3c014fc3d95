"""Delegation storm: an agent delegates far more parts of its tasks within ten minutes than it and its peers usually do.

With each delegation, a further agent or instance works on the delegating agent's instructions. By many delegations an
agent can distribute work that it could not do alone, or that would be noticed in one agent. `watch.model.tally` defines
the usual level and how fast it may move.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.crowd import crowd_record
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept
from ostiaryd.watch.model.tally import Limits, tally, tally_record

HANDED_ON = np.array([word("task.start"), word("token.exchange")], np.uint64)
LIMITS = Limits(least=(12.0,), unknown=(24.0,), most=(1000.0,))

AGENT, PEERS, ALL = tally_record(1), crowd_record(1), NOTHING
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent that delegates unusually often: more often in the window than the agent's own bar
    (`watch.model.tally`).
    """
    parts = np.isin(batch.action, HANDED_ON) & (batch.agent != NOBODY) & ~batch.is_denied
    counted = tally(batch, parts.astype(np.float64)[:, None], LIMITS, kept.agents, kept.peers)
    findings = []
    for row, _, times in counted.over:
        much, bar = int(counted.sums[row, 0]), int(counted.bars[row, 0])
        says = f"delegated {much} parts of its tasks within ten minutes; at most {bar} are expected"
        findings.append(Anomaly(row, times, 40, says, (int(counted.since[row]),)))
    return findings

"""Rate and volume: far more calls, bytes or records within ten minutes, or far larger answers, than usual.

`watch.model.tally` defines the usual level of an agent and its peers. Exfiltration needs many calls, or large answers.
A large read can hide in the busiest hours of an agent whose tools return answers of very different sizes. Each answer
is therefore also compared with the answers of its tool to all peers: the powers of two above eight times the usual size
are summed.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch
from ostiaryd.watch.model.crowd import crowd_record
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept
from ostiaryd.watch.model.sizes import SIZE_FIELDS, compare_with_usual, learn_sizes, new_day_of_sizes
from ostiaryd.watch.model.tally import Limits, tally, tally_record

SAYS = (
    "{much} calls within ten minutes; at most {bar} are expected",
    "{much} bytes within ten minutes; at most {bar} are expected",
    "{much} records within ten minutes; at most {bar} are expected",
    "answers many times larger than the same tools return to peers of the agent",
)
LIMITS = Limits(least=(40.0, 256_000.0, 200.0, 5.0), unknown=(600.0, 50e6, 50_000.0, 20.0), most=(1e5, 1e10, 1e8, 60.0))
LOUD = 4.0
SLACK, MOST = 3.0, 6.0
"""Powers of two above the usual size of an answer that are ignored, and the maximum number of further powers of two
that one answer adds.
"""
LEARNED = 8
"""Maximum number of an agent's answers per window whose size is learned, so that one agent cannot change the usual
size.
"""

AGENT, ALL = tally_record(len(SAYS)), NOTHING
PEERS = np.dtype([*crowd_record(len(SAYS)).descr, *SIZE_FIELDS])
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent whose calls, bytes, records or unusually large answers in the window exceed the agent's own bar
    (`watch.model.tally`).
    """
    new_day_of_sizes(batch, kept.peers)
    is_own = batch.is_used & (batch.agent != NOBODY)
    off, is_known = compare_with_usual(batch, kept.peers)
    large = np.where(is_known, np.clip(off - SLACK, 0, MOST), 0)
    counts = np.column_stack((batch.is_call, batch.bytes, batch.records, large)) * is_own[:, None]
    counted = tally(batch, counts, LIMITS, kept.agents, kept.peers)
    learn_sizes(batch, kept.peers, is_own & (counted.sums[:, 0] <= LEARNED))
    findings = []
    for row, which, times in counted.over:
        much, bar = int(counted.sums[row, which]), int(counted.bars[row, which])
        says = SAYS[which].format(much=much, bar=bar)
        findings.append(Anomaly(row, times, 45 if times >= LOUD else 25, says, (int(counted.since[row]),)))
    return findings

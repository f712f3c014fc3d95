"""Secret sent: an agent sent a secret that only the egress proxy may put into the agent's requests.

The detector has no learned state: one call with the secret shows that the secret leaked to the agent.
"""

from __future__ import annotations

from ostiary.protocol.secret_forms import SecretSent
from ostiaryd.watch.model.batch import NOBODY, Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each call that was denied because its arguments contain a secret, which only the egress proxy may send."""
    return [
        Anomaly(row, 2 * THRESHOLD, 60, "sent a secret that only the egress proxy may use")
        for row, event in enumerate(batch.events)
        if SecretSent.code in event.reasons and batch.agent[row] != NOBODY
    ]

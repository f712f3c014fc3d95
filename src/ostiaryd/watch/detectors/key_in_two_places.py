"""A key in two places: a key is used in one network, then in another, and in the first again within half an hour.

A machine that moves changes its network once; two holders of the same key alternate between networks. An agent may
alternate between its own networks: networks that it has used for a day, or that several of its peers use, since
instances of one agent may run in two places.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept
from ostiaryd.watch.model.networks import AGENT_FIELDS, PEERS_FIELDS, changes, is_own

SOON = 1800_000_000
"""Maximum time between leaving a network and the return to it, in microseconds."""
ENOUGH = 2.0
"""Number of returns on one day from which the key is reported."""
DAY = 86_400_000_000

AGENT = np.dtype(
    [
        *AGENT_FIELDS,
        ("key", np.uint32),
        ("left_key", np.uint32),
        ("left", np.uint32),
        ("left_at", np.int64),
        ("day", np.int32),
        ("returns", np.uint16),
        ("is_own", np.bool_),
    ]
)
"""State of an agent: the key in the present network (`key`), the key in the network before (`left_key`), that network
(`left`) with the time of leaving it (`left_at`), and whether the present network is the agent's own (`is_own`).
"""
PEERS, ALL = np.dtype(PEERS_FIELDS), NOTHING
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each key that is used alternately from two networks, as if an attacker had a copy of it."""
    findings = []
    for row, network, before, left in changes(batch, kept.agents):
        state, at, key = kept.agents[batch.agent[row]], int(batch.at[row]), int(batch.key[row]) >> 32
        own = is_own(state, kept.peers["users"][batch.peers[row]], network, at)
        is_back = before != 0 and network == int(state["left"]) and at - int(state["left_at"]) <= SOON
        is_same = key != 0 and key == int(state["key"]) == int(state["left_key"])
        if is_back and is_same and not (own and state["is_own"]):
            returns = 1 + (int(state["returns"]) if state["day"] == at // DAY else 0)
            state["day"], state["returns"] = at // DAY, min(returns, 65_535)
            if returns >= ENOUGH:
                says = f"the agent's key alternated {returns} times between two networks, one of them new to the agent"
                findings.append(Anomaly(row, returns / ENOUGH, 60, says))
        state["left"], state["left_at"], state["left_key"] = before, left, state["key"]
        state["key"], state["is_own"] = key, own
    return findings

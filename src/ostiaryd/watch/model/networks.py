"""The networks of an agent. A network is the agent's own if the agent has used it for a day, or if several of its peers
use it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import Records
from ostiaryd.watch.model.runs import Runs

OWN = 4
PEERS_SLOTS = 256
HOUR = 3_600_000_000
SETTLED = 24
"""Hours since the first use after which a network counts as the agent's own."""
SHARED = 3
"""Number of peers that must use a network before it counts as the agent's own."""

AGENT_FIELDS = [
    ("last", np.uint32),
    ("at", np.int64),
    ("network", np.uint32, (OWN,)),
    ("since", np.uint32, (OWN,)),
    ("told", np.uint32),
]
"""State of an agent: its last network (hash) with the time of the last use, up to `OWN` networks in use with the hour
of the first use of each, and a bit for each network in which the count of the peers includes the agent.
"""
PEERS_FIELDS = [("users", np.uint16, (PEERS_SLOTS,))]


class Change(NamedTuple):
    """A change of the network from which an agent acts, in the event at index `row`: from `before` (hash; 0 for none)
    to `network`. `left` is the time of the last use of `before`, in microseconds.
    """

    row: int
    network: int
    before: int
    left: int


def changes(batch: Batch, agents: Records) -> list[Change]:
    """Return the changes of agents' networks in the batch in time order, and store the last network of each agent."""
    rows = np.flatnonzero((batch.network != 0) & (batch.agent != 0))
    if len(rows) == 0:
        return []
    agent, network, at = batch.agent[rows], (batch.network[rows] >> np.uint64(32)).astype(np.uint32), batch.at[rows]
    runs = Runs(agent)
    before, left = np.roll(network, 1), np.roll(at, 1)
    before[runs.first], left[runs.first] = agents["last"][agent[runs.first]], agents["at"][agent[runs.first]]
    agents["last"][agent[runs.last]], agents["at"][agent[runs.last]] = network[runs.last], at[runs.last]
    moved = np.flatnonzero(before != network)
    moved = moved[np.argsort(batch.number[rows[moved]], kind="stable")]
    columns = (rows[moved], network[moved], before[moved], left[moved])
    return [Change(*one) for one in zip(*(column.tolist() for column in columns), strict=True)]


def is_own(state: np.void, users: np.ndarray, network: int, at: int) -> bool:
    """Return whether the network of a change is no reason for suspicion: the agent's first network, a network that the
    agent first used at least `SETTLED` hours ago, or a network that at least `SHARED` other peers use.

    The network is recorded, whatever the result. If all places of the agent are taken, the network replaces the newest.
    """
    networks, since, hour = state["network"].tolist(), state["since"].tolist(), at // HOUR
    if network in networks:
        slot = networks.index(network)
        age = hour - since[slot]
    else:
        slot, age = networks.index(0) if 0 in networks else OWN - 1 - since[::-1].index(max(since)), 0
        state["network"][slot], state["since"][slot] = network, hour
    others, bit = int(users[network % PEERS_SLOTS]), 1 << (network % 32)
    if int(state["told"]) & bit:
        others -= 1
    else:
        state["told"] |= np.uint32(bit)
        users[network % PEERS_SLOTS] = min(others + 1, 65_535)
    return slot == 0 or age >= SETTLED or others >= SHARED

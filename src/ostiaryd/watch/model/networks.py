"""The networks of an agent: networks that the agent has used for a day, and networks that several of its peers use."""

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
"""hours of use after which a network is the agent's own"""
SHARED = 3
"""number of peers that use a network before it counts as shared"""

AGENT_FIELDS = [
    ("last", np.uint32),
    ("at", np.int64),
    ("network", np.uint32, (OWN,)),
    ("since", np.uint32, (OWN,)),
    ("told", np.uint32),
]
"""the last network and time; the networks in use, each with the hour of its first use; one bit for each network
that the peers' counts include
"""
PEERS_FIELDS = [("users", np.uint16, (PEERS_SLOTS,))]


class Change(NamedTuple):
    """A change of an agent's network: now `network`, before `before` (0: none), last used at `left` (microseconds)."""

    row: int
    network: int
    before: int
    left: int


def changes(batch: Batch, agents: Records) -> list[Change]:
    """Return the changes of networks in time order, and store the last network of each agent."""
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
    """Return whether the network is the agent's own (its first network is), or is shared by its peers; record
    its use. A new network replaces the newest if all places are used.
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

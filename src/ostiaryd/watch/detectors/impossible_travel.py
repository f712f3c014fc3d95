"""Impossible travel: an agent is in a network that is not its own, and could not have come there so soon.

Where networks are is what configuration says (`places`); of others nothing is known. Faster than an aircraft is a
second machine, or a detour through somebody else's. A network that several peers use is where work was moved to.
"""

from __future__ import annotations

import math

import numpy as np

from ostiaryd.watch.model import NOTHING, Batch, Found, Kept
from ostiaryd.watch.model.networks import AGENT_FIELDS, PEERS_FIELDS, changes, is_own

NEAR_KM = 300.0
"""what places of networks may be off"""
KM_PER_HOUR = 900.0
HOUR = 3_600_000_000

AGENT = np.dtype([*AGENT_FIELDS, ("place", np.float32, (2,)), ("is_placed", np.bool_)])
PEERS, ALL = np.dtype(PEERS_FIELDS), NOTHING
THRESHOLD = 1.0


def notice(batch: Batch, kept: Kept) -> list[Found]:
    found = []
    for row, network, _, left in changes(batch, kept.agents):
        state, at, place = kept.agents[batch.agent[row]], int(batch.at[row]), batch.events[row].place
        own = is_own(state, kept.peers["users"][batch.peers[row]], network, at)
        if place is not None and state["is_placed"] and not own:
            km, hours = _km(place, tuple(state["place"].tolist())), max(0, at - left) / HOUR
            if km > NEAR_KM and km > KM_PER_HOUR * hours:
                says = f"{km:.0f} km in {hours * 60:.0f} minutes, to a network that is not its own nor its peers'"
                found.append(Found(row, min(km / max(KM_PER_HOUR * hours, NEAR_KM), 4.0), 50, says))
        state["is_placed"] = place is not None
        state["place"] = place or (0, 0)
    return found


def _km(one: tuple[float, float], other: tuple[float, ...]) -> float:
    """Along the great circle, by the haversine formula on a sphere of 6,371 km."""
    (a, b), (c, d) = map(math.radians, one), map(math.radians, other)
    half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(min(1.0, half)))

"""Impossible travel: an agent acts from a place that it could not have reached in time from its last place.

The configuration states the places of networks (`places`). Networks without a place are ignored. A speed above that of
an aircraft means that a second machine uses the agent's identity, or that the traffic takes a detour. A place that the
agent used before, or that several peers use, raises no anomaly. A journey of more than `LONGEST` hours is ignored,
because the work may have been moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept
from ostiaryd.watch.model.networks import AGENT_FIELDS, PEERS_FIELDS, changes, is_own

NEAR_KM = 300.0
"""Distance between two networks that is always accepted, in kilometres, because places of networks are inexact."""
KM_PER_HOUR = 900.0
LONGEST = 4.0
"""Maximum duration of a journey that is examined, in hours."""
HOUR = 3_600_000_000

AGENT = np.dtype([*AGENT_FIELDS, ("place", np.float32, (2,)), ("left", np.int64), ("is_there", np.bool_)])
"""State of an agent: its last known place (latitude, longitude in degrees), the time when it left the place
(microseconds), and whether it is still there.
"""
PEERS, ALL = np.dtype(PEERS_FIELDS), NOTHING
THRESHOLD = 1.0
CERTAIN = True


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent whose requests come from two places within a shorter time than an aircraft needs, unless the
    agent or its peers usually work at the second place.
    """
    findings = []
    for row, _, _, left in changes(batch, kept.agents):
        state, at, place = kept.agents[batch.agent[row]], int(batch.at[row]), batch.events[row].place
        if state["is_there"]:
            state["left"], state["is_there"] = left, False
        if place is None:
            continue
        is_home = is_own(state, kept.peers["users"][batch.peers[row]], _cell(place), at)
        km, hours = _km(place, state["place"].tolist()), max(0, at - int(state["left"])) / HOUR
        if not is_home and state["left"] and hours <= LONGEST and km > max(NEAR_KM, KM_PER_HOUR * hours):
            says = f"{km:.0f} km in {hours * 60:.0f} minutes, to a place where neither the agent nor its peers work"
            findings.append(Anomaly(row, km / max(KM_PER_HOUR * hours, NEAR_KM), 50, says))
        state["place"], state["is_there"] = place, True
    return findings


def _cell(place: tuple[float, float]) -> int:
    """Return one number for all places in the same cell of one degree; never 0."""
    return 1 + (round(place[0]) + 90) * 361 + round(place[1]) + 180


def _km(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the distance along the great circle in kilometres, by the haversine formula on a sphere of radius
    6,371 km.
    """
    (a, b), (c, d) = map(math.radians, one), map(math.radians, other)
    half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(min(1.0, half)))

"""Messages between the detectors' process and the server: sightings, and the saved state.

This module does not need numpy, because the server also runs without the extra `detect`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Piece(NamedTuple):
    key: str
    body: bytes


class Part(NamedTuple):
    """The layout of one detector's records in a saved piece, which is needed to load the piece."""

    detector: str
    made_of: str
    """The three record types (agent, peers, server), in numpy's notation."""
    agent: int
    """Size of the record of an agent, in bytes."""
    peers: int


class Sighting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An anomaly that the process of the detectors sends to the server, which stores it as a finding. `agent` is empty
    if no agent acted; `number` is the number of the ledger entry.
    """

    number: int
    at: int
    detector: str
    agent: str
    task: str
    resource: str
    points: int
    score: float
    says: str
    entries: tuple[int, ...]
    may_narrow: bool = True
    """True if the finding may restrict the agent without a person. Before `Narrowing.judge` has decided this: true if
    the finding alone is sufficient evidence.
    """
    counted: int = 0
    """Points that the latest sighting of the same guard about the agent has left in the risk of the agent."""


class Snapshot(msgspec.Struct, frozen=True):
    """A saved state of the detectors, whose records are stored separately in pieces. All ledger entries with numbers
    below `position` were examined before.
    """

    position: int
    layout: list[Part]
    clock: int

"""What crosses the pipe between the detectors' process and the server: findings to report, and saved state.

This module does not need numpy: the server runs without the detectors where the extra `detect` is not installed.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Piece(NamedTuple):
    key: str
    body: bytes


class Part(NamedTuple):
    """What a piece has of one detector: it can be read only where this is known."""

    detector: str
    made_of: str
    """the three records, in numpy's words"""
    agent: int
    """bytes"""
    peers: int


class Sighting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something that is told: by which detector, of which agent (empty: of what no agent did), at which entry."""

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
    """whether it may take the agent's work away without a person; before that is judged, whether it is certain"""


class Snapshot(msgspec.Struct, frozen=True):
    """What is kept beside the pieces: events with numbers below `position` have been counted."""

    position: int
    layout: list[Part]
    clock: int

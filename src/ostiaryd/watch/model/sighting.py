"""Messages between the detectors' process and the server: findings to report, and saved state.

This module does not need numpy: the server runs without the detectors where the extra `detect` is not installed.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Piece(NamedTuple):
    key: str
    body: bytes


class Part(NamedTuple):
    """The layout of one detector's part of a piece, needed to read it."""

    detector: str
    made_of: str
    """the three record types, in numpy's notation"""
    agent: int
    """size of an agent's record, in bytes"""
    peers: int


class Sighting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A sighting to report: the detector, the agent (empty if no agent acted), and the entry."""

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
    """True if the sighting may narrow the agent without a person; before that decision: true if it is
    sufficient evidence alone.
    """


class Snapshot(msgspec.Struct, frozen=True):
    """The state besides the pieces: events with numbers below `position` were examined."""

    position: int
    layout: list[Part]
    clock: int

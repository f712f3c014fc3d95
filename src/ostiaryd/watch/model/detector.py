"""The contract of a detector: a module in the folder `detectors/`; the name of the module is the name of the detector.

A detector is pure. Its state is bounded: one record of fixed size per agent, per group of peers, and one for all. The
caller creates the records, all zeros, and saves them; a new detector, a changed record type and a new agent begin with
zeros. A finding must not depend on anything else, nor on the division of events into batches.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.installed import PACKAGE, detector_names

Record = np.dtype[np.void]
Records = NDArray[np.void]
NOTHING: Record = np.dtype([])
"""The record type of a detector that stores nothing of this kind."""


class Kept(NamedTuple):
    """The state of a detector. `notice` changes it in place and must not retain it."""

    agents: Records
    """records of agents, by `Batch.agent`"""
    peers: Records
    """records of peers, by `Batch.peers`: agents of one kind with access to the same resources"""
    all: Records
    """the single record for the whole server"""


class Anomaly(NamedTuple):
    """An anomaly of the event in `row`. `score` is its ratio to the usual value; from `THRESHOLD` on the
    anomaly is reported, with `points`.
    """

    row: int
    score: float
    points: int
    says: str
    """sentence for people, without values of arguments"""
    entries: tuple[int, ...] = ()
    """entries that support the anomaly besides its own entry, newest last"""


class Detector(Protocol):
    """A detector, which is a module: the record types, `THRESHOLD` and `CERTAIN` are constants of the module."""

    @property
    def AGENT(self) -> Record:
        """Return the record type of an agent."""

    @property
    def PEERS(self) -> Record:
        """Return the record type of a group of peers."""

    @property
    def ALL(self) -> Record:
        """Return the type of the record for the whole server."""

    @property
    def THRESHOLD(self) -> float:
        """Return the score from which an anomaly is reported."""

    @property
    def CERTAIN(self) -> bool:
        """Return whether a single anomaly is sufficient evidence (see `ostiaryd.watch.model.narrowing`)."""

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        """Return the anomalies of these events, and learn from the events."""


@cache
def detectors() -> dict[str, Detector]:
    """Return all detectors by name."""
    return {name: cast(Detector, import_module(f"{PACKAGE}.{name}")) for name in detector_names()}


def zeros(detector: Detector, *, agents: int, peers: int) -> Kept:
    """Return the empty state of a detector, for `agents` agents and `peers` groups of peers."""
    return Kept(np.zeros(agents, detector.AGENT), np.zeros(peers, detector.PEERS), np.zeros(1, detector.ALL))

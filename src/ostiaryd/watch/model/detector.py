"""The contract of a detector: a module of the folder `detectors/`, named as the detector.

A detector is pure. Its state is bounded: one record of fixed size per agent, per group of peers, and one for all. The
caller makes the records, all zeros, and saves them; a new detector, a changed record type and a new agent begin with
zeros. A finding may depend on nothing else, and the cut of events into batches must not change the findings.
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
"""The record of a detector that keeps nothing of such a kind."""


class Kept(NamedTuple):
    """The state of a detector, which `notice` changes in place and never retains."""

    agents: Records
    """records of agents, by `Batch.agent`"""
    peers: Records
    """records of peers, by `Batch.peers`: agents of one kind with access to the same resources"""
    all: Records
    """a single record for the whole server"""


class Anomaly(NamedTuple):
    """An anomaly of the event in `row`. `score` is its ratio to the usual; from `THRESHOLD` on it is reported, worth
    `points`.
    """

    row: int
    score: float
    points: int
    says: str
    """sentence for a person, without values of arguments"""
    entries: tuple[int, ...] = ()
    """entries that support the anomaly beside the event's own, newest last"""


class Detector(Protocol):
    """A module: the three records, the threshold and whether it is certain are constants of it."""

    @property
    def AGENT(self) -> Record:
        """Return the record type of an agent."""

    @property
    def PEERS(self) -> Record:
        """Return the record type of a group of peers."""

    @property
    def ALL(self) -> Record:
        """Return the record type for all."""

    @property
    def THRESHOLD(self) -> float:
        """Return the score from which an anomaly is reported."""

    @property
    def CERTAIN(self) -> bool:
        """Return whether an anomaly is evidence alone (see `ostiaryd.watch.model.narrowing`)."""

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        """Return the anomalies of these events with their scores, and learn from the events."""


@cache
def detectors() -> dict[str, Detector]:
    """Return all detectors by name: the modules of their folder."""
    return {name: cast(Detector, import_module(f"{PACKAGE}.{name}")) for name in detector_names()}


def zeros(detector: Detector, *, agents: int, peers: int) -> Kept:
    """Return the empty state of a detector, for so many agents and groups."""
    return Kept(np.zeros(agents, detector.AGENT), np.zeros(peers, detector.PEERS), np.zeros(1, detector.ALL))

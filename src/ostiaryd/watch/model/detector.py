"""The contract of a detector: a module of the folder `detectors/`, whose name is the detector's.

A detector is pure: what it knows is what it keeps, and that is bounded: one record of fixed size for each agent, for
each group of peers, and one for all. Who calls it makes the records, all zeros, and saves them; a detector that is new
or keeps something else than before begins with zeros, and so does an agent that is new. What it says about a batch may
depend on nothing else, and how the events are cut into batches must not matter for what is found.
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
    """What a detector keeps: it changes these records, and never holds on to them."""

    agents: Records
    """by `Batch.agent`"""
    peers: Records
    """by `Batch.peers`: those who are of one kind and may use the same resources"""
    all: Records
    """one"""


class Found(NamedTuple):
    """Something about the event in that row of the batch.

    `score` is how unusual it is, as a ratio: from `THRESHOLD` of its detector on it is told. `points` are what it is
    worth.
    """

    row: int
    score: float
    points: int
    says: str
    """for a person, with no value of an argument in it"""
    entries: tuple[int, ...] = ()
    """on which it rests beside the event's own, the newest last"""


class Detector(Protocol):
    """A module: the three records, the threshold and whether it is certain are constants of it."""

    @property
    def AGENT(self) -> Record: ...

    @property
    def PEERS(self) -> Record: ...

    @property
    def ALL(self) -> Record: ...

    @property
    def THRESHOLD(self) -> float: ...

    @property
    def CERTAIN(self) -> bool:
        """Return whether what it finds is evidence by itself (see `ostiaryd.watch.model.narrowing`)."""

    def notice(self, batch: Batch, kept: Kept) -> list[Found]:
        """What is worth telling of these events, by the score that it has; keeps what it learns from them."""


@cache
def detectors() -> dict[str, Detector]:
    """Return all detectors by name: the modules of their folder."""
    return {name: cast(Detector, import_module(f"{PACKAGE}.{name}")) for name in detector_names()}


def zeros(detector: Detector, *, agents: int, peers: int) -> Kept:
    """What a detector keeps that has seen nothing, of so many agents and groups."""
    return Kept(np.zeros(agents, detector.AGENT), np.zeros(peers, detector.PEERS), np.zeros(1, detector.ALL))

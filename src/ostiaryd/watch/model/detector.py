"""The interface of a detector: a module in the folder `detectors/`, whose name is the name of the detector.

A detector does no I/O. Its state is a record of fixed size per agent, per group of peers, and for the whole server. The
caller creates the records, filled with zeros, and saves them; the records of a new detector, of a detector whose record
type changed, and of a new agent are zeros. A finding must depend on the events and the records only, and not on the
division of events into batches.
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
"""Empty record type, for a detector that stores nothing per agent, per group of peers, or for the server."""


class Kept(NamedTuple):
    """The stored state of a detector. `notice` changes the arrays in place, and must not use them after it returns."""

    agents: Records
    """Records of agents, by the row in `Batch.agent`."""
    peers: Records
    """Records of groups of peers, by the row in `Batch.peers`. Peers are agents of one kind with access to the same
    resources.
    """
    all: Records
    """Array with the one record of the whole server."""


class Anomaly(NamedTuple):
    """An anomaly that a detector found in the event at index `row` of the batch. `score` is the ratio to the usual
    value. If the score reaches the detector's `THRESHOLD`, the anomaly becomes a finding, which adds `points` to the
    risk scores.
    """

    row: int
    score: float
    points: int
    says: str
    """Description for people, without values of arguments."""
    entries: tuple[int, ...] = ()
    """Numbers of further entries that support the anomaly, the newest last. The entry of the event itself is not
    included.
    """


class Detector(Protocol):
    """The interface of a detector module. The properties in capital letters are constants of the module."""

    @property
    def AGENT(self) -> Record:
        """Record type of the state of an agent."""

    @property
    def PEERS(self) -> Record:
        """Record type of the state of a group of peers: agents of the same kind with access to the same resources."""

    @property
    def ALL(self) -> Record:
        """Record type of the state of the whole server."""

    @property
    def THRESHOLD(self) -> float:
        """Minimum score of an anomaly that becomes a finding."""

    @property
    def CERTAIN(self) -> bool:
        """True if one anomaly of this detector is enough for an automatic restriction of the agent, without the budget
        of statistical detectors (`ostiaryd.watch.model.narrowing`).
        """

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        """Return the anomalies of the events in the batch, and update the state `kept` with these events."""


@cache
def detectors() -> dict[str, Detector]:
    """Return all installed detectors by name."""
    return {name: cast(Detector, import_module(f"{PACKAGE}.{name}")) for name in detector_names()}


def zeros(detector: Detector, *, agents: int, peers: int) -> Kept:
    """Return the empty state of a detector, with rows for `agents` agents and `peers` groups of peers."""
    return Kept(np.zeros(agents, detector.AGENT), np.zeros(peers, detector.PEERS), np.zeros(1, detector.ALL))

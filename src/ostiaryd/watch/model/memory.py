"""The memory of behaviour: each agent and each group of peers has a row, in which each detector has a record.

The memory grows with the number of active agents; agents that were inactive for `FORGET_S` seconds are removed. The
memory is saved in pieces, each with a key: the records of an agent are one piece (`ag_..`), the records of a group of
peers are one piece (`peers/..`), and the records of the whole server have several pieces (`all/..`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ostiaryd.watch.model.batch import NOBODY
from ostiaryd.watch.model.detector import Detector, Record, zeros
from ostiaryd.watch.model.sighting import Part, Piece

FIRST = 64
"""Number of rows for agents at the beginning, and the minimum number of rows that are added at once."""
MAX_PEERS = 4096
OTHERS = 1
"""Index of the row that all groups of peers after the first `MAX_PEERS` groups share."""
_SPECIAL = {"nobody": NOBODY, "others": OTHERS}
FORGET_S = 90 * 86_400
CHUNK = 1 << 16
TOLD = 6
"""Number of the newest reports about an agent that are stored to suppress repeated reports."""
OWN: Record = np.dtype(
    [
        ("seen", np.uint32),
        ("peers", np.uint16),
        ("told", np.dtype([("what", np.uint16), ("at", np.uint16), ("points", np.uint8)]), (TOLD,)),
    ]
)
"""The record of an agent beside the records of the detectors: the time of its last event (seconds), the row of its
peers (0: not determined yet), and its newest reports. Each report has its topic (0: none), the minute of the report
(modulo 2^16), and its points.
"""


class Memory:
    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self.detectors = detectors
        self.own: NDArray[np.void] = np.zeros(FIRST, OWN)
        self.kept = {name: zeros(one, agents=FIRST, peers=OTHERS + 1) for name, one in detectors.items()}
        self._rows: dict[str | bytes, int] = {"": NOBODY}
        self._names: list[str | bytes] = [""] * FIRST
        self._free = list(range(FIRST - 1, NOBODY, -1))
        self._peers: dict[int, int] = {}
        self._room = OTHERS + 1
        self._is_new = np.zeros(FIRST, np.bool_)
        """True for each row whose agent changed since the last save."""
        self._saved: dict[str, int] = {}
        """Hash of the last saved content of each piece, by its key. Pieces of agents are not included."""
        self._gone: list[str] = []

    def __len__(self) -> int:
        """Return the number of known agents."""
        return len(self._rows) - 1

    def row(self, agent: str) -> int:
        """Return the row of the records of the agent with the id `agent`. An unknown agent gets a free row, filled with
        zeros.
        """
        short = _short(agent)
        row = self._rows.get(short)
        if row is None:
            if not self._free:
                self._grow()
            row = self._rows[short] = self._free.pop()
            self._names[row] = short
        return row

    def name(self, row: int) -> str:
        """Return the id of the agent in a row."""
        return _long(self._names[row])

    def peers(self, group: int) -> int:
        """Return the row of the records of a group of peers. `group` is the hash of the name of the group. An unknown
        group gets a free row, or, after `MAX_PEERS` groups, the shared row `OTHERS`.
        """
        row = self._peers.get(group)
        if row is None:
            if len(self._peers) >= MAX_PEERS:
                return OTHERS
            row = self._peers[group] = OTHERS + 1 + len(self._peers)
            if row >= self._room:
                self._room *= 2
                self.kept = {
                    name: kept._replace(peers=_longer(kept.peers, self._room)) for name, kept in self.kept.items()
                }
        return row

    def touch(self, rows: NDArray[np.int64], *, now_s: int) -> None:
        """Record that the agents in these rows acted at `now_s` (seconds since the epoch), and mark their records for
        the next snapshot.
        """
        self._is_new[rows] = True
        self.own["seen"][rows] = now_s

    def change(self, agent: str) -> None:
        """Forget to which group of peers an agent belongs, because a fact about the agent has changed. The group is
        determined again when the agent acts next.
        """
        if (row := self._rows.get(_short(agent))) is not None:
            self.own["peers"][row] = 0

    def forget(self, *, now_s: int) -> int:
        """Remove the records of agents that were inactive for `FORGET_S` seconds; return the number of
        removed agents.
        """
        last_seen = self.own["seen"]
        old = [name for name, row in self._rows.items() if row != NOBODY and int(last_seen[row]) < now_s - FORGET_S]
        for name in old:
            row = self._rows.pop(name)
            for kept in self.kept.values():
                kept.agents[row] = np.zeros((), kept.agents.dtype)
            self.own[row] = np.zeros((), OWN)
            self._names[row], self._is_new[row] = "", False
            self._free.append(row)
        self._gone += map(_long, old)
        return len(old)

    # --- saving -----------------------------------------------------------------------------------------------------

    @property
    def layout(self) -> list[Part]:
        """Return the layout of a piece of a snapshot: the record types of each detector, in the order in which the
        records follow each other.
        """
        return [
            Part(name, repr((one.AGENT.descr, one.PEERS.descr, one.ALL.descr)), one.AGENT.itemsize, one.PEERS.itemsize)
            for name, one in self.detectors.items()
        ]

    def changed(self) -> tuple[list[Piece], list[str]]:
        """Return the pieces of a snapshot that changed since the last call, and the keys of pieces that no longer
        exist.
        """
        rows = np.flatnonzero(self._is_new)
        self._is_new[:] = False
        gone, self._gone = self._gone, []
        agents = [Piece(self.name(row), self._body(row)) for row in rows.tolist()]
        others = []
        for piece in self._others():
            if self._saved.get(piece.key) != (digest := hash(piece.body)):
                self._saved[piece.key] = digest
                others.append(piece)
        return agents + others, [name for name in gone if _short(name) not in self._rows]

    def _body(self, row: int) -> bytes:
        return b"".join((self.own[row].tobytes(), *(kept.agents[row].tobytes() for kept in self.kept.values())))

    def _others(self) -> Iterator[Piece]:
        for name, row in (*_SPECIAL.items(), *((f"{group:016x}", row) for group, row in self._peers.items())):
            yield Piece(f"peers/{name}", b"".join(kept.peers[row].tobytes() for kept in self.kept.values()))
        for name, kept in self.kept.items():
            body = kept.all.tobytes()
            for start in range(0, len(body), CHUNK):
                yield Piece(f"all/{name}/{start:08x}", body[start : start + CHUNK])

    def load(self, layout: Sequence[Part], pieces: Iterable[Piece]) -> None:
        """Load the saved pieces of a snapshot into this empty memory. `layout` is the layout with which they were
        saved. Records of detectors whose record types have changed since then are left out.
        """
        same = set(layout) & set(self.layout)
        names = {part.detector for part in same}
        for key, body in pieces:
            kind, _, rest = key.partition("/")
            if kind == "all":
                name, _, start = rest.partition("/")
                if name in names:
                    whole, at = self.kept[name].all.view(np.uint8), int(start, 16)
                    whole[at : at + len(body)] = np.frombuffer(body, np.uint8)
            elif kind == "peers":
                row, at = _SPECIAL[rest] if rest in _SPECIAL else self.peers(int(rest, 16)), 0
                for part in layout:
                    if part in same:
                        _put(self.kept[part.detector].peers, row, body[at : at + part.peers])
                    at += part.peers
            else:
                row, at = self.row(key), OWN.itemsize
                _put(self.own, row, body[:at])
                self.own["peers"][row] = 0
                for part in layout:
                    if part in same:
                        _put(self.kept[part.detector].agents, row, body[at : at + part.agent])
                    at += part.agent
        self._saved = {piece.key: hash(piece.body) for piece in self._others()}

    def _grow(self) -> None:
        size = len(self.own)
        grown = size + max(FIRST, size // 64)  # a fraction of the size, because unused rows take memory too
        self.own = _longer(self.own, grown)
        self.kept = {name: kept._replace(agents=_longer(kept.agents, grown)) for name, kept in self.kept.items()}
        self._is_new = np.append(self._is_new, np.zeros(grown - size, np.bool_))
        self._names += [""] * (grown - size)
        self._free += range(grown - 1, size - 1, -1)


def _short(agent: str) -> str | bytes:
    """Return an agent's id as 16 bytes, which take less memory. An id of another form is returned unchanged."""
    if len(agent) == 35 and agent.startswith("ag_"):
        with suppress(ValueError):
            short = bytes.fromhex(agent[3:])
            if len(short) == 16 and agent.islower():
                return short
    return agent


def _long(short: str | bytes) -> str:
    return short if isinstance(short, str) else f"ag_{short.hex()}"


def _longer(records: NDArray[np.void], size: int) -> NDArray[np.void]:
    grown = np.zeros(size, records.dtype)
    grown[: len(records)] = records
    return grown


def _put(records: NDArray[np.void], row: int, body: bytes) -> None:
    if body:
        records[row] = np.frombuffer(body, records.dtype)[0]

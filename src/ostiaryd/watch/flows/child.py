"""The process of the detectors: reads new entries of the ledger, and sends sightings to the server. This process writes
nothing to the database.

    from the server: orders, one byte each: `w` read new entries; `m` send the next part of the snapshot; end of the
                     pipe: end the process
    to the server:   frames, see `ostiaryd.watch.model.frames`

If several servers use one database, the process of only one of them works; when that process ends, another takes over.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from functools import lru_cache
from io import FileIO
from typing import IO

import msgspec

from ostiary.protocol.decoding import json_decoder, msgpack_decoder
from ostiaryd.ground.config import read_places
from ostiaryd.ground.database import Database, DatabaseUnavailable, Reader
from ostiaryd.ground.process.children import send
from ostiaryd.ground.process.clock import boot_clock
from ostiaryd.ledger import flows as ledger
from ostiaryd.watch import store
from ostiaryd.watch.flows.fact_cache import FactCache
from ostiaryd.watch.model import Piece, Reading, Snapshot, Waiting
from ostiaryd.watch.model.detector import detectors
from ostiaryd.watch.model.frames import Examined, Findings, Frame, Orders, Pieces, Ready, Saved, Standby, encode
from ostiaryd.watch.model.watcher import Watcher

LOCK = 1
ROUND = 2048
"""Maximum number of ledger entries that the process reads at once."""
LEARN = 100_000
"""Number of the newest entries from which the detectors learn when they run for the first time."""
IDLE_S = 1.0
"""Maximum seconds between two reads of the ledger. The process reads even without an order of its server, because
another server of the database may have written entries.
"""
PAUSE_S = 0.01
"""Minimum time between two reads, in seconds, so that entries that arrive close together are read at once."""
SAY_S = 0.1
"""Minimum time between two reports of the position to the server, in seconds."""
PAGE = 1000
CHUNK = 100
"""Number of pieces of a snapshot that are sent at once."""
SECOND = 1_000_000


def main() -> None:
    """Run the process of the detectors until the server closes its pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server handles them and then ends this process
        signal.signal(number, signal.SIG_IGN)
    orders, out = os.fdopen(0, "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of `print` goes to stderr, because stdout carries the frames
    first_orders = json_decoder(Orders)(orders.readline())
    try:
        _run(Database(first_orders.database), first_orders, orders, out)
    except DatabaseUnavailable as error:  # the server starts another process
        sys.exit(f"the process of the detectors ends: {error.message}")


def _run(db: Database, first_orders: Orders, orders: FileIO, out: IO[bytes]) -> None:
    holder = db.connect()
    if not holder.take(LOCK):
        send(out, encode(Standby()))
        while not holder.take(LOCK):
            _wait(orders, IDLE_S)
    Work(Reader(holder), first_orders, out).run(orders)


def pause_s(since_read: int) -> float:
    """Return the pause before the next read of the ledger, in seconds. `since_read` is the time since the last read, in
    microseconds.
    """
    return max(0.0, PAUSE_S - since_read / SECOND)


class Work:
    def __init__(self, reader: Reader, first_orders: Orders, out: IO[bytes]) -> None:
        """Create the detectors' work. `reader` must use the connection that holds the lock of the detectors, because
        the database releases the lock when this connection is lost.
        """
        self._reader, self._given, self._out = reader, first_orders, out
        self._known = FactCache(self._reader)
        self._watcher = Watcher(detectors(), budget=first_orders.budget, peers_of=self._known.peers)
        self._waiting = Waiting()
        self._chunks: list[Pieces | Saved] = []
        """Parts of the present snapshot that were not sent yet, the next part last."""
        self._saved_at = self._read_at = boot_clock()
        """Times of the last snapshot and of the last read, in microseconds of the boot clock."""
        self._unsaved = False
        self._said, self._said_at = 0, 0

    def run(self, orders: FileIO) -> None:
        """Load the last snapshot of the detectors' state, then read ledger entries and send findings to the server,
        until the server closes the pipe.
        """
        size = ledger.get_head(self._reader)[0].size
        progress = store.snapshots.progress(self._reader)
        if progress.snapshot is None:
            self._watcher.position = max(0, size - LEARN)
        else:
            snapshot = msgpack_decoder(Snapshot)(progress.snapshot)
            self._watcher.load(snapshot, _pieces(self._reader, progress.generation))
        place_of = lru_cache(maxsize=4096)(read_places(self._given.places).of)
        self._reading = Reading(
            tool_of=self._known.tool,
            model_of=self._known.model,
            threat_of=self._known.threat,
            place_of=place_of,
            changed=self._changed,
            now=self._watcher.clock,
        )
        self._said = self._read_to = self._watcher.position
        self._report(Ready(self._said))
        while True:
            is_behind = self._round()
            self._report_progress()
            order = _wait(orders, 0.0 if is_behind else self._rest())
            if b"m" in order and self._chunks:
                self._report(self._chunks.pop())
            if not is_behind:
                time.sleep(pause_s(boot_clock() - self._read_at))
            if self._unsaved and not self._chunks and boot_clock() - self._saved_at > self._given.snapshot_s * SECOND:
                self._save()

    def _round(self) -> bool:
        """Read new entries, and examine the waiting events if an examination is due. Return true if as many entries as
        possible were read, so that more may wait.
        """
        bodies = ledger.list_entry_bodies(self._reader, self._read_to, ROUND)
        events = [self._reading.read(number, body) for number, body in enumerate(bodies, self._read_to)]
        self._waiting.add(event for event in events if event is not None)
        self._read_to += len(bodies)
        if self._has_unseen and self._waiting.due_in(now := boot_clock()) == 0:
            sightings = self._watcher.take(self._waiting.take(now))
            self._watcher.position = self._read_to
            self._unsaved = True
            if sightings:
                self._report(Findings(sightings))
        self._read_at = boot_clock()
        return len(bodies) == ROUND

    def _rest(self) -> float:
        """Return the maximum time to wait for an order, in seconds."""
        if self._has_unseen:
            return self._waiting.due_in(boot_clock()) / SECOND
        return SAY_S if self._is_ahead else IDLE_S

    @property
    def _has_unseen(self) -> bool:
        """Return whether entries were read that the detectors have not examined yet."""
        return self._read_to > self._watcher.position

    def _report_progress(self) -> None:
        watcher = self._watcher
        if self._is_ahead and boot_clock() - self._said_at >= SAY_S * SECOND:
            self._said, self._said_at = watcher.position, boot_clock()
            failing = watcher.failing | ({"reading": self._reading.failed} if self._reading.failed else {})
            self._report(Examined(watcher.position, len(watcher.memory), failing, watcher.status))

    @property
    def _is_ahead(self) -> bool:
        """Return whether the detectors have examined entries since the last report of their position."""
        return self._watcher.position > self._said

    def _changed(self, action: str, object: str) -> None:
        self._known.forget(action, object)
        self._watcher.memory.change(object)

    def _save(self) -> None:
        snapshot, pieces, gone = self._watcher.snapshot()
        chunks = [Pieces(pieces[start : start + CHUNK]) for start in range(0, len(pieces), CHUNK)]
        self._chunks = [Saved(msgspec.msgpack.encode(snapshot), gone), *reversed(chunks)]
        self._report(self._chunks.pop())
        self._saved_at, self._unsaved = boot_clock(), False

    def _report(self, frame: Frame) -> None:
        send(self._out, encode(frame))


def _pieces(reader: Reader, generation: int) -> list[Piece]:
    changed: list[Piece] = []
    after = ""
    while page := store.snapshots.pieces(reader, generation, after=after, limit=PAGE):
        changed += page
        after = page[-1].key
    return changed


def _wait(orders: FileIO, seconds: float) -> bytes:
    """Return the orders that the server sent, after waiting at most `seconds`; empty if none arrived. End the process
    if the server has closed the pipe.
    """
    ready, _, _ = select.select([orders], [], [], seconds)
    if not ready:
        return b""
    if not (order := os.read(orders.fileno(), 4096)):
        sys.exit(0)
    return order

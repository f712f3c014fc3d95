"""The process of the detectors: reads new entries of the ledger, and reports sightings. It writes nothing.

    from the server: orders, one byte each: `w` new entries; `m` send more of the snapshot; end of the pipe: stop
    to the server: frames, see `ostiaryd.watch.model.frames`

Of all these processes of a database, one works at a time; when it ends, another takes over.
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
"""maximum number of entries of one read"""
LEARN = 100_000
"""number of earlier entries that the detectors learn from when they run for the first time"""
IDLE_S = 1.0
"""maximum time between two reads without an order, in seconds: another server may have written entries"""
PAUSE_S = 0.01
"""minimum time between two reads, in seconds: entries of one interval are read together"""
SAY_S = 0.1
"""minimum time between two reports of the position, in seconds"""
PAGE = 1000
CHUNK = 100
"""number of pieces that are written in one transaction"""
SECOND = 1_000_000


def main() -> None:
    """Run the process of the detectors until the server ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server handles them and then ends this process
        signal.signal(number, signal.SIG_IGN)
    orders, out = os.fdopen(0, "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # printed text must not reach the frames
    first_orders = json_decoder(Orders)(orders.readline())
    try:
        _run(Database(first_orders.database), first_orders, orders, out)
    except DatabaseUnavailable as error:  # the server starts another process
        sys.exit(f"the detectors end: {error.message}")


def _run(db: Database, first_orders: Orders, orders: FileIO, out: IO[bytes]) -> None:
    holder = db.connect()
    if not holder.take(LOCK):
        send(out, encode(Standby()))
        while not holder.take(LOCK):
            _wait(orders, IDLE_S)
    Work(Reader(holder), first_orders, out).run(orders)


def pause_s(since_read: int) -> float:
    """Return the time until the next read in seconds, `since_read` microseconds after the last read."""
    return max(0.0, PAUSE_S - since_read / SECOND)


class Work:
    def __init__(self, reader: Reader, first_orders: Orders, out: IO[bytes]) -> None:
        """Start on a `reader` whose connection holds the lock: if the connection is lost, the lock is lost too."""
        self._reader, self._given, self._out = reader, first_orders, out
        self._known = FactCache(self._reader)
        self._watcher = Watcher(detectors(), budget=first_orders.budget, peers_of=self._known.peers)
        self._waiting = Waiting()
        self._chunks: list[Pieces | Saved] = []
        """parts of a snapshot that were not sent yet, in reverse order"""
        self._saved_at = self._read_at = boot_clock()
        """times of the last snapshot and of the last read, in microseconds"""
        self._unsaved = False
        self._said, self._said_at = 0, 0

    def run(self, orders: FileIO) -> None:
        """Read new entries and report findings until the server ends the process."""
        size = ledger.get_head(self._reader)[0].size
        progress = store.progress(self._reader)
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
        self._say(Ready(self._said))
        while True:
            is_behind = self._round()
            self._say_how_far()
            order = _wait(orders, 0.0 if is_behind else self._rest())
            if b"m" in order and self._chunks:
                self._say(self._chunks.pop())
            if not is_behind:
                time.sleep(pause_s(boot_clock() - self._read_at))
            if self._unsaved and not self._chunks and boot_clock() - self._saved_at > self._given.snapshot_s * SECOND:
                self._save()

    def _round(self) -> bool:
        """Read new entries, and examine waiting events that are due; return whether there may be more entries
        to read.
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
                self._say(Findings(sightings))
        self._read_at = boot_clock()
        return len(bodies) == ROUND

    def _rest(self) -> float:
        """Return the maximum time to wait for an order, in seconds."""
        if self._has_unseen:
            return self._waiting.due_in(boot_clock()) / SECOND
        return SAY_S if self._is_ahead else IDLE_S

    @property
    def _has_unseen(self) -> bool:
        """Return whether some entries were read and not examined yet."""
        return self._read_to > self._watcher.position

    def _say_how_far(self) -> None:
        watcher = self._watcher
        if self._is_ahead and boot_clock() - self._said_at >= SAY_S * SECOND:
            self._said, self._said_at = watcher.position, boot_clock()
            failing = watcher.failing | ({"reading": self._reading.failed} if self._reading.failed else {})
            self._say(Examined(watcher.position, len(watcher.memory), failing, watcher.status))

    @property
    def _is_ahead(self) -> bool:
        """Return whether the position is ahead of the position that was reported last."""
        return self._watcher.position > self._said

    def _changed(self, action: str, object: str) -> None:
        self._known.forget(action, object)
        self._watcher.memory.change(object)

    def _save(self) -> None:
        snapshot, pieces, gone = self._watcher.snapshot()
        chunks = [Pieces(pieces[start : start + CHUNK]) for start in range(0, len(pieces), CHUNK)]
        self._chunks = [Saved(msgspec.msgpack.encode(snapshot), gone), *reversed(chunks)]
        self._say(self._chunks.pop())
        self._saved_at, self._unsaved = boot_clock(), False

    def _say(self, frame: Frame) -> None:
        send(self._out, encode(frame))


def _pieces(reader: Reader, generation: int) -> list[Piece]:
    changed: list[Piece] = []
    after = ""
    while page := store.pieces(reader, generation, after=after, limit=PAGE):
        changed += page
        after = page[-1].key
    return changed


def _wait(orders: FileIO, seconds: float) -> bytes:
    """Return pending orders, waiting at most `seconds`; empty if none arrives. Ends the process if the server
    is gone.
    """
    ready, _, _ = select.select([orders], [], [], seconds)
    if not ready:
        return b""
    if not (order := os.read(orders.fileno(), 4096)):
        sys.exit(0)
    return order

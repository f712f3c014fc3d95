"""The detectors on the side of the server: starts their process, notifies it of each commit, and stores its findings.

Findings are stored in order, each in its own act. If an act fails, or the process ends, the process is started again
from its last snapshot: `keep` skips the findings that are stored already.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio.subprocess import Process
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Conflict, Unavailable
from ostiaryd.ground.database import DatabaseUnavailable, Reader
from ostiaryd.ground.database.line import overtaking
from ostiaryd.ground.process.children import receive, spawn
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.watch import store
from ostiaryd.watch.flows.findings import Then, begin, keep, nothing
from ostiaryd.watch.model import INSTALL, Sighting, Snapshot, can_detect, detector_names
from ostiaryd.watch.model.frames import Examined, Findings, Frame, Orders, Pieces, Ready, Saved, Standby, decode

CHILD = "ostiaryd.watch.flows.child:main"
NICE = 5
SNAPSHOT_S = 60.0
PAUSES_S = (0.2, 1.0, 5.0, 30.0)
"""Pauses before the process is started again, in seconds: longer after each run of less than a minute."""
MAX_BEHIND_S = 5.0
"""maximum time until the detectors have examined an entry, in seconds"""
MAX_UNSAVED_S = 300
"""maximum time until another server's process has saved its position, in seconds"""
SECOND = 1_000_000
OFF = "off"
log = logging.getLogger("ostiary")


@dataclass(slots=True)
class State:
    """The state of the detectors. `phase`: starting, standby (another process of this database runs them),
    working, ended, or off (the extra `detect` is not installed).
    """

    phase: str = "starting"
    position: int = 0
    """entries below this index were examined, and their findings are stored"""
    moved_at: int = 0
    agents: int = 0
    starts: int = 0
    pid: int = 0
    error: str = ""
    """the reason for the last end of the process; empty before the first"""
    failing: dict[str, str] = field(default_factory=dict)
    """detectors that failed, each with the error: they examined no events of that batch"""
    narrowing: dict[str, float] = field(default_factory=dict)
    """the narrowing budget of statistical detectors"""
    unanswered: deque[str] = field(default_factory=lambda: deque(maxlen=16))
    """findings whose response failed"""


class Watch:
    """The server's handle of the detectors' process. Use it only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._child: Process | None = None
        self._moved = asyncio.Event()
        self.state = State()
        self.snapshot_s = SNAPSHOT_S
        world.writer.listeners.append(self._on_commit)

    async def run(self, then: Then) -> None:
        """Run the process until it ends. Raises Unavailable."""
        state = self.state
        state.phase, state.starts = "starting", state.starts + 1
        child = self._child = await spawn(CHILD, nice=NICE)
        state.pid = child.pid
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            config = self._world.config
            orders = Orders(config.database_url, config.narrow_budget / 10_000, self.snapshot_s, config.places)
            child.stdin.write(msgspec.json.encode(orders) + b"\n")
            generation = 0
            while True:
                frame = decode(await receive(child.stdout))
                generation = await self._take(frame, then, generation)
        except EOFError:
            raise Unavailable(f"the detector process ended with status {await child.wait()}") from None
        finally:
            state.phase = "ended"
            self._child = None
            await _end(child)

    async def _take(self, frame: Frame, then: Then, generation: int) -> int:
        """Process a frame; return the generation of the snapshot that is being written."""
        world, state = self._world, self.state
        match frame:
            case Standby():
                state.phase = "standby"
            case Ready(position):
                progress = store.progress(world.db.read())
                await world.writer.submit(lambda tx: store.drop_unfinished(tx, progress.generation))
                state.phase, state.position, state.moved_at = "working", position, world.now()
                return progress.generation + 1
            case Findings(sightings):
                for one in sightings:
                    await self._keep(one, then)
            case Examined(position, agents, failing, narrowing):
                state.position, state.agents, state.moved_at = position, agents, world.now()
                state.failing, state.narrowing = failing, narrowing
                self._moved.set()
            case Pieces(pieces):
                await world.writer.submit(lambda tx: store.put_pieces(tx, generation, pieces))
                self._order(b"m")
            case Saved(snapshot, gone):
                await world.writer.submit(lambda tx: store.finish(tx, generation, snapshot, gone))
                return generation + 1
        return generation

    async def _keep(self, one: Sighting, then: Then) -> None:
        """Store a sighting. If its response fails, store the sighting without a response: it is not lost, and
        does not block others.
        """
        world = self._world
        if store.progress(world.db.read()).is_stored(one.number, one.detector):
            return
        try:
            with overtaking():
                await act(world, "watch.find", partial(keep, one=one, then=then))
        except Exception as error:
            log.exception("the response to what was noticed at entry %d failed", one.number)
            self.state.unanswered.append(f"entry {one.number}: {type(error).__name__}: {error}"[:200])
            await act(world, "watch.find", partial(keep, one=one, then=nothing))

    def _on_commit(self, topics: set[str]) -> None:
        if ledger.TOPIC in topics:
            self._order(b"w")

    def _order(self, order: bytes) -> None:
        """Send an order to the process. An order to read new entries is left out while an earlier order is unsent."""
        child = self._child
        if child is not None and child.stdin is not None and not child.stdin.is_closing():
            if order == b"w" and child.stdin.transport.get_write_buffer_size():
                return
            child.stdin.write(order)

    async def settled(self, number: int, *, within_s: float) -> bool:
        """Return whether the detectors have examined the entry, waiting at most `within_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.state.position <= number:
                    self._moved.clear()
                    await self._moved.wait()
        return self.state.position > number

    async def examine(self) -> str:
        """Describe the detectors, after they have examined the newest entry. Raises Conflict if they are off,
        failing or behind.
        """
        state, reader = self.state, self._world.db.read()
        last = ledger.get_head(reader)[0].size - 1
        if state.phase == OFF:
            raise Conflict(detectors_off(), hint=f"turn them on: {INSTALL}, then restart the server")
        if not state.starts:
            raise Conflict("the detectors were never started", hint="restart the server")
        if state.phase == "standby":
            self._check_others(reader, last)
            return "another server of this database has them at work"
        if not await self.settled(last, within_s=MAX_BEHIND_S):
            why = f": {state.error}" if state.error else ""
            raise Conflict(
                f"the detectors are {last + 1 - state.position} entries behind, their process is {state.phase}{why}",
                hint="detection is paused: see the log; the server restarts the process",
            )
        if state.failing:
            name, error = next(iter(state.failing.items()))
            raise Conflict(f"`{name}` failed at {error}", hint="the detector examined nothing there: report the defect")
        if state.unanswered:
            raise Conflict(f"no response was made to a finding: {state.unanswered[-1]}", hint="see the log")
        return f"{len(detector_names())} detectors have looked at entry {last}, and know {state.agents} agents"

    def _check_others(self, reader: Reader, last: int) -> None:
        """Check the saved position of another server's process. Raises Conflict if the position is behind."""
        saved = store.progress(reader).snapshot
        position = 0 if saved is None else msgpack_decoder(Snapshot)(saved).position
        body = ledger.get_entry_body(reader, position) if position <= last else None
        if body is not None and self._world.now() - decode_entry(body).at > MAX_UNSAVED_S * SECOND:
            raise Conflict(
                f"another process runs the detectors, and has not read entry {position}"
                f" within {MAX_UNSAVED_S / 60:.0f} minutes",
                hint="end that process if it hangs; this server then takes over",
            )

    async def close(self) -> None:
        """End the process."""
        if self._child is not None:
            await _end(self._child)


async def _end(child: Process) -> None:
    """Close the pipe for orders, which ends the process; kill the process if it does not end."""
    if child.stdin is not None:
        child.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(2):
            await child.wait()
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def detectors_off() -> str:
    """Return the message that all detectors are off because numpy is not installed."""
    names = detector_names()
    return f"{len(names)} detectors are off, because numpy is not installed: {', '.join(names)}"


async def watch(world: World, *, then: Then) -> None:
    """Keep the process of the detectors running; `then` runs in the act that stores a finding.

    Without numpy, log which detectors are off and return.
    """
    kept = world.keep(Watch)
    if not can_detect():
        kept.state.phase = OFF
        log.warning("%s; turn them on with: %s", detectors_off(), INSTALL)
        return
    has_begun, failed = False, 0
    while True:
        started = world.now()
        try:
            if not has_begun:
                await world.writer.submit(begin)
                has_begun = True
            await kept.run(then)
        except Exception as error:  # noqa: BLE001 because whatever ends it, it is started anew
            kept.state.error = f"{type(error).__name__}: {error}"[:200]
            log.error("the process of the detectors ended: %s", kept.state.error)
        failed = 0 if world.now() - started > 60_000_000 else failed + 1
        try:
            await act(world, "watch.restart", partial(_restart, why=kept.state.error))
        except DatabaseUnavailable as error:
            log.warning("the entry of a response is missing: %s", error.message)
        await asyncio.sleep(PAUSES_S[min(failed, len(PAUSES_S)) - 1] if failed else 0)


def _restart(act: Act, why: str) -> None:
    act.entry.detail = {"why": why}

"""The server's side of the detectors: starts their process, notifies it of each commit, and stores its findings.

Findings are stored in the order of the entries, each in a separate act. If an act fails or the process ends, the server
starts the process again from the last snapshot; `record_sighting` skips findings that are already stored.
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
from ostiaryd.watch.flows.findings import Response, no_response, record_sighting, start_at_end_of_ledger
from ostiaryd.watch.model import INSTALL, Sighting, Snapshot, can_detect, detector_names
from ostiaryd.watch.model.frames import Examined, Findings, Frame, Orders, Pieces, Ready, Saved, Standby, decode

CHILD = "ostiaryd.watch.flows.child:main"
NICE = 5
SNAPSHOT_S = 60.0
PAUSES_S = (0.2, 1.0, 5.0, 30.0)
"""Pauses before a restart of the process, in seconds. Each further run of less than a minute takes the next pause; a
run of more than a minute is followed by no pause.
"""
MAX_BEHIND_S = 5.0
"""Maximum time that `examine` waits for the detectors to examine the newest entry, in seconds."""
MAX_UNSAVED_S = 300
"""Maximum age of the first entry beyond the saved position of another server's process, in seconds."""
SECOND = 1_000_000
OFF = "off"
log = logging.getLogger("ostiary")


@dataclass(slots=True)
class State:
    """The state of the detectors' process, as this server knows it. `phase`: starting, standby (another server of this
    database runs the detectors), working, ended, or off (the extra `detect` is not installed).
    """

    phase: str = "starting"
    position: int = 0
    """Index of the first entry that the detectors have not examined. All findings about earlier entries are stored."""
    agents: int = 0
    starts: int = 0
    pid: int = 0
    error: str = ""
    """Reason for the last end of the process; empty before the first end."""
    failing: dict[str, str] = field(default_factory=dict)
    """Name of each detector that failed, with the error. A failed detector did not examine the events of that batch."""
    narrowing: dict[str, float] = field(default_factory=dict)
    """State of the budget of statistical detectors: see `Narrowing.status`."""
    unanswered: deque[str] = field(default_factory=lambda: deque(maxlen=16))
    """The newest findings whose response failed, each with its entry and the error."""


class Watch:
    """The process of the detectors, as this server starts and reads it. Use it only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._child: Process | None = None
        self._moved = asyncio.Event()
        self.state = State()
        self.snapshot_s = SNAPSHOT_S
        world.writer.listeners.append(self._on_commit)

    async def run(self, then: Response) -> None:
        """Start the process of the detectors, and handle its messages until the process ends. `then`: the response,
        which runs with each new finding. Always raises: Unavailable when the process has ended.
        """
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

    async def _take(self, frame: Frame, then: Response, generation: int) -> int:
        """Handle a frame of the process; return the number (generation) of the snapshot that the process is sending."""
        world, state = self._world, self.state
        match frame:
            case Standby():
                state.phase = "standby"
            case Ready(position):
                progress = store.snapshots.progress(world.db.read())
                await world.writer.submit(lambda tx: store.snapshots.drop_unfinished(tx, progress.generation))
                state.phase, state.position = "working", position
                return progress.generation + 1
            case Findings(sightings):
                for one in sightings:
                    await self._keep(one, then)
            case Examined(position, agents, failing, narrowing):
                state.position, state.agents = position, agents
                state.failing, state.narrowing = failing, narrowing
                self._moved.set()
            case Pieces(pieces):
                await world.writer.submit(lambda tx: store.snapshots.put_pieces(tx, generation, pieces))
                self._order(b"m")
            case Saved(snapshot, gone):
                await world.writer.submit(lambda tx: store.snapshots.finish(tx, generation, snapshot, gone))
                return generation + 1
        return generation

    async def _keep(self, one: Sighting, then: Response) -> None:
        """Store a sighting as a finding, with the response `then`. If the response fails, store the finding without a
        response, so that later findings are not blocked.
        """
        world = self._world
        if store.snapshots.progress(world.db.read()).is_stored(one.number, one.detector):
            return
        try:
            with overtaking():
                await act(world, "watch.find", partial(record_sighting, one=one, then=then))
        except Exception as error:
            log.exception("the response to the finding about entry %d failed", one.number)
            self.state.unanswered.append(f"entry {one.number}: {type(error).__name__}: {error}"[:200])
            await act(world, "watch.find", partial(record_sighting, one=one, then=no_response))

    def _on_commit(self, topics: set[str]) -> None:
        if ledger.TOPIC in topics:
            self._order(b"w")

    def _order(self, order: bytes) -> None:
        """Send an order to the process. The order `w` (new entries) is left out while earlier orders are
        not sent yet.
        """
        child = self._child
        if child is not None and child.stdin is not None and not child.stdin.is_closing():
            if order == b"w" and child.stdin.transport.get_write_buffer_size():
                return
            child.stdin.write(order)

    async def settled(self, number: int, *, within_s: float) -> bool:
        """Wait at most `within_s` seconds until the detectors have examined the ledger entry `number`; return whether
        they have.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.state.position <= number:
                    self._moved.clear()
                    await self._moved.wait()
        return self.state.position > number

    async def examine(self) -> str:
        """Wait until the detectors have examined the newest ledger entry, and return a description of their state for
        `ostiary doctor`. Raises Conflict if the detectors are off, have failed, or do not reach the newest entry in
        time.
        """
        state, reader = self.state, self._world.db.read()
        last = ledger.get_head(reader)[0].size - 1
        if state.phase == OFF:
            raise Conflict(detectors_off(), hint=f"turn them on: {INSTALL}, then restart the server")
        if not state.starts:
            raise Conflict("the detectors were never started", hint="restart the server")
        if state.phase == "standby":
            self._check_others(reader, last)
            return "the detectors run at another server of this database"
        if not await self.settled(last, within_s=MAX_BEHIND_S):
            why = f": {state.error}" if state.error else ""
            raise Conflict(
                f"the detectors are {last + 1 - state.position} entries behind, their process is {state.phase}{why}",
                hint="detection is paused: see the log; the server restarts the process",
            )
        if state.failing:
            name, error = next(iter(state.failing.items()))
            raise Conflict(
                f"the detector `{name}` failed at {error}",
                hint="report the defect: the detector did not examine the events around that entry",
            )
        if state.unanswered:
            raise Conflict(
                f"the response to a finding failed: {state.unanswered[-1]}",
                hint="search the server's log for this error",
            )
        return f"{len(detector_names())} detectors have examined entry {last}, and know {state.agents} agents"

    def _check_others(self, reader: Reader, last: int) -> None:
        """Check the saved position of another server's process. Raises Conflict if that process has left an entry
        unread for more than `MAX_UNSAVED_S`. `last` is the number of the newest entry.
        """
        saved = store.snapshots.progress(reader).snapshot
        position = 0 if saved is None else msgpack_decoder(Snapshot)(saved).position
        body = ledger.get_entry_body(reader, position) if position <= last else None
        if body is not None and self._world.now() - decode_entry(body).at > MAX_UNSAVED_S * SECOND:
            raise Conflict(
                f"another server's process runs the detectors, and has not read entry {position} within "
                f"{MAX_UNSAVED_S / 60:.0f} minutes",
                hint="if that process hangs, end it; the process of this server then takes over",
            )

    async def close(self) -> None:
        """End the process, if it runs."""
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
    """Return the message that names the detectors, all of which are off because numpy is not installed."""
    names = detector_names()
    return f"{len(names)} detectors are off, because numpy is not installed: {', '.join(names)}"


async def watch(world: World, *, then: Response) -> None:
    """Run the process of the detectors, and restart it each time it ends. `then`: the response to a finding, which runs
    in the transaction that stores the finding.

    Without numpy, log which detectors are off, and return.
    """
    kept = world.get_singleton(Watch)
    if not can_detect():
        kept.state.phase = OFF
        log.warning("%s; turn them on with: %s", detectors_off(), INSTALL)
        return
    has_begun, failed = False, 0
    while True:
        started = world.now()
        try:
            if not has_begun:
                await world.writer.submit(start_at_end_of_ledger)
                has_begun = True
            await kept.run(then)
        except Exception as error:  # noqa: BLE001 because whatever ends it, it is started anew
            kept.state.error = f"{type(error).__name__}: {error}"[:200]
            log.error("the process of the detectors ended: %s", kept.state.error)
        failed = 0 if world.now() - started > 60_000_000 else failed + 1
        try:
            await act(world, "watch.restart", partial(_restart, why=kept.state.error))
        except DatabaseUnavailable as error:
            log.warning("cannot record the restart of the detectors: %s", error.message)
        await asyncio.sleep(PAUSES_S[min(failed, len(PAUSES_S)) - 1] if failed else 0)


def _restart(act: Act, why: str) -> None:
    act.entry.detail = {"why": why}

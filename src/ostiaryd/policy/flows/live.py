"""Live entries of the ledger as server-sent events (HTML 9.2), for callers who may read them.

Each stream has a position in the ledger and reads from there. A stream that was interrupted therefore continues at its
`Last-Event-ID` without a lost or repeated entry, and a slow reader costs no memory. All streams read the newest entries
from one buffer. The rights of the caller are checked again before each batch and each heartbeat.

A caller who may not read the ledger learns from the stream neither its size nor when entries are made: the events have
no ids, entries that do not concern the caller send nothing, heartbeats keep their own time, and each stream begins with
`reset` instead of a place.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from ostiary.authorization.assurance import KEY
from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.policy.flows.roles import authorize_person, list_readable_areas
from ostiaryd.policy.model.roles import RouteFacts
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ, Caller, OwnerId

MAX_STREAMS, MAX_OF_CALLER = 200, 10
"""Maximum number of open streams of the server, and of one caller. If the server has the maximum, a new stream replaces
a stream of the holder with the most streams, but only if its own holder has at least two fewer.
"""
MAX_MISSED = 10_000
"""Maximum number of missed entries after which a stream can still continue."""
BATCH = 500
KEPT = 2000
"""Maximum number of entries in the shared buffer."""
BEAT_S = 15.0
POLL_S = 1.0
"""Interval of checks for entries from other servers of the same database, in seconds."""
PAUSE_S = 0.2
"""Pause between two batches of a stream, in seconds."""
MAX_LIFE_S = 300.0
_PLACE = re.compile(r"([0-9]{1,18})-([0-9a-f]{8})")
LEDGER_AREA = "audit"
STREAM = RouteFacts("GET", "/api/v1/events", READ, False, False)
AREAS = {
    "agent": "agents",
    "approval": "approvals",
    "cert": "certificates",
    "consent": "consents",
    "elevation": "elevations",
    "incident": "incidents",
    "key": "agents",
    "kill": "kill",
    "person": "persons",
    "policy": "policies",
    "resource": "resources",
    "role": "roles",
    "task": "tasks",
    "team": "teams",
    "tool": "activity",
    "watch": "findings",
}
"""The area of the API that lists the objects of each family of actions. A caller who may read the area receives
changes of the family.
"""
PERSONAL = frozenset({"approval", "incident"})
"""Families whose changes the owner of an agent, and each member of the owning team, receives without a role too."""
Rights = frozenset[str] | None
"""The families whose changes a caller receives; None: all entries in full."""


def list_families(areas: Collection[str]) -> frozenset[str]:
    """Return the families of ledger actions (such as `agent`) that change the lists of these areas of the
    administration API.
    """
    return frozenset(family for family, area in AREAS.items() if area in areas)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry of the ledger, kept for the open streams: its index, the family of its action, the owner of its agent
    (only for the families in `PERSONAL`), and its text as a server-sent event.
    """

    index: int
    family: str
    owner: OwnerId | None
    event: bytes


@dataclass(eq=False, slots=True)
class OpenStream:
    """An open event stream.

    `caller`: the id of the caller, which may have MAX_OF_CALLER streams; `holder`: the person, or the owner of the
    calling agent. If the server is full, the holder with the most streams gives its oldest one. `is_replaced`: another
    stream got the place of this stream, which ends.
    """

    caller: str
    holder: str
    is_replaced: bool = False


class LiveEntries:
    """The event streams of new ledger entries that this process serves. Use it only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._streams: list[OpenStream] = []
        self._lines: list[Line] = []
        self._history = ledger.present_history(world.db.read())[:8]
        self._moved = asyncio.Event()
        self._size, self._size_at = 0, float("-inf")
        world.writer.listeners.append(self._on_commit)

    @property
    def count(self) -> int:
        """Return the number of open streams."""
        return len(self._streams)

    def follow(
        self, caller: Caller, place: str | None, is_live: Callable[[Reader], bool]
    ) -> AsyncGenerator[bytes, None]:
        """Return the events of a new stream: those after the event id `place` (`Last-Event-ID`); with None, those from
        now on.

        `is_live` returns true while the credential of the caller is valid. Raises Conflict (`too_many_streams`) if the
        caller has MAX_OF_CALLER streams, or if the server has MAX_STREAMS and no other stream can be replaced.
        """
        if self._is_at_limit(caller):
            raise Conflict(
                f"the caller has {MAX_OF_CALLER} live streams, which is the limit",
                hint="close another stream, for example a page of the console",
                code="too_many_streams",
            )
        if not self._has_room(caller):
            raise Conflict(
                f"the server has {MAX_STREAMS} live streams, which is the limit",
                hint="try again later",
                code="too_many_streams",
            )
        return self._events(caller, place, is_live)

    def _is_at_limit(self, caller: Caller) -> bool:
        return sum(stream.caller == caller.id for stream in self._streams) >= MAX_OF_CALLER

    def _has_room(self, caller: Caller) -> bool:
        if self._is_at_limit(caller):
            return False
        return self.count < MAX_STREAMS or self._find_replaced(_holder(caller)) is not None

    def _find_replaced(self, holder: str) -> OpenStream | None:
        """Return the oldest stream of the holder with the most streams; None unless `holder` has at least two fewer."""
        counts = Counter(stream.holder for stream in self._streams)
        largest, number = counts.most_common(1)[0]
        if number <= counts[holder] + 1:
            return None
        return next(stream for stream in self._streams if stream.holder == largest)

    def _enter(self, caller: Caller) -> OpenStream:
        if self.count >= MAX_STREAMS and (replaced := self._find_replaced(_holder(caller))) is not None:
            replaced.is_replaced = True
            self._streams.remove(replaced)
            self._wake()
        stream = OpenStream(caller.id, _holder(caller))
        self._streams.append(stream)
        return stream

    async def _events(
        self, caller: Caller, place: str | None, is_live: Callable[[Reader], bool]
    ) -> AsyncGenerator[bytes, None]:
        if not self._has_room(caller):  # other streams were opened in the meantime
            return
        loop = asyncio.get_running_loop()
        until, beat_at = loop.time() + MAX_LIFE_S, loop.time() + BEAT_S
        stream = self._enter(caller)
        try:
            position, opening = self._open(place, self._rights(caller, is_live))
            yield opening
            while loop.time() < until and not (stream.is_replaced or self._world.pin.is_lost):
                rights = self._rights(caller, is_live)
                if lines := await self._read(position):
                    position = lines[-1].index + 1
                    if events := self._render(lines, caller, rights):
                        yield b"".join(events)
                    await asyncio.sleep(PAUSE_S)
                else:
                    await self._wait(position, stream, until=beat_at)
                if loop.time() >= beat_at:
                    beat_at += BEAT_S * (1 + (loop.time() - beat_at) // BEAT_S)
                    yield b":\n\n"
        except Forbidden:
            return
        finally:
            if not stream.is_replaced:
                self._streams.remove(stream)

    def _open(self, place: str | None, rights: Rights) -> tuple[int, bytes]:
        """Return the index at which a stream starts, and its first event: `reset` if the place is unknown or
        too old, and for a caller who gets no places.
        """
        size = self._read_size()
        if rights is not None:
            return size, b"retry: 1000\nevent: reset\ndata: {}\n\n"
        match = _PLACE.fullmatch(place) if place else None
        start = int(match[1]) + 1 if match and match[2] == self._history else size
        is_known = not place or (match is not None and match[2] == self._history and size - MAX_MISSED <= start <= size)
        opening = b"retry: 1000\n" if is_known else b"retry: 1000\nevent: reset\ndata: {}\n"
        start = start if is_known else size
        return start, opening + (b"id: %b\n\n" % self._place(start - 1) if start else b"\n")

    def _place(self, index: int) -> bytes:
        return b"%d-%b" % (index, self._history.encode())

    def _rights(self, caller: Caller, is_live: Callable[[Reader], bool]) -> Rights:
        """Return the present rights of a caller. Raises Forbidden for a caller whose credential or right has ended."""
        reader, now = self._world.db.read(), self._world.now()
        if not is_live(reader):
            raise Forbidden("the session or the token of this stream has ended", hint="sign in, or get a new token")
        if caller.kind != "person":
            return None  # the scope of the token was checked, and tokens do not gain or lose scopes
        authorize_person(reader, caller, STREAM, now=now, acr=caller.acr or KEY)
        readable = list_readable_areas(reader, caller, {LEDGER_AREA, *AREAS.values()}, now=now, acr=caller.acr or KEY)
        return None if LEDGER_AREA in readable else list_families(readable)

    def _render(self, lines: list[Line], caller: Caller, rights: Rights) -> list[bytes]:
        if rights is None:
            return [line.event for line in lines]
        reader = self._world.db.read()
        last: dict[str, int] = {
            line.family: line.index
            for line in lines
            if line.family in rights or (line.owner is not None and _answers_for(reader, line.owner, caller.id))
        }
        families = sorted(last, key=lambda family: last[family])
        return [b"event: change\ndata: %b\n\n" % msgspec.json.encode({"family": family}) for family in families]

    async def _read(self, position: int) -> list[Line]:
        """Return the next entries from `position` on: from the buffer, or in a thread if the stream is behind
        the buffer.
        """
        if position >= self._read_size():
            return []
        first = self._lines[0].index if self._lines else position
        if position < first:
            bodies = await self._world.db.scan(lambda reader: ledger.list_entry_bodies(reader, position, BATCH))
            return [self._line(position + place, body) for place, body in enumerate(bodies)]
        end = first + len(self._lines)
        if position > end:
            self._lines, end = [], position
        if position == end:
            bodies = ledger.list_entry_bodies(self._world.db.read(), end, BATCH)
            self._lines += [self._line(end + place, body) for place, body in enumerate(bodies)]
            self._lines = self._lines[-KEPT:]
            first = self._lines[0].index if self._lines else position
        return self._lines[position - first :][:BATCH]

    def _line(self, index: int, body: bytes) -> Line:
        entry = decode_entry(body)
        family = entry.action.partition(".")[0]
        is_personal = family in PERSONAL and entry.agent is not None
        agent = registry.get_agent(self._world.db.read(), entry.agent or "") if is_personal else None
        event = b'id: %b\nevent: entry\ndata: {"index":%d,%b\n\n' % (self._place(index), index, body[1:])
        return Line(index, family, None if agent is None else agent.owner, event)

    async def _wait(self, position: int, stream: OpenStream, *, until: float) -> None:
        """Wait for an entry at `position`, or for the end of the stream, until a time of the event loop."""
        loop = asyncio.get_running_loop()
        while position >= self._read_size() and not stream.is_replaced and (left := until - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), left if self._world.db.is_sqlite else min(left, POLL_S))

    def _read_size(self) -> int:
        """Return the size of the ledger, which is read again after each commit of this server and every
        `POLL_S` seconds.
        """
        now = asyncio.get_running_loop().time()
        if now - self._size_at >= POLL_S:
            self._size, self._size_at = ledger.get_head(self._world.db.read())[0].size, now
        return self._size

    def _on_commit(self, topics: set[str]) -> None:
        if ledger.TOPIC in topics:
            self._size_at = float("-inf")
            self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


def _holder(caller: Caller) -> str:
    return caller.id if caller.owner is None else caller.owner


def _answers_for(reader: Reader, owner: OwnerId, person: str) -> bool:
    """Return whether a person is the owner, or a member of the owning team."""
    return owner == person or registry.is_member(reader, owner, person)

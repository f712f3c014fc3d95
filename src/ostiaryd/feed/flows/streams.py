"""Streams to the connected guards of this server: each commit wakes the streams, and a guard that does not read is
disconnected.

The server signs the facts of a commit for all guards once, and writes the signed line to each stream. With a hundred
guards, a revocation therefore costs one signature and a hundred writes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ostiary.decision.feed import Fact, KeysFact, Message, render_message
from ostiary.protocol.errors import Conflict, NotFound
from ostiary.protocol.jose import PrivateKey
from ostiaryd.feed import store
from ostiaryd.feed.flows.profiles import profile_fact
from ostiaryd.feed.flows.snapshot import keys_fact, policy_fact, resource_fact, snapshot, threat_fact
from ostiaryd.feed.model import parse_delta, plain_fact
from ostiaryd.ground.database import DatabaseUnavailable
from ostiaryd.ground.database.pin import InRecovery
from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.policy.model import PolicyDelta
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows.feed import FEED_TOPIC
from ostiaryd.registry.model import ProfileDelta, Resource, ResourceDelta, ThreatDelta, TokenDelta
from ostiaryd.tokens.model import KeysDelta

MAX_WAITING = 1000
"""Maximum number of lines that wait for a guard. A guard with more is disconnected. When it connects again, the guard
gets the missed changes or a snapshot.
"""
MAX_MISSED = 10_000
"""Maximum number of changes that a reconnected guard gets one by one; a guard that missed more gets a snapshot."""
MAX_STREAMS = 200
"""maximum number of streams of the guards of one resource"""
STUCK_S = 10.0
MAX_UNREPORTED_S = 60
"""Maximum number of seconds that records may wait at a guard; if records wait longer, `ostiary doctor` reports it."""
HALF = 50
"""Fill level of a guard's spool, in per cent, from which `ostiary doctor` reports it."""
SECOND = 1_000_000


@dataclass(slots=True, eq=False)
class Stream:
    """The stream to one connected guard. `relevant` is the number of the last change that concerns the guard.

    `applied` has acknowledgements (change number, time in microseconds): from this time on, all changes up to the
    number are in force at the guard. `sending_since` is the time of the event loop at which the sending of the present
    line began; None if no line is being sent.
    """

    id: str
    resource: Resource
    since: int
    relevant: int  # the number of the last change that concerns this guard
    applied: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=256))
    task: asyncio.Task[None] | None = None
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    sending_since: float | None = None
    records: tuple[int, int] = (0, 0)
    """the records that the guard has not reported yet: the age of the oldest record in microseconds, and the fill level
    of the guard's spool in per cent
    """

    def put(self, line: bytes) -> None:
        """Add a line to the guard's queue. If the queue is full, disconnect the guard."""
        try:
            self.waiting.put_nowait(line)
        except asyncio.QueueFull:
            self.cut()

    def cut(self) -> None:
        """End the stream, so that the guard is disconnected and must connect again."""
        if self.task is not None:
            self.task.cancel()

    def applied_at(self, seq: int) -> int | None:
        """Return the time (microseconds) from which all changes up to `seq` that concern the guard are in force; None
        if they are not all in force yet.
        """
        needed = min(seq, self.relevant)
        return next((at for number, at in self.applied if number >= needed), None)


class Streams:
    """The streams to all guards of this server process. Used only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._streams: dict[str, Stream] = {}
        self._key = world.keys.signer("feed")
        """the key that signs the feed; guards know the key until a message announces another key"""
        self._moved = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """called after a guard received or acknowledged a change, or disconnected"""
        self._beating: asyncio.TimerHandle | None = None
        self.position, self._head = store.position(world.db.read())
        """number of the last change in the outbox that was passed to every stream"""
        world.writer.listeners.append(self._on_commit)

    @property
    def key(self) -> PrivateKey:
        """Return the key that signs all messages to guards at present."""
        return self._key

    @property
    def connected(self) -> list[Stream]:
        """Return the streams of the connected guards."""
        return list(self._streams.values())

    def follow(self, resource: Resource, id: str, after: int | None) -> AsyncGenerator[bytes, None]:
        """Return a generator of the lines of a new stream without an end. `after`: the last change that the guard has.
        The stream begins with the changes after it; without `after`, or if these changes are too many or deleted, with
        a snapshot.

        Raises Conflict if a stream with this id is open or the resource has `MAX_STREAMS` streams; InRecovery if the
        server is in recovery.
        """
        if self._world.pin.is_lost:
            raise InRecovery
        if id in self._streams:
            raise Conflict("a stream with this id is open", hint="send a new random `stream` for each stream")
        if sum(stream.resource.resource_id == resource.resource_id for stream in self.connected) >= MAX_STREAMS:
            raise Conflict(
                f"{MAX_STREAMS} guards of this resource are connected, which is the limit",
                hint="list the guards with `ostiary feed list`",
            )
        return self._lines(id, resource, after)

    async def _lines(self, id: str, resource: Resource, after: int | None) -> AsyncGenerator[bytes, None]:
        if id in self._streams:  # a stream with this id was opened meanwhile, and must stay open
            return
        self.pump()
        stream = self._streams[id] = Stream(id, resource, self._world.now(), relevant=self.position)
        stream.task = asyncio.current_task()
        if self._beating is None:
            self._beat_later()
        try:
            line = await self._opening(stream, self.position, after)
            while True:
                stream.sending_since = asyncio.get_running_loop().time()
                yield line
                stream.sending_since = None
                line = await stream.waiting.get()
        finally:
            if self._streams.get(id) is stream:
                del self._streams[id]
            self._moved.set()
            self.on_change()

    async def _opening(self, stream: Stream, seq: int, after: int | None) -> bytes:
        """Return the first line of a stream: the changes between `after` and `seq`, or a snapshot as of `seq`."""
        resource, world = stream.resource, self._world
        missed = None if after is None else self._since(after, resource)
        if missed is not None and after is not None:
            return self._render(after, seq, missed, aud=resource.resource_id, stream=stream.id)
        now = world.now()
        facts = await world.db.scan(lambda reader: snapshot(reader, world.keys, resource, now=now))
        return self._render(seq, seq, facts, aud=resource.resource_id, stream=stream.id, is_snapshot=True)

    def _since(self, after: int, resource: Resource) -> list[Fact] | None:
        """Return the facts that a guard has missed since change `after`; None if the outbox has deleted some of these
        changes, or there are more than `MAX_MISSED`.
        """
        reader = self._world.db.read()
        if not 0 < outbox.lowest_number(reader, FEED_TOPIC) <= after <= self.position:
            return None
        rows = outbox.messages_after(reader, FEED_TOPIC, after, count=MAX_MISSED + 1)
        if len(rows) > MAX_MISSED:
            return None
        meanings = self._meanings([row for row in rows if row[0] <= self.position])
        return [fact for facts, only in meanings if only in (None, resource.uri) for fact in facts]

    def _on_commit(self, topics: set[str]) -> None:
        if self._world.pin.is_lost:
            self.cut_all()
        elif FEED_TOPIC in topics:
            with suppress(DatabaseUnavailable):  # the next heartbeat sends these changes
                self.pump()

    def cut_all(self) -> None:
        """Disconnect every guard, because the facts of the guards may belong to a lost part of the ledger's history. A
        guard that connects again gets a snapshot.
        """
        for stream in self.connected:
            stream.cut()

    def pump(self) -> None:
        """Send every stream the changes that any server of the database has committed since the last call."""
        reader = self._world.db.read()
        head, self._head = store.position(reader)
        if head < self.position:  # the database is an older copy now: every guard needs a snapshot
            self.cut_all()
            self.position = head
        while self.position < head:
            rows = outbox.messages_after(reader, FEED_TOPIC, self.position)
            shared: list[Fact] = []
            private: dict[str, list[Fact]] = defaultdict(list)
            for facts, only in self._meanings(rows):
                (shared if only is None else private[only]).extend(facts)
            self._step(rows[-1][0] if rows else head, shared, private)

    def _step(self, seq: int, shared: list[Fact], private: dict[str, list[Fact]]) -> None:
        """Send every stream the facts of the changes up to `seq`. `shared` facts go to all guards; `private` facts go
        only to the guards of the resource with that URI.
        """
        concerned = {stream.resource.resource_id: stream.resource.uri for stream in self._streams.values()}
        extra = {id: private[uri] for id, uri in concerned.items() if uri in private}
        step = self._render(self.position, seq, shared, private=sorted(extra))
        lines = {id: step + self._render(seq, seq, facts, aud=id) for id, facts in extra.items()}
        for stream in self._streams.values():
            stream.put(lines.get(stream.resource.resource_id, step))
            if shared or stream.resource.resource_id in extra:
                stream.relevant = seq
        self.position = seq
        self.on_change()
        if any(isinstance(fact, KeysFact) for fact in shared):
            self._key = self._world.keys.signer("feed")

    def _render(
        self,
        prev: int,
        seq: int,
        facts: list[Fact],
        *,
        private: list[str] | None = None,
        aud: str = "",
        stream: str = "",
        is_snapshot: bool = False,
    ) -> bytes:
        message = Message(
            iss=self._world.config.issuer,
            prev=prev,
            seq=seq,
            at=self._world.now(),
            facts=facts,
            private=private or [],
            aud=aud,
            stream=stream,
            snapshot=is_snapshot,
            head=self._head,
        )
        return render_message(self._key, message)

    def _meanings(self, rows: list[tuple[int, int, bytes]]) -> list[tuple[list[Fact], str | None]]:
        """Return (facts, URI of the only resource concerned or None) for each change, in order.

        If an object changed several times, only its last change counts: a guard that was away gets a threat list once,
        however often the list changed.
        """
        last = {body: seq for seq, _, body in rows}
        return [self._meaning(body, at) for seq, at, body in rows if last[body] == seq]

    def _meaning(self, body: bytes, at: int) -> tuple[list[Fact], str | None]:
        """Return the facts of a change, and the URI of the only resource whose guards get the facts (None: all guards).

        Facts about agents, tasks and keys go to all guards, since any guard may get tokens of any agent.
        """
        reader = self._world.db.read()
        match parse_delta(body):
            case PolicyDelta():
                return [policy_fact(reader)], None
            case ProfileDelta(agent, resource_id):
                resource = registry.get_resource(reader, resource_id)
                assert resource is not None  # a row is never deleted
                return [*profile_fact(reader, agent, resource_id)], resource.uri
            case KeysDelta():
                load_keys(self._world.keys, reader)
                return [keys_fact(self._world.keys)], None
            case ResourceDelta(name):
                resource = registry.get_resource(reader, name)
                assert resource is not None  # a row is never deleted
                self._check_keys(resource)
                return [resource_fact(reader, resource)], resource.uri
            case ThreatDelta(id):
                return [threat_fact(reader, id)], None
            case TokenDelta() as delta:
                return [plain_fact(delta, at=at)], store.audience(reader, delta.jti)
            case delta:
                return [plain_fact(delta, at=at)], None

    def _check_keys(self, resource: Resource) -> None:
        """Disconnect the guards of a resource that connected with a key that has since been replaced."""
        for stream in self._streams.values():
            if stream.resource.resource_id == resource.resource_id and stream.resource.jkt != resource.jkt:
                stream.cut()

    def _beat_later(self) -> None:
        pause_s = self._world.config.feed_heartbeat_ms / 1000
        self._beating = asyncio.get_running_loop().call_later(pause_s, self._beat)

    def _beat(self) -> None:
        """Send the changes of all servers, then a heartbeat to each guard with an empty queue, and disconnect each
        guard that has not taken a line for `STUCK_S` seconds. Schedule the next heartbeat while a guard is connected.
        """
        self._beating = None
        if not self._streams:
            return
        now, alive = asyncio.get_running_loop().time(), b""
        with suppress(DatabaseUnavailable):  # without a heartbeat, guards deny after their time limit
            self.pump()
            alive = self._render(self.position, self.position, [])
        for stream in self._streams.values():
            if alive and stream.waiting.empty():
                stream.put(alive)
            if stream.sending_since is not None and now - stream.sending_since > STUCK_S:
                stream.cut()
        self._beat_later()

    def note_applied(self, resource_id: str, id: str, seq: int, *, ago: int) -> None:
        """Record that all changes up to `seq` have been in force at a guard for at least `ago` microseconds.

        The guard states an interval instead of a time, so that the guard's clock does not matter. Raises NotFound if
        the resource has no stream with this id.
        """
        stream = self._streams.get(id)
        if stream is None or stream.resource.resource_id != resource_id:
            raise NotFound("this resource has no stream with that id")
        stream.applied.append((min(seq, self.position), self._world.now() - ago))
        self._moved.set()
        self.on_change()

    def note_records(self, id: str, *, late: int, filled: int) -> None:
        """Store, for a stream, the age in microseconds of the guard's oldest unreported record and the fill level of
        its spool in per cent.
        """
        self._streams[id].records = late, filled

    def troubles(self) -> list[str]:
        """Return a sentence for each guard that does not deliver its records, or does not read the feed."""
        problems = []
        for stream in self.connected:
            (late, filled), name = stream.records, stream.resource.name
            if filled >= HALF:
                problems.append(f"{filled} % of the spool of `{name}` is full")
            elif late > MAX_UNREPORTED_S * SECOND:
                problems.append(f"records of `{name}` have waited for {late // SECOND} s")
            if stream.waiting.qsize() >= MAX_WAITING // 2:
                problems.append(f"{stream.waiting.qsize()} messages wait for `{name}`")
        return problems

    async def settled(self, seq: int, *, within_s: float) -> list[Stream]:
        """Wait until all changes up to `seq` are in force at every guard of this server, at most `within_s` seconds.
        Return all streams in either case.
        """
        self.pump()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(stream.applied_at(seq) is None for stream in self._streams.values()):
                    self._moved.clear()
                    await self._moved.wait()
        return self.connected

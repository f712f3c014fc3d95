"""The streams of the guards that are connected: woken by commits, signed for each hearer, cut when nobody reads.

A stream owes its guard facts; the guard says how far it applied them. A commit wakes all streams at once, so that the
time from a revocation to the last guard that denies is that of one signature and one write for each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

from ostiary.core.errors import Conflict, NotFound
from ostiary.core.feed import Fact, KeysFact, Message, render_message
from ostiary.core.jose import PrivateKey
from ostiaryd.feed import store
from ostiaryd.feed.flows.snapshot import keys_fact, policy_fact, resource_fact, snapshot
from ostiaryd.feed.model import parse_delta, plain_fact
from ostiaryd.ground import outbox
from ostiaryd.ground.world import World
from ostiaryd.policy.model import PolicyDelta
from ostiaryd.registry.flows.feed import TOPIC
from ostiaryd.registry.model import Resource, ResourceDelta, TokenDelta
from ostiaryd.registry.store import resources
from ostiaryd.tokens.model import KeysDelta

MAX_PENDING = 10_000
"""Facts that a guard may be behind before it is cut; it will come back for a snapshot."""
MAX_STREAMS = 200
"""of one resource"""
STUCK_S = 10.0


@dataclass(slots=True, eq=False)
class Stream:
    """One connected guard. `told` and `applied` are numbers of the outbox, each with the time (µs) it came to be."""

    id: str
    resource: Resource
    since: int
    key: PrivateKey
    """what signs for this guard: the key that it knows, until it has heard of another"""
    pending: list[Fact] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    n: int = 0
    told: int = 0
    """the number of the last change that this guard had to hear of"""
    applied: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=256))
    task: asyncio.Task[None] | None = None
    sending_since: float | None = None

    def owe(self, facts: list[Fact], *, seq: int) -> None:
        self.pending += facts
        self.told = seq
        self.wake.set()
        if len(self.pending) > MAX_PENDING:
            self.cut()

    def cut(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def applied_at(self, seq: int) -> int | None:
        """When the guard said that all it had to hear of up to `seq` is in force; None while it has not."""
        needed = min(seq, self.told)
        return next((at for number, at in self.applied if number >= needed), None)


class Streams:
    """All streams of this process; lives on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._streams: dict[str, Stream] = {}
        self._moved = asyncio.Event()
        self.position = outbox.head(world.db.read())
        """every change up to this number of the outbox has been handed to every stream"""
        world.writer.listeners.append(self._on_commit)

    @property
    def connected(self) -> list[Stream]:
        return list(self._streams.values())

    def follow(self, resource: Resource, id: str, after: int | None) -> AsyncGenerator[bytes, None]:
        """The lines of a new stream, for ever. Raises Conflict where the number is taken, or too many are connected."""
        if id in self._streams:
            raise Conflict("a stream with this number is open", hint="throw another one for each stream")
        if sum(stream.resource.resource_id == resource.resource_id for stream in self.connected) >= MAX_STREAMS:
            raise Conflict(f"{MAX_STREAMS} guards of this resource are connected")
        return self._lines(id, resource, after)

    async def _lines(self, id: str, resource: Resource, after: int | None) -> AsyncGenerator[bytes, None]:
        if id in self._streams:  # somebody with the same number was faster, and must not be cut off from what changes
            return
        self.pump()
        key, seq = self._world.keys.signer("feed"), self.position
        stream = self._streams[id] = Stream(id, resource, self._world.now(), key, told=seq)
        stream.task = asyncio.current_task()
        try:
            missed = None if after is None else self._since(after, resource)
            facts = missed if missed is not None else await self._snapshot(resource)
            line = self._render(stream, facts, seq=seq, is_snapshot=missed is None)
            while True:
                stream.sending_since = asyncio.get_running_loop().time()
                yield line
                stream.sending_since = None
                await self._something_to_say(stream)
                facts, stream.pending = stream.pending, []
                line = self._render(stream, facts, seq=self.position)
        finally:
            if self._streams.get(id) is stream:
                del self._streams[id]
            self._moved.set()

    async def _something_to_say(self, stream: Stream) -> None:
        """Facts, or that we are alive."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._world.config.feed_heartbeat_ms / 1000):
                await stream.wake.wait()
        stream.wake.clear()

    def _render(self, stream: Stream, facts: list[Fact], *, seq: int, is_snapshot: bool = False) -> bytes:
        stream.n += 1
        message = Message(
            iss=self._world.config.issuer, aud=stream.resource.resource_id, stream=stream.id, n=stream.n, seq=seq,
            at=self._world.now(), snapshot=is_snapshot, facts=facts,
        )  # fmt: skip
        line = render_message(stream.key, message)
        if any(isinstance(fact, KeysFact) for fact in facts):
            stream.key = self._world.keys.signer("feed")
        return line

    async def _snapshot(self, resource: Resource) -> list[Fact]:
        world = self._world
        now = world.now()
        return await world.db.scan(lambda reader: snapshot(reader, world.keys, resource, now=now))

    def _since(self, after: int, resource: Resource) -> list[Fact] | None:
        """The facts that a guard has missed; None where the outbox does not reach back so far, or it is too many."""
        reader = self._world.db.read()
        if not 0 < outbox.oldest(reader, TOPIC) <= after <= self.position:
            return None
        rows = outbox.after(reader, TOPIC, after, count=MAX_PENDING + 1)
        if len(rows) > MAX_PENDING:
            return None
        heard = [self._meaning(body, at) for seq, at, body in rows if seq <= self.position]
        return [fact for facts, only in heard if only in (None, resource.uri) for fact in facts]

    def _on_commit(self, topics: set[str]) -> None:
        if TOPIC in topics:
            self.pump()

    def pump(self) -> None:
        """Hand to every stream what was committed since the last time, by this process or another."""
        reader = self._world.db.read()
        head = outbox.head(reader)
        while head > self.position and (rows := outbox.after(reader, TOPIC, self.position)):
            for seq, at, body in rows:
                facts, only = self._meaning(body, at)
                for stream in self._streams.values():
                    if only in (None, stream.resource.uri):
                        stream.owe(facts, seq=seq)
            self.position = rows[-1][0]
        self.position = max(self.position, head)

    def _meaning(self, body: bytes, at: int) -> tuple[list[Fact], str | None]:
        """The facts that a change leads to, and the URI of the only resource whose guards must hear them (None: all).

        A fact about an agent, a task or a key goes to everybody: its tokens may be anywhere.
        """
        reader = self._world.db.read()
        match parse_delta(body):
            case PolicyDelta():
                return [policy_fact(reader)], None
            case KeysDelta():
                self._world.keys.load(reader)
                return [keys_fact(self._world.keys)], None
            case ResourceDelta(name):
                resource = resources.get(reader, name)
                assert resource is not None  # a row is never deleted
                self._check_keys(resource)
                return [resource_fact(reader, resource)], resource.uri
            case TokenDelta() as delta:
                return [plain_fact(delta, at=at)], store.audience(reader, delta.jti)
            case delta:
                return [plain_fact(delta, at=at)], None

    def _check_keys(self, resource: Resource) -> None:
        """Cut whoever has shown a key that is not the guard's any more."""
        for stream in self._streams.values():
            if stream.resource.resource_id == resource.resource_id and stream.resource.jkt != resource.jkt:
                stream.cut()

    def note_applied(self, resource_id: str, id: str, seq: int, *, ago: int) -> None:
        """A guard says that everything up to `seq` is in force, since `ago` microseconds at least: an interval, so that
        its clock does not matter. Raises NotFound for a stream that is not its own.
        """
        stream = self._streams.get(id)
        if stream is None or stream.resource.resource_id != resource_id:
            raise NotFound("there is no such stream")
        stream.applied.append((min(seq, self.position), self._world.now() - ago))
        self._moved.set()

    async def settled(self, seq: int, *, within_s: float) -> list[Stream]:
        """The streams, as soon as everything up to `seq` is in force at each of them, or the time is over."""
        self.pump()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(stream.applied_at(seq) is None for stream in self._streams.values()):
                    self._moved.clear()
                    await self._moved.wait()
        return self.connected

    def cut_stuck(self) -> None:
        """Cut guards that have not taken what was sent for too long."""
        now = asyncio.get_running_loop().time()
        for stream in self._streams.values():
            if stream.sending_since is not None and now - stream.sending_since > STUCK_S:
                stream.cut()


async def tend(world: World) -> None:
    """Each second: hear of other processes' commits, cut who does not read."""
    streams = world.keep(Streams)
    streams.pump()
    streams.cut_stuck()

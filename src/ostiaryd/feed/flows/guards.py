"""The guards of all servers of one database, and the last change that is in force at each guard.

On PostgreSQL several servers can share a database; each server has its own guards. Each server writes the progress of
its guards into its row of `feed_server`: every `BEAT_S` as a heartbeat, and `FLUSH_S` after a change while other
servers are alive. If a row does not change for `DROP_S`, the row's server has failed. The reading server measures
this time with its own clock, so the clocks of the servers need not agree.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Unavailable
from ostiaryd.feed import store
from ostiaryd.feed.flows.streams import Stream, Streams
from ostiaryd.ground.database.line import overtaking
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.tasks.model import TaskDelta, TaskId

BEAT_S = 2.0
FLUSH_S = 0.05
POLL_S = 0.05
DROP_S = 10.0
SECOND = 1_000_000
LATEST = 8
"""Number of newest acknowledgements of a guard that a server passes on to the other servers."""


class Guard(msgspec.Struct, frozen=True, array_like=True):
    """A connected guard. `position`: the server has sent the guard every change up to this number that concerns the
    guard.

    `relevant` is the number of the last change that concerns the guard. `applied` lists acknowledgements (change
    number, time in microseconds): from this time on, all changes up to the number are in force at the guard.
    """

    stream: str
    resource_id: str
    resource: str
    since: int
    position: int
    relevant: int
    applied: list[tuple[int, int]]

    def applied_at(self, seq: int) -> int | None:
        """Return the time (microseconds) from which all changes up to `seq` are in force at this guard; None if at
        least one of them is not in force yet.
        """
        if self.position < seq:
            return None
        needed = min(seq, self.relevant)
        return next((at for number, at in self.applied if number >= needed), None)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgpack_decoder(list[Guard])


class Guards:
    """The guards of this server and of the other servers of the database. Used only on the event loop."""

    def __init__(self, world: World) -> None:
        self._world, self._streams = world, world.get_singleton(Streams)
        self._id = world.random(8).hex()
        self._beat = 0
        self._seen: dict[str, tuple[int, float, list[Guard]]] = {}
        """the other servers of the database, by id: the number of the newest heartbeat, the time of the event loop at
        which this number changed, and the guards of that server
        """
        self._flushing: asyncio.Task[None] | None = None
        self._streams.on_change = self._note_change

    @property
    def own(self) -> list[Guard]:
        """Return the guards that are connected to this server."""
        position = self._streams.position
        return [_describe(stream, position) for stream in self._streams.connected]

    @property
    def all(self) -> list[Guard]:
        """Return the guards of this server, then the guards of the other servers as of each server's last heartbeat."""
        return [*self.own, *(guard for _, _, guards in self._seen.values() for guard in guards)]

    async def settled(self, seq: int, *, within_s: float) -> list[Guard]:
        """Wait until all changes up to `seq` are in force at every guard, at most `within_s` seconds. Return all guards
        in either case.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        await self._streams.settled(seq, within_s=within_s)
        await self.refresh()
        while loop.time() < until and any(guard.applied_at(seq) is None for guard in self.all):
            await asyncio.sleep(POLL_S)
            await self.refresh()
        return self.all

    async def refresh(self) -> float:
        """Read the rows of the other servers from the database; return the time of the event loop before the read."""
        now, servers = asyncio.get_running_loop().time(), {}
        if self._world.db.is_sqlite:  # one data folder has one server
            return now
        rows = await self._world.db.scan(store.servers)
        for server, beat, body in rows:
            if server != self._id:
                before = self._seen.get(server)
                changed_at = now if before is None or before[0] != beat else before[1]
                servers[server] = beat, changed_at, _decode(body)
        self._seen = servers
        return now

    async def beat(self) -> None:
        """Write a heartbeat of this server to the database, and delete the rows of servers that have failed."""
        if self._world.db.is_sqlite:
            return
        now = await self.refresh()
        dead = [server for server, (_, changed_at, _) in self._seen.items() if now - changed_at > DROP_S]
        for server in dead:
            del self._seen[server]
        await self._write(dead)

    async def close(self) -> None:
        """Delete the row of this server, so that the other servers of the database do not wait for its guards."""
        if self._flushing is not None:
            self._flushing.cancel()
        if self._beat:
            await self._world.writer.submit(lambda tx: store.drop_servers(tx, [self._id]))

    async def _write(self, dead: list[str]) -> None:
        self._beat += 1
        beat, body = self._beat, _encode(self.own)

        with overtaking():
            await self._world.writer.submit(
                lambda tx: store.put_server(tx, self._id, beat=beat, guards=body, gone=dead)
            )

    def _note_change(self) -> None:
        """Schedule a write after `FLUSH_S` if another server is alive and no write is scheduled."""
        if self._seen and self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush())

    async def _flush(self) -> None:
        await asyncio.sleep(FLUSH_S)
        self._flushing = None
        with suppress(Unavailable):  # the next beat tries again
            await self._write([])


def _describe(stream: Stream, position: int) -> Guard:
    resource = stream.resource
    latest = list(stream.applied)[-LATEST:]
    return Guard(stream.id, resource.resource_id, resource.name, stream.since, position, stream.relevant, latest)


def send_test(act: Act) -> int:
    """Send all guards a test message: the end of a task that never existed. Return the number of the message in the
    feed.
    """
    registry.queue_for_guards(act, TaskDelta(TaskId(act.new_id("tk")), act.now + SECOND))
    return outbox.highest_number(act.tx)


async def share_guards(world: World) -> None:
    """Run one heartbeat: write the progress of this server's guards, and read the progress of the other servers'
    guards.
    """
    await world.get_singleton(Guards).beat()

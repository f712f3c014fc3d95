"""A guard that listens to the feed without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from harness.patience import PATIENCE_S
from harness.registry_fixtures import new_jwk, run_act
from ostiary.decision.feed import (
    Fact,
    Message,
)
from ostiary.guard import Feed
from ostiary.protocol import jose
from ostiaryd.feed.flows import Streams
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource

URI = "https://files.example.org/mcp"


NUMBER = "a-number-that-a-guard-threw"


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


class Listener:
    """A guard on a stream, with the reader of the feed that guards use."""

    def __init__(self, world: World, resource: Resource, *, feed: Feed | None = None, id: str = NUMBER) -> None:
        self.world, self.id = world, id
        self.feed = feed or Feed(
            resource_id=resource.resource_id, now=world.now, tick=world.now, max_age=5_000_000, max_skew=2_000_000
        )
        keys = self.feed.feed_keys if feed else jose.JwkSet(tuple(world.keys.public("feed").values()))
        self.feed.begin(id, issuer=world.config.issuer, keys=keys)
        self.lines: AsyncGenerator[bytes, None] = world.get_singleton(Streams).follow(resource, id, self.feed.seq)
        self.resource_id = resource.resource_id
        self._came: list[bytes] = []

    async def hear(self) -> Message:
        if not self._came:
            self._came = (await asyncio.wait_for(anext(self.lines), PATIENCE_S)).splitlines()
        return self.feed.accept(self._came.pop(0))

    async def facts(self) -> list[Fact]:
        """Return the facts of the next message that has facts."""
        while not (message := await self.hear()).facts:
            pass
        return message.facts

    def applied(self, seq: int, *, ago: int = 0) -> None:
        self.world.get_singleton(Streams).note_applied(self.resource_id, self.id, seq, ago=ago)


@asynccontextmanager
async def listening(
    world: World, resource: Resource, *, feed: Feed | None = None, id: str = NUMBER
) -> AsyncIterator[Listener]:
    """Connect a guard that has received the first message."""
    listener = Listener(world, resource, feed=feed, id=id)
    async with aclosing(listener.lines):
        yield listener

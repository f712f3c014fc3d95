"""Two servers of one database: each reports the guards of both, and drops those of a server that died."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import new_jwk, run_act
from ostiaryd.feed.flows import Guards, Streams, guards
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource

STREAM = "a-number-that-a-guard-threw"


@pytest.fixture
def database() -> str:
    return "postgres"


@pytest.fixture
async def other(config: Config, world: World, clock: Clock, tmp_path: Path) -> AsyncIterator[World]:
    """A second server of the same database, with a data folder of its own."""
    folder = tmp_path / "other"
    shutil.copytree(config.data_dir, folder)
    async with open_world(
        msgspec.structs.replace(config, data_dir=str(folder)), now=clock, random=SeededRandom("other")
    ) as other:
        yield other


async def make_resource(world: World) -> Resource:
    made = partial(registry.create_resource, name="files", uri="https://files.example.org", jwk=new_jwk())
    return await run_act(world, made)


async def exchange(*worlds: World) -> None:
    for world in worlds:
        await world.get_singleton(Guards).beat()


async def test_a_server_waits_for_the_guards_of_other_servers(world: World, other: World) -> None:
    resource = await make_resource(world)
    await exchange(world, other)
    async with aclosing(other.get_singleton(Streams).follow(resource, STREAM, None)) as lines:
        await anext(lines)
        other.get_singleton(Streams).note_applied(
            resource.resource_id, STREAM, other.get_singleton(Streams).position, ago=0
        )
        await exchange(other, world)
        assert [guard.stream for guard in world.get_singleton(Guards).all] == [STREAM]
        await run_act(world, partial(registry.create_resource, name="more", uri="https://m.example.org", jwk=new_jwk()))
        world.get_singleton(Streams).pump()
        seq = world.get_singleton(Streams).position
        [guard] = await world.get_singleton(Guards).settled(seq, within_s=0.01)
        assert guard.applied_at(seq) is None, "the other server has not even told it"
        waiting = asyncio.ensure_future(world.get_singleton(Guards).settled(seq, within_s=30))
        other.get_singleton(Streams).pump()
        other.get_singleton(Streams).note_applied(resource.resource_id, STREAM, seq, ago=0)
        [guard] = await waiting
        assert guard.applied_at(seq) is not None
        assert (guard.resource, guard.resource_id) == (resource.name, resource.resource_id)
    await exchange(other, world)
    assert world.get_singleton(Guards).all == []


async def test_the_guards_of_a_server_without_a_sign_of_life_are_dropped(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = await make_resource(world)
    async with aclosing(other.get_singleton(Streams).follow(resource, STREAM, None)) as lines:
        await anext(lines)
        await exchange(other, world, world)
        assert [guard.stream for guard in world.get_singleton(Guards).all] == [STREAM]
        monkeypatch.setattr(guards, "DROP_S", 0.0)
        await exchange(other, world)
        assert [guard.stream for guard in world.get_singleton(Guards).all] == [STREAM], "it gave a sign of life"
        await exchange(world)
        assert world.get_singleton(Guards).all == []
        await exchange(other, world)
        assert [guard.stream for guard in world.get_singleton(Guards).all] == [STREAM], "it was only slow"


async def test_a_server_that_stops_removes_its_row(config: Config, world: World, clock: Clock, tmp_path: Path) -> None:
    shutil.copytree(config.data_dir, tmp_path / "ended")
    ended = msgspec.structs.replace(config, data_dir=str(tmp_path / "ended"))
    async with open_world(ended, now=clock, random=SeededRandom("ended")) as other:
        await exchange(other, world)
        assert len(world.get_singleton(Guards)._seen) == 1
    await exchange(world)
    assert len(world.get_singleton(Guards)._seen) == 0

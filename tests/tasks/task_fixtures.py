"""Declared tasks."""

from __future__ import annotations

from typing import Any

from harness.registry_fixtures import (
    run_act,
)
from ostiaryd.ground.world import World
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import Task, TaskSpec


async def start(world: World, agent: str = "bot", **more: Any) -> Task:
    return await run_act(
        world, lambda a: flows.start(a, TaskSpec(**({"agent": agent, "purpose": "to sort the mail"} | more)))
    )


def live(world: World, id: str) -> Task:
    return flows.live(world.db.read(), id, now=world.now())

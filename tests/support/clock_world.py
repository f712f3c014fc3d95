"""A server whose clock is the clock of a simulated machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.clock import MachineClock, SeededRandom
from ostiaryd.ground.config import Config
from ostiaryd.ground.process.clock import Boot
from ostiaryd.ground.world import World, open_world


@asynccontextmanager
async def open_at_machine(config: Config, machine: MachineClock) -> AsyncIterator[World]:
    boot = Boot(lambda: machine.uptime, machine.boot_id, lambda: machine.is_synchronised)
    async with open_world(config, now=machine.wall, boot=boot, random=SeededRandom("clock")) as world:
        yield world

from __future__ import annotations

import pytest

from ostiaryd.ground.world import World
from tests.support.policy_fixtures import ask, certification, put

__all__ = ["ask"]


@pytest.fixture
async def certified(world: World) -> World:
    """The certification set decides."""
    await put(world, certification())
    return world

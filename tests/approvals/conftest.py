from __future__ import annotations

import pytest

from ostiaryd.ground.world import World
from tests.support.approval_fixtures import Bank, open_bank


@pytest.fixture
async def bank(world: World) -> Bank:
    return await open_bank(world)

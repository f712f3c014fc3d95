from __future__ import annotations

import pytest

from ostiaryd.ground.world import World
from tests.support.api_fixtures import Client, oauth_app, register
from tests.support.patient_guards import patient_guards

__all__ = ["patient_guards"]


@pytest.fixture
async def client(world: World) -> Client:
    """An agent that has got a token."""
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.token()
    return client

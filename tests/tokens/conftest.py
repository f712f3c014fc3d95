from __future__ import annotations

import pytest

from ostiaryd.ground.world import World
from tests.tokens.party import Client, enter, oauth_app


@pytest.fixture
async def client(world: World) -> Client:
    """An agent that has `files:read` and `files:write`, and a nonce."""
    agent, key = await enter(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.ask()
    return client

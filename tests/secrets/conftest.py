"""A server with agents that use secrets by `hvac`, the client of HashiCorp Vault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from harness.live_server import ServerFixture, own_server
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, VaultStage, enter_agent

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ostiaryd.ground.world import World


@pytest.fixture(scope="session")
def vault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server that tests of this folder share."""
    with own_server(tmp_path_factory.mktemp("vault")) as live_server:
        live_server.api("POST", "/policies", {"files": {"secrets.cedar": POLICIES}})
        yield live_server


@pytest.fixture
def vault(vault_server: ServerFixture) -> VaultStage:
    """A new agent at that server."""
    return VaultStage(vault_server)


@pytest.fixture
async def app(world: World) -> ASGIApp:
    """The application of a server whose policies permit each agent its own folder."""
    from ostiaryd.app import build_app
    from tests.support.certificate_fixtures import put_policies

    await put_policies(world, POLICIES)
    return build_app(world)


@pytest.fixture
async def bot(world: World, app: ASGIApp) -> VaultAgent:
    """An agent that has logged in."""
    return await (await enter_agent(world, app, "bot")).login()

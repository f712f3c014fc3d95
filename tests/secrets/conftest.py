"""A server with agents that use secrets by `hvac`, the client of HashiCorp Vault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.live_server import ServerFixture, own_server
from tests.secrets.vault_fixtures import POLICIES, VaultStage


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

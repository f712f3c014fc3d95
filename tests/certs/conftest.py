"""The ACME server on a stage of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from harness.clock import Clock

if TYPE_CHECKING:
    from ostiaryd.ground.world import World
    from tests.certs.acme_fixtures import AcmeStage


@pytest.fixture
async def stage(world: World, clock: Clock) -> Iterator[AcmeStage]:  # type: ignore[misc]
    """An ACME server, an agent that may have every name, and hosts at which challenges are answered."""
    from harness.registry_fixtures import register_agent
    from ostiaryd.app import build_app
    from tests.certs.acme_fixtures import AcmeStage
    from tests.support.api_fixtures import reconfigured
    from tests.support.certificate_fixtures import put_policies
    from tests.support.dns_server import name_server
    from tests.support.web_site import web_site

    with name_server() as zone, web_site() as site:
        configured = reconfigured(
            world,
            acme_networks="127.0.0.0/8",
            acme_resolvers=zone.address,
            acme_http_port=site.port,
            acme_tls_port=site.port,
        )
        await put_policies(configured)
        agent = await register_agent(configured, "web")
        yield AcmeStage(configured, clock, zone, site, build_app(configured), agent)

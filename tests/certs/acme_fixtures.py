"""A world with an ACME server whose validations reach hosts of this machine, and clients of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from harness.clock import Clock
from ostiaryd.certs import store
from ostiaryd.certs.flows import acme as flows
from ostiaryd.certs.wire_acme_validation import Validations, validate_due
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry.model import Agent
from tests.support.acme_client import AcmeClient
from tests.support.api_fixtures import Answer
from tests.support.certificate_fixtures import make_csr
from tests.support.dns_server import DnsServer
from tests.support.web_site import WebSite


@dataclass(slots=True)
class AcmeStage:
    """A world, its clock, a name server and a web server, at which challenges are answered."""

    world: World
    clock: Clock
    zone: DnsServer
    site: WebSite
    app: ASGIApp
    agent: Agent

    async def key(self, **said: Any) -> flows.NewAcmeKey:
        """Return a new MAC key: for the agent, or for the holder that `said` states."""
        given: dict[str, Any] = {"agent": self.agent.agent_id, "person": None} | said
        return await act(
            self.world, "acme.create_key", lambda act: flows.create_key(act, config=self.world.config, **given)
        )

    async def client(self, **said: Any) -> AcmeClient:
        """Return a client with an account."""
        made, client = await self.key(**said), AcmeClient(self.app)
        answer = await client.register(made.key.kid, made.mac_key)
        assert answer.status == 201, answer
        return client

    def serve(self, host: str, token: str, proof: str) -> None:
        """Answer http-01 for a host at the web server of this machine."""
        self.zone.records[f"{host}.", "A"] = ["127.0.0.1"]
        self.site.answers[f"/.well-known/acme-challenge/{token}"] = 200, "", proof.encode()

    async def validate(self) -> None:
        """Validate until nothing is left to do; time passes for the repetitions."""
        running = self.world.get_singleton(Validations).running

        async def is_over() -> bool:
            await validate_due(self.world)
            await asyncio.gather(*(task for _, task in running.values()))
            self.clock.advance(1)
            reader = self.world.db.read()
            return not running and not store.acme.list_due(reader, now=self.world.now() + 10**9, limit=1)

        async with asyncio.timeout(300):
            while not await is_over():
                pass

    async def ready(self, client: AcmeClient, *names: str) -> Answer:
        """Return an order of a client whose names are proved by http-01."""
        order = await client.order(*names)
        assert order.status == 201, order
        await client.prove(order, "http-01", self.serve)
        await self.validate()
        ready = await client.post(order.headers["location"])
        assert ready.json["status"] == "ready", ready
        return ready

    async def issued(self, client: AcmeClient, *names: str) -> Answer:
        """Return an order with its certificate."""
        order = await self.ready(client, *names)
        done = await client.finalize(order, make_csr(names=names))
        assert done.json["status"] == "valid", done
        return done

"""Callers of the administration API with roles: people with keys, and an administrator."""

from __future__ import annotations

import json
from typing import Any

from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN
from tests.support.api_fixtures import Answer, Client, oauth_app, register, send
from tests.support.trust_fixtures import API, proof_of


async def person(world: World, name: str, *roles: str) -> Client:
    """Return a person with a key and these roles, as a client of the token endpoint."""
    if registry.get_agent(world.db.read(), "reader") is None:
        await register(world)
    key = jose.generate("ES256")

    def make(act: Any) -> str:
        made = registry.create_person(act, name=name)
        registry.add_person_key(act, made.person_id, dict(key.public.jwk))
        for role in roles:
            registry.grant_role(act, made.person_id, role)
        return made.person_id

    id = await act(world, "test.person", make)
    return Client(oauth_app(world), world, id, key)


async def administrator(world: World) -> Client:
    """Return an agent that has the administrator scope."""
    agent, key = await register(world, name="root", scopes=(ADMIN,))
    return Client(oauth_app(world), world, agent.agent_id, key)


async def ask(client: Client, method: str, path: str, body: Any = None) -> Answer:
    token = (await client.token(resource=API))["access_token"]
    proof = proof_of(client, token, path.partition("?")[0], method=method)  # RFC 9449 section 4.2: without the query
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof)]
    headers.append(("content-type", "application/json"))
    sent = b"" if body is None else json.dumps(body).encode()
    return await send(build_app(client.world), method, path, headers=headers, body=sent)

"""Whole grants per second of one core: form, client assertion, DPoP proof, replay memory, narrowing, policy, signature,
holding, entry and its fsync; requests are made beforehand and sent to the ASGI application without a socket.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from ostiary.protocol import dpop, jose
from ostiaryd.app import build_app
from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec

AGENTS, WAVES, WAVE, RESOURCE = 50, 12, 400, "https://files.example/mcp"
KIND = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECOND = 1_000_000


async def enter(world: World) -> list[tuple[str, jose.PrivateKey]]:
    keys = [jose.generate("ES256") for _ in range(AGENTS)]

    def make(act: Any) -> list[tuple[str, jose.PrivateKey]]:
        registry.bootstrap_admin(act, public_jwk=jose.generate("ES256").public.jwk)
        registry.create_resource(act, name="files", uri=RESOURCE)
        made: list[tuple[str, jose.PrivateKey]] = []
        for number, key in enumerate(keys):
            agent = registry.create_agent(
                act, AgentSpec(name=f"agent-{number}", owner="admin", purpose="bench", scopes=["files:read"])
            )
            registry.add_key(act, agent.agent_id, dict(key.public.jwk))
            made.append((agent.agent_id, key))
        return made

    return await act(world, "bench.enter", make)


def requests(world: World, agents: list[tuple[str, jose.PrivateKey]], wave: int) -> Iterator[tuple[bytes, bytes]]:
    now, uri = world.now(), f"{world.config.issuer}/token"
    nonce = dpop.make_nonce(world.keys.secret("nonce"), b"as", now)
    for number in range(WAVE):
        id, key = agents[number % AGENTS]
        jti = f"{wave}/{number}"
        claims = {"iss": id, "sub": id, "aud": world.config.issuer, "iat": now // SECOND, "exp": now // SECOND + 60}
        assertion = jose.sign_jwt(key, typ="client-authentication+jwt", claims=claims | {"jti": jti})
        form = {"grant_type": "client_credentials", "client_assertion_type": KIND, "client_assertion": assertion}
        proof = dpop.make_proof(key, method="POST", uri=uri, now=now, jti=jti, nonce=nonce)
        yield urlencode(form | {"resource": RESOURCE, "scope": "files:read"}).encode(), proof.encode()


async def send(app: Any, body: bytes, proof: bytes) -> int:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def take(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"dpop", proof)]
    scope = {"type": "http", "method": "POST", "path": "/token", "query_string": b"", "headers": headers}
    await app(scope, receive, take)
    return status


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with open_world(load_config(environ={}, data_dir=folder)) as world:
            app, agents = build_app(world), await enter(world)
            cpu, wall = [], []
            for wave in range(WAVES):
                made = list(requests(world, agents, wave))
                c, w = time.process_time(), time.perf_counter()
                statuses = await asyncio.gather(*[send(app, *request) for request in made])
                wall.append(WAVE / (time.perf_counter() - w))
                cpu.append(WAVE / (time.process_time() - c))
                if set(statuses) != {200}:
                    print(f"refused: {statuses}")
                    return 1
            print(f"grants, {WAVE} at once   {statistics.median(wall):8.0f} /s wall", end="   ")
            print(f"{statistics.median(cpu):8.0f} /cpu-s")
    return 0


sys.exit(asyncio.run(main()))

"""The other side: agents with keys, and their requests, signed before any clock runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.load.client import render
from ostiary.protocol import dpop, jose
from ostiaryd.ground.config import Config
from ostiaryd.ground.process.clock import wall_clock
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import load
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec
from ostiaryd.trust import flows as trust

ISSUER = "https://ostiary.example.org"
API = f"{ISSUER}/api/v1"
FILES = "https://files.example.org/mcp"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM = "application/x-www-form-urlencoded"
SECOND = 1_000_000
SCOPES = ["files:read", "files:write", "ostiary:decide"]
POLICIES = {
    "bench.cedarschema": """
        entity user = { id: String, role?: String };
        entity record = { id: String, status?: String };
        action read, write appliesTo { principal: user, resource: record, context: {} };
    """,
    "bench.cedar": """
        permit (principal is Agent, action == Action::"issue_token", resource is Resource);
        permit (principal is Agent, action == Action::"delegate", resource is Agent);
        permit (principal is Agent, action == Action::"call", resource);
        permit (principal is user, action == Action::"read", resource is record);
        permit (principal is user, action == Action::"write", resource is record)
        when { principal has role && principal.role == "editor" }
        unless { resource has status && resource.status == "archived" };
    """,
}
_IDS = count()


@dataclass(slots=True)
class Agent:
    """A client with its key, and the access token that it got."""

    id: str
    key: jose.PrivateKey
    token: str = ""

    def form(self, **fields: str) -> bytes:
        """A form with a client assertion of its own."""
        now = wall_clock() // SECOND
        claims = {"iss": self.id, "sub": self.id, "aud": ISSUER, "iat": now, "exp": now + 300, "jti": _jti()}
        assertion = jose.sign_jwt(self.key, typ="client-authentication+jwt", claims=claims)
        return urlencode({**fields, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}).encode()

    def ask_token(self, *, nonce: str | None, bound: bool = True, resource: str = FILES, **fields: str) -> bytes:
        """A token request, whole."""
        body = self.form(grant_type="client_credentials", resource=resource, **fields)
        headers = {"dpop": self.proof("POST", "/token", nonce=nonce)} if bound else {}
        return render("POST", "/token", headers=headers, body=body, media_type=FORM)

    def introspect(self, token: str) -> bytes:
        return render("POST", "/introspect", body=self.form(token=token), media_type=FORM)

    def call(self, method: str, path: str, *, nonce: str | None = None, bound: bool = True, body: bytes = b"") -> bytes:
        """A request with the access token, and a proof where it is bound to a key."""
        headers = {"authorization": f"{'DPoP' if bound else 'Bearer'} {self.token}"}
        if bound:
            headers["dpop"] = self.proof(method, path, nonce=nonce, access_token=self.token)
        return render(method, path, headers=headers, body=body, media_type="application/json" if body else "")

    def proof(self, method: str, path: str, *, nonce: str | None, access_token: str | None = None) -> str:
        return dpop.make_proof(
            self.key,
            method=method,
            uri=ISSUER + path.partition("?")[0],
            now=wall_clock(),
            jti=_jti(),
            nonce=nonce,
            access_token=access_token,
        )


def _jti() -> str:
    return f"{next(_IDS):032x}"


def question(number: int) -> dict[str, Any]:
    """An AuthZEN evaluation that the policies permit."""
    return {
        "subject": {"type": "user", "id": f"user-{number % 1000}", "properties": {"role": "editor"}},
        "action": {"name": "write"},
        "resource": {"type": "record", "id": f"record-{number}", "properties": {"status": "active"}},
    }


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Party:
    """Whom the server knows: agents, one that administers, one that may do without DPoP."""

    agents: list[Agent]
    admin: Agent
    exempt: Agent

    def turn(self, number: int) -> Agent:
        """The agents in turn."""
        return self.agents[number % len(self.agents)]


def config(folder: Path) -> Config:
    """The configuration of a measured server, which waits for a disk that stalls instead of answering 503."""
    return Config(data_dir=str(folder), public_url=ISSUER, trust_domain="example.org", queue_wait_ms=60_000)


def settle(folder: Path, *, agents: int) -> Party:
    """The data folder of a server that knows them, made before it starts."""

    async def make() -> Party:
        async with open_world(config(folder)) as world:
            return await enter(world, agents=agents)

    return asyncio.run(make())


async def enter(world: World, *, agents: int) -> Party:
    """Make them known to a world that is open."""
    admin = jose.generate("ES256")
    loaded = load(POLICIES)

    def begin(act: Act) -> str:
        agent = registry.bootstrap_admin(act, public_jwk=admin.public.jwk)
        registry.create_person(act, name="ann")
        registry.create_resource(act, name="files", uri=FILES)
        policies.put(act, loaded, by=None)
        return agent.agent_id

    def make(name: str, key: jose.PrivateKey) -> Callable[[Act], str]:
        def flow(act: Act) -> str:
            agent = registry.create_agent(act, AgentSpec(name=name, owner="ann", purpose="is measured", scopes=SCOPES))
            registry.add_key(act, agent.agent_id, dict(key.public.jwk))
            return agent.agent_id

        return flow

    admin_id = await act(world, "bench.begin", begin)
    keys = [jose.generate("ES256") for _ in range(agents + 1)]
    made = [act(world, "bench.enter", make(f"agent-{number}", key)) for number, key in enumerate(keys)]
    *others, exempt = [Agent(id, key) for id, key in zip(await asyncio.gather(*made), keys, strict=True)]
    await act(world, "bench.exempt", lambda act: trust.allow_bearer(act, exempt.id, "ostiary"))
    return Party(others, Agent(admin_id, admin), exempt)

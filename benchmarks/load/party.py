"""The other side: agents with keys, and their requests, signed before any clock runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.load.client import Ran, drive, render
from benchmarks.load.machine import CLIENT_CORE, SERVER_CORE, cpu_seconds, on_core
from ostiary.core import dpop, jose
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world, wall_clock
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import flows as trust
from tests.server import running

ISSUER = "https://ostiary.example.org"
API = f"{ISSUER}/api/v1"
FILES = "https://files.example.org/mcp"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM = "application/x-www-form-urlencoded"
SECOND = 1_000_000
_IDS = count()


@dataclass(slots=True)
class Agent:
    """A client with its key, the nonces that it knows, and the access token that it got last."""

    id: str
    key: jose.PrivateKey
    token: str = ""
    nonces: dict[str, str | None] | None = None

    def assertion(self) -> str:
        now = wall_clock() // SECOND
        claims = {"iss": self.id, "sub": self.id, "aud": ISSUER, "iat": now, "exp": now + 300, "jti": _jti()}
        return jose.sign_jwt(self.key, typ="client-authentication+jwt", claims=claims)

    def ask_token(self, *, nonce: str | None = None, bound: bool = True, **form: str) -> bytes:
        """A token request, whole: client assertion and DPoP proof of its own."""
        fields = {"grant_type": "client_credentials", "resource": FILES, **form}
        fields |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self.assertion()}
        headers = {"dpop": self.proof("POST", "/token", nonce=nonce)} if bound else {}
        return render("POST", "/token", headers=headers, body=urlencode(fields).encode(), media_type=FORM)

    def call(self, method: str, path: str, *, nonce: str | None = None, bound: bool = True, body: Any = None) -> bytes:
        """A request with the access token, and a proof where it is bound to a key."""
        headers = {"authorization": f"{'DPoP' if bound else 'Bearer'} {self.token}"}
        if bound:
            headers["dpop"] = self.proof(method, path, nonce=nonce, access_token=self.token)
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        return render(method, path, headers=headers, body=data, media_type="application/json" if data else "")

    def proof(self, method: str, path: str, *, nonce: str | None, access_token: str | None = None) -> str:
        return dpop.make_proof(
            self.key, method=method, uri=ISSUER + path.partition("?")[0], now=wall_clock(), jti=_jti(), nonce=nonce,
            access_token=access_token,
        )  # fmt: skip


def _jti() -> str:
    return f"{next(_IDS):032x}"


@dataclass(frozen=True, slots=True)
class Party:
    """Whom the server knows: agents that read and write files, one that administers, one exempt from DPoP."""

    agents: list[Agent]
    admin: Agent
    exempt: Agent


def settle(folder: Path, *, agents: int) -> Party:
    """Make the data folder of a server that knows them, before it starts."""
    return asyncio.run(_settle(Config(data_dir=str(folder), public_url=ISSUER, trust_domain="example.org"), agents))


async def _settle(config: Config, agents: int) -> Party:
    async with open_world(config) as world:
        return await enter(world, agents=agents)


async def enter(world: World, *, agents: int) -> Party:
    """The same in a world that is open."""
    admin = jose.generate("ES256")

    def begin(act: Act) -> str:
        agent = registry.bootstrap_admin(act, public_jwk=admin.public.jwk)
        registry.create_person(act, name="ann")
        registry.create_resource(act, name="files", uri=FILES)
        return agent.agent_id

    def make(name: str, key: jose.PrivateKey, scopes: list[str]) -> Callable[[Act], str]:
        def flow(act: Act) -> str:
            agent = registry.create_agent(act, name=name, owner="ann", purpose="reads files", scopes=scopes)
            registry.add_key(act, agent.agent_id, dict(key.public.jwk))
            return agent.agent_id

        return flow

    admin_id = await act(world, "bench.begin", begin)
    keys = [jose.generate("ES256") for _ in range(agents + 1)]
    made = [
        act(world, "bench.enter", make(f"agent-{number}", key, ["files:read", "files:write"]))
        for number, key in enumerate(keys)
    ]
    *others, exempt = [Agent(id, key) for id, key in zip(await asyncio.gather(*made), keys, strict=True)]
    await act(world, "bench.exempt", lambda act: trust.allow_bearer(act, exempt.id))
    return Party(others, Agent(admin_id, admin), exempt)


@dataclass(frozen=True, slots=True)
class Station:
    """A server on a core of its own, and what it costs to serve."""

    port: int
    pid: int

    def measure(self, requests: list[bytes], *, connections: int) -> tuple[Ran, float]:
        """Drive it from the client's core; what came, and the CPU seconds that the server used."""
        with on_core(CLIENT_CORE):
            before = cpu_seconds(self.pid)
            ran = drive(self.port, requests, connections=connections)
            return ran, cpu_seconds(self.pid) - before

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """One request: status and body."""
        ran = drive(self.port, [request], connections=1)
        return ran.statuses[0], ran.bodies[0]


@contextmanager
def stationed(folder: Path) -> Iterator[Station]:
    """`ostiary serve` on that data folder."""
    with on_core(SERVER_CORE):
        server = running(folder)
        started = server.__enter__()
    try:
        said = json.loads((folder / "server.json").read_text("utf-8"))
        yield Station(int(started.url.rpartition(":")[2]), int(said["pid"]))
    finally:
        server.__exit__(None, None, None)

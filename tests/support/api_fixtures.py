"""A client, a guard and a server that call each other without a socket, for the tests of trust, tokens and conformance.

`Client` speaks OAuth by itself, with its own requests; each part of a request can be replaced by something wrong.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
from msgspec.structs import replace as with_
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from ostiary.protocol import dpop, jose
from ostiaryd.app import CIBA_ROUTES
from ostiaryd.ground.http.edge import Endpoint
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentSpec
from ostiaryd.registry.store import owners
from ostiaryd.tokens import wire_metadata, wire_oauth
from tests.support.world import PUBLIC_URL

ISSUER = PUBLIC_URL
TOKEN = f"{ISSUER}/token"
FILES = "https://files.example/mcp"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECOND = 1_000_000
_IDS = count()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return "" if self.status == 200 else str(self.json["error"])


async def send(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: list[tuple[str, str]] | None = None,
    body: bytes = b"",
    address: str = "",
    stays: bool = False,
) -> Answer:
    """Send a request to an ASGI application, from an address if given. Repeated headers of the answer become one.

    A client that `stays` waits for the end of a stream; any other client leaves after the first event.
    """
    path, _, query = path.partition("?")
    sent: list[dict[str, Any]] = []
    received = count()

    async def receive() -> dict[str, Any]:
        if next(received) and stays:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body}

    async def take(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or []]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": unquote(path) if "%" in path else path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": raw,
        "scheme": "https",
        "root_path": "",
        "client": (address, 1) if address else None,
    }
    await app(scope, receive, take)
    answered: dict[str, str] = {}
    for name, value in sent[0]["headers"]:
        answered[name.decode()] = ", ".join(filter(None, (answered.get(name.decode()), value.decode("latin-1"))))
    return Answer(sent[0]["status"], answered, b"".join(part.get("body", b"") for part in sent[1:]))


def oauth_app(world: World) -> ASGIApp:
    """Return an application with only the OAuth endpoints."""
    return Starlette(
        routes=[
            Route(one.path, Endpoint(world, one.wire, render=one.protocol.render), methods=[one.method])
            for one in (*wire_oauth.ROUTES, *wire_metadata.ROUTES, *CIBA_ROUTES)
        ]
    )


def reconfigured(world: World, **changes: Any) -> World:
    """Return the same world with another configuration."""
    return replace(world, config=with_(world.config, **changes))


@dataclass(slots=True)
class Client:
    """An agent as an OAuth client, with its key, the server's clock, and the last DPoP nonce that it received."""

    app: ASGIApp
    world: World
    id: str
    key: jose.PrivateKey
    nonce: str | None = None

    def jti(self) -> str:
        return f"{self.id}/{next(_IDS)}"

    def assertion(
        self, *, key: jose.PrivateKey | None = None, header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """Return a valid client assertion with the given claims and header members replaced; a value of None leaves the
        member out.
        """
        now = self.world.now() // SECOND
        good = {"iss": self.id, "sub": self.id, "aud": ISSUER, "iat": now, "exp": now + 60, "jti": self.jti()}
        return sign(key or self.key, {"typ": "client-authentication+jwt", **(header or {})}, good | claims)

    def proof(self, **said: Any) -> str:
        """Return a valid DPoP proof for the token endpoint, with the given members replaced."""
        good: dict[str, Any] = {"method": "POST", "uri": TOKEN, "now": self.world.now(), "jti": self.jti()}
        return dpop.make_proof(said.pop("key", self.key), **good | {"nonce": self.nonce} | said)

    async def post(self, path: str, form: dict[str, Any] | str, **headers: str) -> Answer:
        """Send a form by POST. A list repeats its parameter, and a value of None leaves the parameter out."""
        text = (
            form if isinstance(form, str) else urlencode({k: v for k, v in form.items() if v is not None}, doseq=True)
        )
        kind = [] if "content_type" in headers else [("content-type", "application/x-www-form-urlencoded")]
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        answer = await send(self.app, "POST", path, headers=kind + named, body=text.encode())
        self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        return answer

    def form(self, **said: Any) -> dict[str, Any]:
        """Return the parameters of a valid token request, with the given parameters replaced."""
        if "client_assertion" not in said:
            said["client_assertion"] = self.assertion()
        return {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, **said}

    async def ask(self, *, proof: str | None = "", **said: Any) -> Answer:
        """Send one token request, and return the answer. With `proof=None`, the request has no DPoP proof."""
        headers = {} if proof is None else {"dpop": proof or self.proof()}
        return await self.post("/token", self.form(**said), **headers)

    async def token(self, **said: Any) -> dict[str, Any]:
        """Return a token response. The request is repeated once if the server asks for a nonce."""
        answer = await self.ask(**said)
        if answer.error == "use_dpop_nonce":
            answer = await self.ask(**said)
        assert answer.status == 200, answer.body
        answered: dict[str, Any] = answer.json
        return answered


def sign(key: jose.PrivateKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a JWS with this header and these claims; a value of None leaves the member out."""
    head = {"alg": key.public.alg, "kid": key.public.kid} | header
    parts = [{name: value for name, value in part.items() if value is not None} for part in (head, claims)]
    signing_input = ".".join(jose.b64u(json.dumps(part).encode()) for part in parts)
    return f"{signing_input}.{jose.b64u(key.sign(signing_input.encode()))}"


def claims_of(unverified_token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(jose.unb64u(unverified_token.split(".")[1]))
    return claims


async def guard(world: World, *, name: str = "files") -> tuple[str, jose.PrivateKey]:
    """Return the client id and the key of the guard of a registered resource."""
    key = jose.generate("ES256")
    resource = await act(world, "test.guard", lambda act: registry.set_resource_key(act, name, dict(key.public.jwk)))
    return resource.resource_id, key


async def register(
    world: World,
    *,
    name: str = "reader",
    scopes: tuple[str, ...] = ("files:read", "files:write"),
    owner: str = "ann",
    key: jose.PrivateKey | None = None,
    **more: Any,
) -> tuple[Agent, jose.PrivateKey]:
    """Return an agent of a person, and its key. The person and the resource `files` are registered if they do not exist
    yet.
    """
    key = key or jose.generate("ES256")

    def make(act: Any) -> Agent:
        if owners.get_person(act.tx, "ann") is None:
            registry.bootstrap_admin(act, public_jwk=jose.generate("ES256").public.jwk)
            registry.create_person(act, name="ann")
            registry.create_resource(act, name="files", uri=FILES)
        agent = registry.create_agent(
            act, AgentSpec(name=name, owner=owner, purpose="reads files", scopes=list(scopes), **more)
        )
        registry.add_key(act, agent.agent_id, dict(key.public.jwk))
        return registry.find_agent(act.tx, agent.agent_id)

    return await act(world, "test.enter", make), key


@pytest.fixture
async def client(world: World) -> Client:
    """Return an agent with the scopes `files:read` and `files:write`, which has received a nonce."""
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.ask()
    return client

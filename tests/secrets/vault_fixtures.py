"""An agent that logs in at the Vault API, by an access token or by a client secret."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx2
import hvac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from starlette.types import ASGIApp

from harness.live_server import ServerFixture
from ostiary import Agent, ambient
from ostiary.keys import load_key
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.secrets import flows
from ostiaryd.trust import flows as trust
from tests.support.api_fixtures import ASSERTION_TYPE, Answer, Client, register, send, sign
from tests.support.certificate_fixtures import put_policies
from tests.support.trust_fixtures import API

HOME = "192.0.2.7"
"""The address from which an agent logs in."""
KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PRIVATE = KEY.private_bytes_raw()
"""The unseal key."""

POLICIES = """
@id("use-own-secrets") permit (principal is Agent, action, resource is Secret) when { resource.agent == principal.id };
@id("use-keys") permit (principal is Agent, action, resource is Secret) when { resource.mount == "transit" };
@id("issue-token") permit (principal is Agent, action == Action::"issue_token", resource is Resource);
"""


class VaultStage:
    """A new agent that is exempt from proofs, and its folder of secrets."""

    def __init__(self, live_server: ServerFixture, *scopes: str) -> None:
        self.live_server = live_server
        self.name, self.credential = live_server.agent(*scopes)
        live_server.server.ostiary("agent", "allow-bearer", self.name, "--resource", "ostiary")
        self.folder = f"agents/{self.name}"

    @property
    def url(self) -> str:
        return self.live_server.server.url

    def bearer(self, **form: str) -> str:
        """An access token of the agent that is bound to no key."""
        credential = load_key(self.credential)
        now = ambient.now() // 1_000_000
        claims = {
            "iss": credential.client_id,
            "sub": credential.client_id,
            "aud": self.url,
            "iat": now,
            "exp": now + 60,
            "jti": ambient.random(16).hex(),
        }
        assertion = sign(credential.key, {"typ": "client-authentication+jwt"}, claims)
        answer = httpx2.post(
            f"{self.url}/token",
            data={
                "grant_type": "client_credentials",
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": assertion,
                "resource": f"{self.url}/api/v1",
                **form,
            },
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def login(self, **form: str) -> hvac.Client:
        """A client that has logged in by an access token."""
        client = hvac.Client(url=self.url)
        client.auth.jwt.jwt_login(role=self.name, jwt=self.bearer(**form))
        return client

    def agent(self) -> Agent:
        return Agent.from_credential(self.credential)

    def entries(self, action: str) -> list[dict[str, Any]]:
        """Entries of this agent with that action, the newest first."""
        agent = load_key(self.credential).client_id
        return [one for one in self.live_server.entries(action=action, limit=100) if one.get("agent") == agent]


class VaultAgent:
    """An agent that is exempt from proofs, at a server without a socket; `token` is its Vault token."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name, self.token = client, name, ""
        self.folder = f"agents/{name}"

    async def bearer(self, **form: Any) -> str:
        answer = await self.client.ask(proof=None, resource=API, **form)
        assert answer.status == 200, answer.body
        return str(answer.json["access_token"])

    async def login(self, *, address: str = HOME, **form: Any) -> VaultAgent:
        """Log in by an access token for which `form` asks."""
        answer = await self.ask("POST", "auth/jwt/login", {"jwt": await self.bearer(**form)}, token="", address=address)
        assert answer.status == 200, answer.body
        self.token = answer.json["auth"]["client_token"]
        return self

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        address: str = HOME,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """Send a request with the Vault token, or with another, or with none if it is empty."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = [] if any(name == "content-type" for name, _ in headers) else [("content-type", kind)]
        shown = self.token if token is None else token
        sent += [("x-vault-token", shown)] if shown else []
        sent += [("content-length", str(len(content))), *headers]
        return await send(self.client.app, method, f"/v1/{path}", headers=sent, body=content, address=address)

    async def status(self, method: str, path: str, body: Any = None, **more: Any) -> int:
        return (await self.ask(method, path, body, **more)).status

    async def read(self, path: str) -> Any:
        """The data at a path of the mount `secret`."""
        answer = await self.ask("GET", f"secret/data/{path}")
        assert answer.status == 200, answer.body
        return answer.json["data"]["data"]


async def enter_agent(world: World, app: ASGIApp, name: str, *, is_exempt: bool = True, **more: Any) -> VaultAgent:
    """An agent with a nonce for its proofs, exempt at the server's API."""
    agent, key = await register(world, name=name, **more)
    if is_exempt:
        await act(world, "bearer.allow", lambda a: trust.allow_bearer(a, name, "ostiary"))
    client = Client(app, world, agent.agent_id, key)
    await client.ask()
    return VaultAgent(client, name)


async def permit_all(world: World) -> None:
    """Permit every agent every use of every secret."""
    await put_policies(world, POLICIES + '@id("all") permit (principal is Agent, action, resource is Secret);')


async def seal_all(world: World, public: bytes | None = PUBLIC) -> flows.SealStatus:
    """Seal the secrets for an unseal key."""
    return await act(world, "vault.seal", lambda a: flows.seal_secrets(a, public))


async def unseal(world: World, key: bytes = PRIVATE) -> flows.SealStatus:
    """Open the secrets."""
    return await act(world, "vault.unseal", lambda a: flows.unseal_secrets(a, key))

"""An agent that logs in at the Vault API, by an access token or by a client secret."""

from __future__ import annotations

from typing import Any

import httpx2
from hvac import Client

from harness.live_server import ServerFixture
from ostiary import Agent, ambient
from ostiary.keys import load_key
from tests.support.api_fixtures import ASSERTION_TYPE, sign

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
            "iss": credential.client_id, "sub": credential.client_id, "aud": self.url, "iat": now, "exp": now + 60,
            "jti": ambient.random(16).hex(),
        }  # fmt: skip
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

    def login(self, **form: str) -> Client:
        """A client that has logged in by an access token."""
        client = Client(url=self.url)
        client.auth.jwt.jwt_login(role=self.name, jwt=self.bearer(**form))
        return client

    def agent(self) -> Agent:
        return Agent.from_credential(self.credential)

    def entries(self, action: str) -> list[dict[str, Any]]:
        """Entries of this agent with that action, the newest first."""
        agent = load_key(self.credential).client_id
        return [one for one in self.live_server.entries(action=action, limit=100) if one.get("agent") == agent]

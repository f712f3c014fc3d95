"""A client behind a proxy that forwards certificates (RFC 9440), without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from starlette.types import ASGIApp

from harness.client_certificates import Made, TestAuthority
from harness.registry_fixtures import newest_entry
from ostiary.protocol import dpop, jose
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.trust import flows
from tests.support.api_fixtures import FILES, ISSUER, Answer, Client, oauth_app, reconfigured, register, send

PROXY = "10.0.0.1"
URI = "spiffe://example.org/agent/reader"
SUBJECT = {"tls_client_auth_san_uri": URI}
NAMES = (x509.UniformResourceIdentifier(URI),)
SECOND = 1_000_000


@dataclass
class TlsClient:
    """A client behind a proxy that forwards certificates, and an authority that signs them, at the server's time."""

    client: Client
    world: World = field(init=False)
    app: ASGIApp = field(init=False)
    authority: TestAuthority = field(init=False)

    def __post_init__(self) -> None:
        self.world = reconfigured(self.client.world, certificate_proxies="10.0.0.0/8")
        self.app = oauth_app(self.world)
        self.authority = TestAuthority(at=self.now)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.now() // SECOND, UTC)

    def issue(self, subject: str = "CN=reader", *, names: Sequence[x509.GeneralName] = NAMES, **options: Any) -> Made:
        return self.authority.issue(subject, names=names, at=self.now, **options)

    async def trust(self, authority: TestAuthority | None = None, name: str = "company", **options: Any) -> None:
        pem = (authority or self.authority).pem
        await act(self.world, "anchor.add", lambda act: flows.add_anchor(act, name, pem, **options))

    async def register(
        self, subject: dict[str, str] | None = None, *made: Made, bound: bool = False, agent: str = "reader"
    ) -> None:
        pems, subject = [one.pem for one in made], {} if made else subject or SUBJECT
        await act(
            self.world,
            "agent.mutual_tls",
            lambda act: flows.set_certificate_client(act, agent, subject=subject, certificates=pems, is_bound=bound),
        )

    async def post(
        self,
        path: str,
        form: dict[str, Any],
        *fields: tuple[str, str],
        made: Made | None = None,
        address: str = PROXY,
    ) -> Answer:
        headers = [("content-type", "application/x-www-form-urlencoded"), *(made.fields if made else ()), *fields]
        return await send(self.app, "POST", path, headers=headers, body=urlencode(form).encode(), address=address)

    async def ask(self, made: Made | None, *fields: tuple[str, str], address: str = PROXY, **form: Any) -> Answer:
        asked = {"grant_type": "client_credentials", "client_id": self.client.id, "resource": FILES} | form
        return await self.post("/token", asked, *fields, made=made, address=address)

    async def refuse(self, made: Made | None, words: str, **more: Any) -> bool:
        """Check that the request gets `invalid_client` with these words and no token; return whether its entry has them
        too.
        """
        answer = await self.ask(made, **more)
        assert (answer.status, answer.error) == (401, "invalid_client"), answer.body
        assert words in answer.json["error_description"], answer.body
        entry = newest_entry(self.world)
        assert (entry.action, entry.outcome, entry.token) == ("token.issue", "refused", None)
        return words in entry.reasons[0].message


async def register_other(tls: TlsClient) -> tuple[str, str]:
    agent, _ = await register(tls.world, name="other")
    return agent.name, agent.agent_id


def proof(tls: TlsClient, key: jose.PrivateKey, nonce: str | None = None) -> tuple[str, str]:
    text = dpop.make_proof(
        key,
        method="POST",
        uri=f"{ISSUER}/token",
        now=tls.world.now(),
        jti=tls.client.jti(),
        nonce=nonce or tls.client.nonce,
    )
    return "dpop", text

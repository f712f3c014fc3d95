"""A raw ACME client for tests, which can replace each part of a signed request by something wrong."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from starlette.types import ASGIApp

from ostiary.protocol import jose
from ostiary.protocol.jose import b64u, unb64u
from tests.support.api_fixtures import Answer, send
from tests.support.world import PUBLIC_URL

ROOT = f"{PUBLIC_URL}/acme/"
KINDS = "urn:ietf:params:acme:error:"
JOSE = "application/jose+json"
MISSING = object()
"""A member of a header that is left out."""


def encode(value: Any) -> str:
    """Base64url of a JSON value; of nothing for None."""
    return "" if value is None else b64u(json.dumps(value).encode())


def kind_of(answer: Answer) -> str:
    """Return the type of problem of an answer; "" for a success."""
    if answer.status < 400:
        return ""
    assert answer.headers["content-type"] == "application/problem+json", answer
    assert answer.json["status"] == answer.status
    assert answer.json["detail"]
    return str(answer.json["type"]).removeprefix(KINDS)


def bind(
    account: jose.PublicKey, *, kid: str, secret: str, url: str = f"{ROOT}new-account", **said: Any
) -> dict[str, str]:
    """Return an external account binding; `said` replaces `alg`, or the whole `payload`."""
    alg = said.get("alg", "HS256")
    header = {"alg": alg, "kid": kid, "url": url, **said.get("header", {})}
    protected, payload = encode(header), encode(said.get("payload", account.bare_jwk))
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256")
    mac = hmac.digest(unb64u(secret), f"{protected}.{payload}".encode(), digest)
    return {"protected": protected, "payload": payload, "signature": b64u(said.get("mac", mac))}


@dataclass(slots=True)
class AcmeClient:
    """A client with an account key. `kid` is the URL of its account once it has one."""

    app: ASGIApp
    key: jose.PrivateKey = field(default_factory=lambda: jose.generate("ES256"))
    kid: str = ""
    nonces: list[str] = field(default_factory=list)

    async def nonce(self) -> str:
        """Return an unused nonce."""
        if not self.nonces:
            answer = await send(self.app, "HEAD", "/acme/new-nonce")
            assert answer.status == 200
            self.nonces.append(answer.headers["replay-nonce"])
        return self.nonces.pop()

    async def jws(self, to: str, payload: Any, *, key: jose.PrivateKey | None = None, **header: Any) -> dict[str, str]:
        """Return the JWS of a good request to a URL, except for the given members of its header."""
        signer = key or self.key
        brings = {"kid": self.kid} if self.kid and "jwk" not in header else {"jwk": signer.public.bare_jwk}
        protected = {"alg": signer.public.alg, "nonce": await self.nonce(), "url": to, **brings} | header
        first = encode({name: value for name, value in protected.items() if value is not MISSING})
        second = payload if isinstance(payload, str) else encode(payload)
        return {"protected": first, "payload": second, "signature": b64u(signer.sign(f"{first}.{second}".encode()))}

    async def send(self, url: str, body: Any, *, content_type: str = JOSE) -> Answer:
        """Send a body to a URL of the server."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = url.removeprefix(PUBLIC_URL)
        answer = await send(self.app, "POST", path, headers=[("content-type", content_type)], body=raw)
        if "replay-nonce" in answer.headers:
            self.nonces.append(answer.headers["replay-nonce"])
        return answer

    async def post(self, url: str, payload: Any = None, **header: Any) -> Answer:
        """Send a signed request; without a payload it reads (POST-as-GET). A path is below the directory."""
        url = url if url.startswith("http") else ROOT + url
        return await self.send(url, await self.jws(url, payload, **header))

    async def register(self, kid: str, secret: str, **said: Any) -> Answer:
        """Create the account of the key."""
        binding = bind(self.key.public, kid=kid, secret=secret)
        answer = await self.post("new-account", {"externalAccountBinding": binding, **said})
        if answer.status in (200, 201):
            self.kid = answer.headers["location"]
        return answer

    async def order(self, *names: str, **said: Any) -> Answer:
        """Order a certificate for these names, such as `dns:host.example`."""
        identifiers = [dict(zip(("type", "value"), name.split(":", 1), strict=True)) for name in names]
        return await self.post("new-order", {"identifiers": identifiers, **said})

    async def challenge(self, authorization: str, type: str) -> dict[str, Any]:
        """Return a challenge of an authorization."""
        answer = await self.post(authorization)
        return next(one for one in answer.json["challenges"] if one["type"] == type)

    def proof(self, token: str) -> str:
        """Return the key authorization of a token."""
        return f"{token}.{self.key.public.thumbprint}"

    async def prove(self, order: Answer, type: str, install: Callable[[str, str, str], None]) -> None:
        """Answer the challenge of that type of each authorization. `install` gets host, token and key authorization."""
        for url in order.json["authorizations"]:
            authorization = (await self.post(url)).json
            challenge = next(one for one in authorization["challenges"] if one["type"] == type)
            install(authorization["identifier"]["value"], challenge["token"], self.proof(challenge["token"]))
            answer = await self.post(challenge["url"], {})
            assert answer.status == 200, answer

    async def finalize(self, order: Answer, csr: bytes) -> Answer:
        """Send a certificate signing request for an order."""
        return await self.post(order.json["finalize"], {"csr": b64u(csr)})


def dns_digest(proof: str) -> str:
    """Return the TXT record for a key authorization."""
    return b64u(sha256(proof.encode()).digest())

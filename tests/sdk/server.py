"""A small issuer and a small resource as one function from request to answer: strict about proofs and nonces."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import httpx2

from harness.clock import Clock
from ostiary.protocol import dpop, jose

ISSUER = "https://ostiary.example.org"
API = "https://files.example.org/api"
SECOND = 1_000_000


class Server:
    """Knows one agent by its key. `log` has what was asked for; `refuse_tokens` and `revoked` are for tests to fill."""

    def __init__(self, clock: Clock, key: jose.PrivateKey, *, issuer: str = ISSUER) -> None:
        self.clock, self.key, self.issuer = clock, key, issuer
        self.log: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.tokens: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.refuse_tokens = False
        self.demand = ""
        """parameters that the request for a token must have had: `acr_values` and `max_age` as in a challenge"""
        self.stepped_up: dict[str, str] = {}
        self.bound: dict[str, str] = {}
        self.lifetime = 300
        self.nonces = {"as": "as-nonce-1", "rs": "rs-nonce-1"}
        self._jtis: set[str] = set()
        self.metadata: dict[str, Any] = {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/token",
            "dpop_signing_alg_values_supported": ["ES256"],
            "protected_resources": [f"{issuer}/api/v1"],
        }

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        self.log.append(f"{request.method} {url}")
        if url == f"{self.issuer}/.well-known/oauth-authorization-server":
            return httpx2.Response(200, json=self.metadata)
        if url == f"{self.issuer}/token":
            return self._token(request)
        if url == "https://files.example.org/.well-known/oauth-protected-resource/api":
            return httpx2.Response(200, json={"resource": API, "authorization_servers": [self.issuer]})
        return self._resource(request)

    def _check(self, request: httpx2.Request, purpose: str, **bound: Any) -> bool:
        """Whether the proof is good; otherwise it lacks the nonce. Fails the test for one that is used again."""
        proof = request.headers["dpop"]
        uri = str(request.url).partition("?")[0]
        try:
            found = dpop.check_proof(
                proof,
                method=request.method,
                uri=uri,
                now=self.clock(),
                nonces=lambda n: n == self.nonces[purpose],
                **bound,
            )
        except dpop.UseNonce:
            return False
        assert found.jti not in self._jtis, "a proof was sent twice"
        self._jtis.add(found.jti)
        self.shown = found.jkt
        return True

    def _token(self, request: httpx2.Request) -> httpx2.Response:
        form = parse_qs(request.content.decode())
        try:
            claims = jose.verify_jwt(
                form["client_assertion"][0],
                key_for=lambda _: self.key.public,
                typ=("client-authentication+jwt",),
                now=self.clock(),
                issuer="ag_1",
                audience=self.issuer,
            )
        except jose.InvalidToken as error:
            headers = {"date": formatdate(self.clock() // 1_000_000, usegmt=True)}
            body = {"error": "invalid_client", "error_description": error.message}
            return httpx2.Response(401, json=body, headers=headers)
        assert claims["sub"] == "ag_1"
        assert claims["jti"] not in self._jtis, "an assertion was sent twice"
        self._jtis.add(str(claims["jti"]))
        if not self._check(request, "as"):
            return httpx2.Response(400, json={"error": "use_dpop_nonce"}, headers={"dpop-nonce": self.nonces["as"]})
        self.forms.append(form)
        if self.refuse_tokens:
            body = {"error": "invalid_client", "error_description": "the agent is suspended", "hint": "ask its owner"}
            return httpx2.Response(401, json=body)
        token = f"token-{len(self.tokens) + 1}"
        self.tokens[token] = form.get("resource", [""])[0]
        self.bound[token] = self.shown
        asked = {name: form[name][0] for name in ("acr_values", "max_age") if name in form}
        self.stepped_up[token] = ", ".join(f'{name}="{value}"' for name, value in asked.items())
        return httpx2.Response(
            200, json={"access_token": token, "token_type": "DPoP", "expires_in": self.lifetime, "scope": "files:read"}
        )

    def _resource(self, request: httpx2.Request) -> httpx2.Response:
        metadata = 'resource_metadata="https://files.example.org/.well-known/oauth-protected-resource/api"'
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "DPoP":
            return httpx2.Response(401, headers={"www-authenticate": f"DPoP {metadata}"})
        if token in self.revoked:
            return httpx2.Response(401, headers={"www-authenticate": f'DPoP error="invalid_token", {metadata}'})
        if not self._check(request, "rs", access_token=token, jkt=self.bound[token]):
            headers = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": self.nonces["rs"]}
            return httpx2.Response(401, headers=headers)
        if self.demand and self.stepped_up[token] != self.demand:
            error = f'DPoP error="insufficient_user_authentication", {self.demand}, {metadata}'
            return httpx2.Response(401, headers={"www-authenticate": error})
        return httpx2.Response(200, json={"token": token, "for": self.tokens[token]})

"""What one client learns of its issuer and of resources: each function is a generator that yields requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import httpx2
import msgspec

from ostiary.client.clock import IssuerClock
from ostiary.client.target import STEP_UP, StepUpNeeded, Target, Token, TokenRefused
from ostiary.core import canonical, dpop, jose
from ostiary.core.decoding import convert
from ostiary.core.errors import Forbidden, Malformed, Refused, Unauthenticated, Unavailable
from ostiary.keys import Credential

T = TypeVar("T")
Flow = Generator[httpx2.Request, httpx2.Response, T]

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ASSERTION_LIFETIME_S = 60
MAX_CACHED = 1000
MAX_ATTEMPTS = 3
"""One for each way to fail through nobody's fault: no nonce yet, a token that was just revoked."""
MARGIN_US = 30_000_000
"""A token is renewed this long before its end, or when a fifth of its life is left, whichever is later."""
SECOND = 1_000_000


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    token_endpoint: str


class _ResourceMetadata(msgspec.Struct, frozen=True):
    resource: str


class _TokenAnswer(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str
    expires_in: int


class Client:
    """What one client has learned of its issuer and of resources. `url`: where the issuer is reached, if elsewhere."""

    def __init__(
        self,
        credential: Credential,
        *,
        url: str | None = None,
        second_key: jose.PrivateKey | None = None,
        now: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self.credential, self._second_key = credential, second_key
        self._url = (url or credential.issuer).rstrip("/")
        self._now, self._random = IssuerClock(now), random
        self._metadata: _Metadata | None = None
        self._tokens: dict[Target, Token] = {}
        self._nonces: dict[str, str] = {}
        """the last nonce of each server; the issuer's token endpoint has one of its own"""
        self._resources: dict[str, str] = {}
        """resource identifiers by the origin and first path segment of the URLs that led to them"""

    def discover(self) -> Flow[_Metadata]:
        """The issuer's metadata. Raises Unavailable, Malformed."""
        if self._metadata is None:
            parts = urlsplit(self._url)
            well_known = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}"
            response = yield httpx2.Request("GET", well_known)
            if response.status_code != 200:
                raise Unavailable(f"{well_known} answers {response.status_code}", hint="is this the URL of the issuer?")
            metadata = _decode(response, _Metadata, of="the issuer's metadata")
            if metadata.issuer not in (self._url, self.credential.issuer) and not _is_local(self._url):
                raise Malformed(f"{self._url} says that it is the issuer {metadata.issuer}", hint="use that URL")
            self._metadata = metadata
        return self._metadata

    def public(self, url: str) -> str:
        """How the issuer itself names that URL: it may be reached under another one on its own machine."""
        issuer = self._metadata.issuer if self._metadata is not None else self._url
        return issuer + url[len(self._url) :] if url.startswith(self._url + "/") else url

    def _reachable(self, url: str) -> str:
        issuer = self._metadata.issuer if self._metadata is not None else self._url
        return self._url + url[len(issuer) :] if url.startswith(issuer + "/") else url

    def token(self, target: Target) -> Flow[Token]:
        """A token for that target, from memory while it is fresh. Raises TokenRefused, Unavailable."""
        held = self._tokens.get(target)
        if held is not None and self.is_fresh(held) and not self._is_old(held, target):
            return held
        metadata = yield from self.discover()
        for _ in range(MAX_ATTEMPTS):
            response = yield self._token_request(metadata, target)
            is_new_nonce = self._learn_nonce("issuer", response)
            is_new_time = response.status_code in (400, 401) and self._now.learn(response)
            if not (response.status_code in (400, 401) and (is_new_nonce or is_new_time)):
                break
        self._forget_oldest()
        token = self._tokens[target] = self._read_token(response, self._key(target))
        return token

    def is_fresh(self, token: Token) -> bool:
        """Whether it is good for a while still."""
        return self._now() < token.renew_at

    def _is_old(self, token: Token, target: Target) -> bool:
        """Whether it is longer ago than the target wants that we have proved ourselves."""
        return target.max_age is not None and self._now() - token.got_at >= target.max_age * SECOND

    def forget(self, target: Target) -> None:
        """The token for that target is dead: the next one is fetched."""
        self._tokens.pop(target, None)

    def _token_request(self, metadata: _Metadata, target: Target) -> httpx2.Request:
        now = self._now()
        claims = {
            "iss": self.credential.client_id,
            "sub": self.credential.client_id,
            "aud": metadata.issuer,
            "iat": now // SECOND,
            "exp": now // SECOND + ASSERTION_LIFETIME_S,
            "jti": self._jti(),
        }
        form = {
            "grant_type": "client_credentials",
            "client_id": self.credential.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": jose.sign_jwt(self.credential.key, typ="client-authentication+jwt", claims=claims),
        }
        max_age = None if target.max_age is None else str(target.max_age)
        named = {"resource": target.resource, "scope": target.scope, "task": target.task}
        named |= {"acr_values": target.acr_values, "max_age": max_age}
        if target.subject is not None:
            form["grant_type"] = TOKEN_EXCHANGE
            named |= {"subject_token": target.subject, "subject_token_type": ACCESS_TOKEN}
        form |= {name: value for name, value in named.items() if value is not None}
        proof = dpop.make_proof(
            self._key(target), method="POST", uri=metadata.token_endpoint, now=now, jti=self._jti(),
            nonce=self._nonces.get("issuer"),
        )  # fmt: skip
        headers = {"content-type": "application/x-www-form-urlencoded", "dpop": proof}
        url = self._reachable(metadata.token_endpoint)
        return httpx2.Request("POST", url, headers=headers, content=urlencode(form).encode())

    def _key(self, target: Target) -> jose.PrivateKey:
        """The key that a token for that target is bound to."""
        return self._second_key if target.steps_up and self._second_key is not None else self.credential.key

    def _read_token(self, response: httpx2.Response, key: jose.PrivateKey) -> Token:
        if response.status_code != 200:
            raise _token_refused(response)
        answer = _decode(response, _TokenAnswer, of="the token response")
        if answer.token_type.lower() != "dpop":
            raise Unauthenticated(
                "the issuer gave a token that is not bound to our key", hint="is this an ostiary server?"
            )
        lifetime = answer.expires_in * SECOND
        now = self._now()
        renew_at = now + lifetime - min(MARGIN_US, lifetime // 5)
        return Token(answer.access_token, msgspec.json.decode(response.content), now, renew_at, key)

    def send(self, request: httpx2.Request, target: Target) -> Flow[httpx2.Response]:
        """Send `request` with a token and a fresh proof; once more where the nonce or the token was an old one.

        Where the resource wants to know more of who we are, once more with a token that says it. Raises TokenRefused,
        StepUpNeeded, Unavailable. A caller whose token the resource refuses, and that gets no other, hears it from the
        resource.
        """
        if target.resource is None:
            resource = self._resources.get(_place(request))
            if resource is None:
                response = yield request
                resource = yield from self._read_challenge(request, response)
                if resource is None:
                    return response  # that was enough
            target = replace(target, resource=resource)
        token = yield from self.token(target)
        for left in reversed(range(MAX_ATTEMPTS)):
            response = yield self._prove(request, token)
            is_new_nonce = self._learn_nonce(_origin(request.url), response)
            challenge = response.headers.get("www-authenticate", "")
            if not left:
                break  # what is asked last is what the caller sees: the resource, never the issuer
            if response.status_code == 401 and "invalid_token" in challenge and self._tokens.get(target) is token:
                del self._tokens[target]
                with suppress(TokenRefused):
                    token = yield from self.token(target)
            elif response.status_code == 401 and STEP_UP in challenge:
                stronger = target.stepped_up(challenge)
                if self._tokens.get(stronger) is token:
                    self.forget(stronger)
                try:
                    token = yield from self.token(target := stronger)
                except TokenRefused as refusal:
                    raise StepUpNeeded(stronger, refusal) from None
            elif (
                response.status_code == 401
                and _origin(request.url) == _origin(httpx2.URL(self._url))
                and self._now.learn(response)
            ):
                continue
            elif not (response.status_code == 401 and "use_dpop_nonce" in challenge and is_new_nonce):
                break
        return response

    def _prove(self, request: httpx2.Request, token: Token) -> httpx2.Request:
        """The request with the token and a proof of its key."""
        uri = self.public(str(request.url).partition("#")[0].partition("?")[0])
        proof = self.proof(method=request.method, uri=uri, token=token, nonce=self._nonces.get(_origin(request.url)))
        request.headers["authorization"] = f"DPoP {token.text}"
        request.headers["dpop"] = proof
        return request

    def proof(self, *, method: str, uri: str, token: Token, nonce: str | None) -> str:
        """That we have the key which the token is bound to, for one request (RFC 9449 section 4.2)."""
        return dpop.make_proof(
            token.key, method=method, uri=uri, now=self._now(), jti=self._jti(), nonce=nonce,
            access_token=token.text,
        )  # fmt: skip

    def _read_challenge(self, request: httpx2.Request, response: httpx2.Response) -> Flow[str | None]:
        """The resource that a URL belongs to, as the server's challenge says (RFC 9728 section 5); None without one.

        Differs from section 3.3: the resource may be a path above the URL, as it is for every API that has more than
        one URL. It is never of another origin.
        """
        found = re.search(r'resource_metadata="([^"\\]+)"', response.headers.get("www-authenticate", ""))
        if response.status_code != 401 or found is None:
            return None
        hint = "name the `resource` yourself"
        if _origin(httpx2.URL(found[1])) != _origin(request.url):
            raise Forbidden(f"{_origin(request.url)} points to metadata elsewhere", hint=hint)
        described = yield httpx2.Request("GET", found[1])
        if described.status_code != 200:
            raise Unavailable(f"{found[1]} answers {described.status_code}", hint=hint)
        resource = _decode(described, _ResourceMetadata, of="the resource's metadata").resource
        url = str(request.url).partition("?")[0]
        if url != resource and not url.startswith(resource.rstrip("/") + "/"):
            raise Forbidden(f"{url} says that it is of {resource}", hint=hint)
        if len(self._resources) < MAX_CACHED:
            self._resources[_place(request)] = resource
        return resource

    def _learn_nonce(self, server: str, response: httpx2.Response) -> bool:
        """Keep the nonce that a server gives; whether it is another one than we had."""
        nonce = response.headers.get("dpop-nonce")
        if nonce is None or len(nonce) > dpop.MAX_NONCE or nonce == self._nonces.get(server):
            return False
        if len(self._nonces) >= MAX_CACHED:
            self._nonces.clear()
        self._nonces[server] = nonce
        return True

    def _forget_oldest(self) -> None:
        if len(self._tokens) >= MAX_CACHED:
            del self._tokens[next(iter(self._tokens))]

    def _jti(self) -> str:
        return jose.b64u(self._random(16))


def _token_refused(response: httpx2.Response) -> Refused:
    body: object = None
    with suppress(Malformed):
        body = canonical.parse(response.content)
    said = body if isinstance(body, dict) else {}
    message = str(said.get("error_description") or said.get("message") or f"HTTP {response.status_code}")
    kind = Unavailable if response.status_code >= 500 else TokenRefused
    return kind(message, hint=str(said.get("hint", "")), code=str(said.get("error", "token_refused")))


def _decode(response: httpx2.Response, kind: type[T], *, of: str) -> T:
    try:
        return convert(canonical.parse(response.content), kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"{of}: {error}") from None


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _place(request: httpx2.Request) -> str:
    """Origin and first segment of the path: URLs of one place are of one resource, until a challenge says otherwise."""
    return f"{_origin(request.url)}/{request.url.path.lstrip('/').partition('/')[0]}"


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")

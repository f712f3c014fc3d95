"""The flows of a client, and its facts about its issuer and resources: each flow is a generator that yields requests.

A client may be used from threads and tasks at once. Flows that need the same metadata or the same token share one
request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlencode

import httpx2
import msgspec

from ostiary.client.clock import IssuerClock
from ostiary.client.issuer import FORMS, AssertionForm, Metadata, authenticate, is_local, is_private, well_known_urls
from ostiary.client.refusals import parse_refusal
from ostiary.client.sending import MAX_CACHED, Sender, error_of
from ostiary.client.steps import Flow, SharedFlows
from ostiary.client.target import STEP_UP, StepUpNeeded, Target, Token, TokenRefused
from ostiary.keys import Credential
from ostiary.protocol import canonical, dpop, jose
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Forbidden, Invalid, Malformed, Unauthenticated, Unavailable

T = TypeVar("T")

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
MAX_ATTEMPTS = 3
"""Attempts of a request: one for each failure that is not the caller's fault: a wrong clock, a token revoked
just now, a step-up.
"""
MARGIN_US = 30_000_000
"""A token is renewed this long before its end, or when a fifth of its life is left, whichever is later."""
DEFAULT_LIFETIME_S = 300
"""lifetime of a token if the issuer states none, in seconds"""
SECOND = 1_000_000


class _ResourceMetadata(msgspec.Struct, frozen=True):
    resource: str


_TOKEN = re.compile(r"[\x21-\x7e]+")
"""Tokens that fit into a header: a subset of those of RFC 6749 appendix A.12."""
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]+)?")


class _TokenAnswer(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str
    expires_in: int | float | str | None = None

    @property
    def lifetime_s(self) -> float:
        """Return a lifetime in seconds; some issuers write the number as a string."""
        text = str(self.expires_in)
        return float(text) if _SECONDS.fullmatch(text) else DEFAULT_LIFETIME_S


class Client:
    """A client: its facts about its issuer and resources. `url`: the address of the issuer, if different. Safe for
    threads and tasks.
    """

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
        self._metadata: Metadata | None = None
        self._form: AssertionForm | None = None
        """the form of assertions that the issuer has accepted"""
        self._proof_key = credential.key
        self._sender, self._shared = Sender(self._now), SharedFlows()
        self._tokens: dict[Target, Token] = {}
        self._resources: dict[str, str] = {}
        """resource identifiers by the origin and first path segment of the URLs that led to them"""

    def share_anew(self) -> None:
        """Stop waiting for flows that run now: in a forked process, those of the parent never end."""
        self._shared = SharedFlows()
        self._sender.share_anew()

    def discover(self) -> Flow[Metadata]:
        """Return the issuer's metadata. Raises Unavailable, Malformed."""
        if self._metadata is None:
            self._metadata = yield from self._shared.run("metadata", self._fetch_metadata)
            offered = self._metadata.dpop_signing_alg_values_supported or [self.credential.key.public.alg]
            if self.credential.key.public.alg not in offered:
                alg = next((name for name in offered if name in jose.ALGS), None)
                if alg is None:
                    raise Invalid(
                        f"{self._metadata.issuer} accepts DPoP proofs by {', '.join(offered)[:200]}, and this client"
                        " has none of these algorithms",
                        hint=f"the server must accept one of: {', '.join(sorted(jose.ALGS))}",
                    )
                self._proof_key = jose.generate(alg)
        return self._metadata

    def _fetch_metadata(self) -> Flow[Metadata]:
        failures = list[str]()
        for url in well_known_urls(self._url):
            response = yield from self._sender.send("GET", partial(_get, url))
            if response.status_code == 200:
                metadata = _decode(response, Metadata, of="the issuer's metadata")
                if metadata.issuer not in (self._url, self.credential.issuer) and not is_local(self._url):
                    raise Malformed(f"{self._url} names the issuer {metadata.issuer}", hint="use that URL")
                return metadata
            failures.append(f"{url} answers {response.status_code}")
            if response.status_code >= 500:
                break
        raise Unavailable(failures[0], hint="check the URL of the issuer")

    def public(self, url: str) -> str:
        """Return the URL under the issuer's own name. On the issuer's own machine, a client may reach it under
        another name.
        """
        issuer = self._metadata.issuer.rstrip("/") if self._metadata is not None else self._url
        return issuer + url[len(self._url) :] if url.startswith(self._url + "/") else url

    def _reachable(self, url: str) -> str:
        issuer = self._metadata.issuer.rstrip("/") if self._metadata is not None else self._url
        return self._url + url[len(issuer) :] if url.startswith(issuer + "/") else url

    def token(self, target: Target) -> Flow[Token]:
        """Return a token for that target, from memory while it is fresh. Raises TokenRefused, Unavailable."""
        cached = self._tokens.get(target)
        if cached is not None and self.is_fresh(cached) and not self._is_old(cached, target):
            return cached
        return (yield from self._shared.run(target, lambda: self._fetch_token(target)))

    def _fetch_token(self, target: Target) -> Flow[Token]:
        metadata = yield from self.discover()
        key = self._key(target) if metadata.offers_dpop and not self.credential.has_certificate else None
        forms = (FORMS[0],) if metadata.is_ostiary else FORMS if self._form is None else (self._form,)
        for form in forms:
            response = yield from self._request_token(metadata, target, form, key)
            if error_of(response) != "invalid_client" or not self._signs_assertions:
                break
        token = self._read_token(response, key)
        self._form = form
        if len(self._tokens) >= MAX_CACHED:
            with suppress(KeyError, RuntimeError):  # another flow made room
                del self._tokens[next(iter(self._tokens))]
        self._tokens[target] = token
        return token

    @property
    def _signs_assertions(self) -> bool:
        return self.credential.secret is None and not self.credential.has_certificate

    def is_fresh(self, token: Token) -> bool:
        """Return whether the token need not be renewed yet."""
        return self.is_current(token.renew_at)

    def is_current(self, renew_at: int) -> bool:
        """Return whether that time, by the issuer's clock in microseconds, lies in the future."""
        return self._now() < renew_at

    def tokens(self) -> dict[Target, Token]:
        """Return a copy of the tokens in memory."""
        return dict(self._tokens)

    def add_token(self, target: Target, token: Token) -> None:
        """Use a token that an earlier process got. A token that the resource refuses is fetched again."""
        self._tokens[target] = token

    def _is_old(self, token: Token, target: Target) -> bool:
        """Return whether the last authentication is older than the target allows."""
        return target.max_age is not None and self._now() - token.got_at >= target.max_age * SECOND

    def forget_all(self) -> None:
        """Drop all tokens, as after a change of the certificate that they are bound to."""
        self._tokens.clear()

    def forget(self, target: Target) -> None:
        """Drop the token for that target; the next one is fetched."""
        self._tokens.pop(target, None)

    def _request_token(
        self, metadata: Metadata, target: Target, form: AssertionForm, key: jose.PrivateKey | None
    ) -> Flow[httpx2.Response]:
        """Send a token request, and a second time if the clock of this machine was wrong."""

        def make(nonce: str | None) -> httpx2.Request:
            return self._token_request(metadata, target, form, key, nonce)

        for _ in range(2):
            response: httpx2.Response = yield from self._sender.send("token", make, server="issuer")
            if not (response.status_code in (400, 401) and self._now.learn(response)):
                break
        return response

    def _token_request(
        self, metadata: Metadata, target: Target, form: AssertionForm, key: jose.PrivateKey | None, nonce: str | None
    ) -> httpx2.Request:
        now = self._now()
        shown, headers = authenticate(self.credential, metadata, form, now_s=now // SECOND, jti=self._jti())
        max_age = None if target.max_age is None else str(target.max_age)
        named = {"resource": target.resource, "scope": target.scope, "task": target.task}
        named |= {"acr_values": target.acr_values, "max_age": max_age, "grant_type": "client_credentials"}
        if target.subject is not None:
            named |= {"grant_type": TOKEN_EXCHANGE, "subject_token": target.subject, "subject_token_type": ACCESS_TOKEN}
        content = shown | {name: value for name, value in named.items() if value is not None}
        headers["content-type"] = "application/x-www-form-urlencoded"
        if key is not None:
            uri = metadata.token_endpoint.partition("#")[0].partition("?")[0]
            headers["dpop"] = dpop.make_proof(key, method="POST", uri=uri, now=now, jti=self._jti(), nonce=nonce)
        has_certificate = self.credential.has_certificate
        url = metadata.mtls_token_endpoint if has_certificate else self._reachable(metadata.token_endpoint)
        return httpx2.Request("POST", url, headers=headers, content=urlencode(content).encode())

    def _key(self, target: Target) -> jose.PrivateKey:
        """Return the key that a token for that target is bound to."""
        return self._second_key if target.steps_up and self._second_key is not None else self._proof_key

    def _read_token(self, response: httpx2.Response, key: jose.PrivateKey | None) -> Token:
        if response.status_code != 200:
            raise parse_refusal(response.status_code, response.content, kind=TokenRefused, code="token_refused")
        answer = _decode(response, _TokenAnswer, of="the token response")
        if key is not None and answer.token_type.lower() != "dpop":
            raise Unauthenticated(
                "the issuer gave a token that is not bound to the client's key, though it offers DPoP",
                hint="enable DPoP for this client at the issuer",
            )
        if key is None and answer.token_type.lower() != "bearer":
            raise Unauthenticated(f"the issuer gave a token of the unknown type {answer.token_type[:32]!a}")
        if _TOKEN.fullmatch(answer.access_token) is None:
            raise Malformed("the issuer gave an access token with characters that RFC 6750 does not allow")
        lifetime = round(answer.lifetime_s * SECOND)
        now = self._now()
        renew_at = now + lifetime - min(MARGIN_US, lifetime // 5)
        return Token(answer.access_token, msgspec.json.decode(response.content), now, renew_at, key)

    def send(self, request: httpx2.Request, target: Target) -> Flow[httpx2.Response]:
        """Send `request` with a token and a fresh proof; repeat it if the nonce or the token was outdated.

        If the resource demands stronger authentication, repeat the request with a token that carries it. Raises
        TokenRefused, StepUpNeeded, Unavailable. If the resource refuses the token and the issuer gives no other one,
        the caller gets the response of the resource.
        """
        if target.resource is None:
            resource = self._resources.get(_place(request))
            if resource is None:
                response: httpx2.Response = yield request
                resource = yield from self._read_challenge(request, response)
                if resource is None:
                    return response  # no token was demanded
            target = replace(target, resource=resource)
        token = yield from self.token(target)
        for left in reversed(range(MAX_ATTEMPTS)):
            response = yield from self._show_token(request, token, target)
            challenge = response.headers.get("www-authenticate", "")
            if response.status_code != 401 or not left:
                break  # the caller sees the answer to the last request: that of the resource, never of the issuer
            if "invalid_token" in challenge:
                if self._tokens.get(target) is token:
                    self.forget(target)
                try:
                    token = yield from self.token(target)
                except TokenRefused:
                    response = yield from self._show_token(request, token, target)
                    break
            elif STEP_UP in challenge:
                stronger = target.stepped_up(challenge)
                if self._tokens.get(stronger) is token:
                    self.forget(stronger)
                try:
                    token = yield from self.token(target := stronger)
                except TokenRefused as refusal:
                    raise StepUpNeeded(stronger, refusal) from None
            elif not (_origin(request.url) == _origin(httpx2.URL(self._url)) and self._now.learn(response)):
                break
        return response

    def _show_token(self, request: httpx2.Request, token: Token, target: Target) -> Flow[httpx2.Response]:
        """Send the request with the token and, if it is bound to a key, proofs of that key."""
        if token.key is None:
            _check_bearer(request.url, target, is_bound=self.credential.has_certificate)

        def make(nonce: str | None) -> httpx2.Request:
            if token.key is None:
                request.headers["authorization"] = f"Bearer {token.text}"
                return request
            uri = self.public(str(request.url).partition("#")[0].partition("?")[0])
            request.headers["authorization"] = f"DPoP {token.text}"
            request.headers["dpop"] = self.proof(method=request.method, uri=uri, token=token, nonce=nonce)
            return request

        server = f"{_origin(request.url)} {target.resource}"
        return (yield from self._sender.send(request.method, make, server=server))

    def proof(self, *, method: str, uri: str, token: Token, nonce: str | None) -> str:
        """Return a proof of the key that the token is bound to, for one request (RFC 9449 section 4.2)."""
        if token.key is None:
            raise Invalid("the token is not bound to a key", hint="use an issuer that offers DPoP")
        return dpop.make_proof(
            token.key,
            method=method,
            uri=uri,
            now=self._now(),
            jti=self._jti(),
            nonce=nonce,
            access_token=token.text,
        )

    def _read_challenge(self, request: httpx2.Request, response: httpx2.Response) -> Flow[str | None]:
        """Return the resource of a URL, as the server's challenge states it (RFC 9728 section 5); None without a
        challenge.

        Differs from section 3.3: the resource may be a path above the URL, as for every API with more than one URL. It
        always has the origin of the URL.
        """
        link = re.search(r'resource_metadata="([^"\\]+)"', response.headers.get("www-authenticate", ""))
        if response.status_code != 401 or link is None:
            return None
        hint = "name the `resource` yourself"
        if _origin(httpx2.URL(link[1])) != _origin(request.url):
            named, requested = _origin(httpx2.URL(link[1])), _origin(request.url)
            raise Forbidden(f"the metadata of {requested} is at another origin, {named}", hint=hint)
        described = yield httpx2.Request("GET", link[1])
        if described.status_code != 200:
            raise Unavailable(f"{link[1]} answers {described.status_code}", hint=hint)
        resource = _decode(described, _ResourceMetadata, of="the resource's metadata").resource
        url = str(request.url).partition("?")[0]
        if url != resource and not url.startswith(resource.rstrip("/") + "/"):
            raise Forbidden(f"{url} names the resource {resource}, which does not cover it", hint=hint)
        metadata = yield from self.discover()
        if not metadata.offers_dpop:
            raise Forbidden("a bearer token is not given to a server that names its resource itself", hint=hint)
        if len(self._resources) < MAX_CACHED:
            self._resources[_place(request)] = resource
        return resource

    def _jti(self) -> str:
        return jose.b64u(self._random(16))


def _get(url: str, _: str | None) -> httpx2.Request:
    return httpx2.Request("GET", url)


def _check_bearer(url: httpx2.URL, target: Target, *, is_bound: bool) -> None:
    """Check that a token without a key may be sent to a URL: over https, to its own resource. A token that
    `is_bound` to the certificate of the client is useless to another server. Raises Forbidden.
    """
    if not is_private(str(url)):
        raise Forbidden(f"a bearer token is not sent to {_origin(url)} in clear", hint="use https")
    resource = httpx2.URL(str(target.resource))
    if is_bound:
        return
    if resource.scheme in ("http", "https") and _origin(resource) != _origin(url):
        raise Forbidden(
            f"a bearer token for {target.resource} is not sent to {_origin(url)}",
            hint="name the resource of the URL",
        )


def _decode(response: httpx2.Response, kind: type[T], *, of: str) -> T:
    try:
        return convert(canonical.parse(response.content), kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"{of}: {error}") from None


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _place(request: httpx2.Request) -> str:
    """Return origin and first path segment: URLs that share both have one resource, until a challenge says
    otherwise.
    """
    return f"{_origin(request.url)}/{request.url.path.lstrip('/').partition('/')[0]}"

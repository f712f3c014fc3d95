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
"""Maximum number of attempts for one request. A request is repeated after failures that the caller cannot prevent: a
wrong clock, a token that was just revoked, a required step-up.
"""
MARGIN_US = 30_000_000
"""Time in microseconds before its expiry at which a token is renewed; for a short-lived token, a fifth of its
lifetime.
"""
DEFAULT_LIFETIME_S = 300
"""lifetime of a token if the issuer states none, in seconds"""
SECOND = 1_000_000


class _ResourceMetadata(msgspec.Struct, frozen=True):
    resource: str


_TOKEN = re.compile(r"[\x21-\x7e]+")
"""Pattern of the access tokens that are accepted from an issuer: visible ASCII without spaces, which fits into a
header.
"""
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]+)?")


class _TokenAnswer(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str
    expires_in: int | float | str | None = None

    @property
    def lifetime_s(self) -> float:
        """Return the lifetime of the token in seconds, also if the issuer wrote the number as a string."""
        text = str(self.expires_in)
        return float(text) if _SECONDS.fullmatch(text) else DEFAULT_LIFETIME_S


class Client:
    """A client of one issuer, with the metadata of the issuer, the known resources, and the tokens. `url`: address at
    which the client reaches the issuer, if it differs from the issuer's name. Threads and tasks may share a client.
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
        """the form of client assertions that the issuer has accepted; None until one was accepted"""
        self._proof_key = credential.key
        self._sender, self._shared = Sender(self._now), SharedFlows()
        self._tokens: dict[Target, Token] = {}
        self._resources: dict[str, str] = {}
        """resource identifiers that challenges have stated, each for all URLs with the same origin and first path
        segment
        """

    def share_anew(self) -> None:
        """Forget the flows that are running, so that no later flow waits for them. Call this in a forked process,
        where the flows of the parent process never end.
        """
        self._shared = SharedFlows()
        self._sender.share_anew()

    def discover(self) -> Flow[Metadata]:
        """Return the issuer's metadata. Raises Unavailable if the issuer has no metadata at its URL, Malformed if the
        metadata are malformed or name another issuer, Invalid if the issuer accepts no algorithm of this client.
        """
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
                    raise Malformed(
                        f"the metadata at {self._url} belong to another issuer, {metadata.issuer}",
                        hint=f"use {metadata.issuer} as the URL of the server",
                    )
                return metadata
            failures.append(f"{url} answers {response.status_code}")
            if response.status_code >= 500:
                break
        raise Unavailable(failures[0], hint="check the URL of the issuer")

    def public(self, url: str) -> str:
        """Return `url` with the host name of the issuer in place of the address at which this client reaches the
        issuer.
        """
        issuer = self._metadata.issuer.rstrip("/") if self._metadata is not None else self._url
        return issuer + url[len(self._url) :] if url.startswith(self._url + "/") else url

    def _reachable(self, url: str) -> str:
        issuer = self._metadata.issuer.rstrip("/") if self._metadata is not None else self._url
        return self._url + url[len(issuer) :] if url.startswith(issuer + "/") else url

    def token(self, target: Target) -> Flow[Token]:
        """Return a token for `target`: the stored token while it is fresh, or else a new one. Raises TokenRefused if
        the server issues no token, and Unavailable if it cannot be reached.
        """
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
            with suppress(KeyError, RuntimeError):  # another flow has removed it
                del self._tokens[next(iter(self._tokens))]
        self._tokens[target] = token
        return token

    @property
    def _signs_assertions(self) -> bool:
        return self.credential.secret is None and not self.credential.has_certificate

    def is_fresh(self, token: Token) -> bool:
        """Return whether the token is valid and its renewal is not due yet."""
        return self.is_current(token.renew_at)

    def is_current(self, renew_at: int) -> bool:
        """Return whether the time `renew_at` (microseconds) is still in the future by the issuer's clock, so that no
        renewal is due.
        """
        return self._now() < renew_at

    def tokens(self) -> dict[Target, Token]:
        """Return a copy of the tokens in memory."""
        return dict(self._tokens)

    def add_token(self, target: Target, token: Token) -> None:
        """Store a token that an earlier process of this client received, and use it for requests with the target
        `target`. If the resource refuses the token, a new token is requested.
        """
        self._tokens[target] = token

    def _is_old(self, token: Token, target: Target) -> bool:
        """Return whether the authentication that the token states is older than `max_age` of the target."""
        return target.max_age is not None and self._now() - token.got_at >= target.max_age * SECOND

    def forget_all(self) -> None:
        """Remove all stored tokens, for example after a change of the certificate to which they are bound."""
        self._tokens.clear()

    def forget(self, target: Target) -> None:
        """Remove the stored token for `target`, so that the next call of `token` requests a new one."""
        self._tokens.pop(target, None)

    def _request_token(
        self, metadata: Metadata, target: Target, form: AssertionForm, key: jose.PrivateKey | None
    ) -> Flow[httpx2.Response]:
        """Send a token request, and return the response. If the issuer refuses it because of a wrong clock of this
        machine, send it again with the issuer's time.
        """

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
        """Return the key to which a token for `target` is bound: for a step-up the second key, if there is one."""
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
            raise Unauthenticated(
                f"the issuer gave a token of the unknown type {answer.token_type[:32]!a}",
                hint="use an issuer that offers DPoP, or bearer tokens",
            )
        if _TOKEN.fullmatch(answer.access_token) is None:
            raise Malformed("the issuer gave an access token with characters that RFC 6750 does not allow")
        lifetime = round(answer.lifetime_s * SECOND)
        now = self._now()
        renew_at = now + lifetime - min(MARGIN_US, lifetime // 5)
        return Token(answer.access_token, msgspec.json.decode(response.content), now, renew_at, key)

    def send(self, request: httpx2.Request, target: Target) -> Flow[httpx2.Response]:
        """Send `request` with a token and a fresh proof, and return the response. If the nonce or the token was
        outdated, send the request again.

        If the resource demands a stronger authentication, the request is repeated with a token of such an
        authentication. If the resource refuses the token and the issuer gives no other token, the response of the
        resource is returned. Raises TokenRefused if the server issues no token, StepUpNeeded if the resource demands a
        stronger authentication than the present one, and Unavailable if the resource or the server cannot be reached.
        """
        if target.resource is None:
            resource = self._resources.get(_place(request))
            if resource is None:
                response: httpx2.Response = yield request
                resource = yield from self._read_challenge(request, response)
                if resource is None:
                    return response  # the resource demands no token
            target = replace(target, resource=resource)
        token = yield from self.token(target)
        for left in reversed(range(MAX_ATTEMPTS)):
            response = yield from self._show_token(request, token, target)
            challenge = response.headers.get("www-authenticate", "")
            if response.status_code != 401 or not left:
                break  # the last response must be that of the resource, not that of the issuer
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
            elif not (find_origin(request.url) == find_origin(httpx2.URL(self._url)) and self._now.learn(response)):
                break
        return response

    def _show_token(self, request: httpx2.Request, token: Token, target: Target) -> Flow[httpx2.Response]:
        """Send the request with the token, and with a DPoP proof if the token is bound to a key. Return the
        response.
        """
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

        server = f"{find_origin(request.url)} {target.resource}"
        return (yield from self._sender.send(request.method, make, server=server))

    def proof(self, *, method: str, uri: str, token: Token, nonce: str | None) -> str:
        """Return a DPoP proof for one request by the key to which the token is bound (RFC 9449 section 4.2). Raises
        Invalid for a bearer token.
        """
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
        """Return the resource identifier for the URL of a request, as the metadata behind the server's challenge
        states it (RFC 9728 section 5); None if the response has no challenge.

        Differs from section 3.3: the path of the resource may be above the path of the URL, because an API has many
        URLs. Raises Forbidden if the metadata or the resource belong to another origin, or if the issuer offers only
        bearer tokens; Unavailable if the metadata cannot be read.
        """
        link = re.search(r'resource_metadata="([^"\\]+)"', response.headers.get("www-authenticate", ""))
        if response.status_code != 401 or link is None:
            return None
        hint = "state `resource` in the request"
        if find_origin(httpx2.URL(link[1])) != find_origin(request.url):
            named, requested = find_origin(httpx2.URL(link[1])), find_origin(request.url)
            raise Forbidden(f"the metadata of {requested} is at another origin, {named}", hint=hint)
        described = yield httpx2.Request("GET", link[1])
        if described.status_code != 200:
            raise Unavailable(f"{link[1]} answers {described.status_code}", hint=hint)
        resource = _decode(described, _ResourceMetadata, of="the resource's metadata").resource
        url = str(request.url).partition("?")[0]
        if url != resource and not url.startswith(resource.rstrip("/") + "/"):
            raise Forbidden(f"{url} is not below the resource {resource}, which its server names for it", hint=hint)
        metadata = yield from self.discover()
        if not metadata.offers_dpop:
            raise Forbidden(
                "a bearer token is not sent to a resource that the request does not state: only the server has"
                " named it",
                hint=hint,
            )
        if len(self._resources) < MAX_CACHED:
            self._resources[_place(request)] = resource
        return resource

    def _jti(self) -> str:
        return jose.b64u(self._random(16))


def _get(url: str, _: str | None) -> httpx2.Request:
    return httpx2.Request("GET", url)


def _check_bearer(url: httpx2.URL, target: Target, *, is_bound: bool) -> None:
    """Check that a bearer token may be sent to a URL: only over https, and only to the resource of the token.
    `is_bound`: true if the token is bound to the certificate of the client, and so is useless to another server. Raises
    Forbidden if the check fails.
    """
    if not is_private(str(url)):
        raise Forbidden(
            f"a bearer token is not sent to {find_origin(url)} in clear", hint="use the https URL of the resource"
        )
    resource = httpx2.URL(str(target.resource))
    if is_bound:
        return
    if resource.scheme in ("http", "https") and find_origin(resource) != find_origin(url):
        raise Forbidden(
            f"a bearer token for {target.resource} is not sent to {find_origin(url)}",
            hint="name the resource of the URL",
        )


def _decode(response: httpx2.Response, kind: type[T], *, of: str) -> T:
    try:
        return convert(canonical.parse(response.content), kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"{of}: {error}") from None


def find_origin(url: httpx2.URL) -> str:
    """Return the scheme, host and port of a URL."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _place(request: httpx2.Request) -> str:
    """Return the origin and the first path segment of a URL. URLs with the same result are expected to have the same
    resource, until a challenge states another one.
    """
    return f"{find_origin(request.url)}/{request.url.path.lstrip('/').partition('/')[0]}"

"""Logins by tokens of other issuers, at the JWT methods that agents enabled: `auth/MOUNT/login` of the Vault API.

The keys of the issuer are in the configuration, or at a URL of it, which is fetched by the SSRF-safe fetcher: discovery
documents and key sets are kept for an hour, and an unknown `kid` causes another fetch at most once a minute.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Invalid, Malformed, Unavailable
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.outbound.fetch import check_named, request
from ostiaryd.ground.outbound.jwks import FETCH_S, FRESH, MAX_JWKS, SOON, KeySets
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.secrets import flows
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.jwt_login import JwtConfig, read_public_keys, verify_token
from ostiaryd.secrets.model.mount import Mount
from ostiaryd.secrets.model.request import VaultRequest
from ostiaryd.trust.model.oidc_login import discovery_url

MAX_DOCUMENTS = 1024
"""Maximum number of discovery documents in memory; beyond that, they are deleted and fetched again."""
WITHIN_S = 10.0
"""Time limit in seconds for the keys of an issuer, including the wait for other logins that fetch them."""


class JwtLogin(msgspec.Struct):
    """The body of a login."""

    jwt: str
    role: str = ""


class _Document(NamedTuple):
    jwks_uri: str
    at: int


class JwtMethodKeys:
    """The keys of other issuers for the JWT methods of this world. Logins under one configuration fetch by turns."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sets = KeySets()
        self._documents: dict[str, _Document] = {}
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    async def get(self, owner: str, config: JwtConfig, *, within: int) -> jose.JwkSet:
        """Return the key set of a configuration, fetched at most `within` microseconds ago. Raises BackendFailed."""
        try:
            async with asyncio.timeout(WITHIN_S), self._turns.setdefault(owner, asyncio.Lock()):
                url = config.jwks_url or await self._discover(owner, config)
                now, private = self._world.now(), self._world.config.private
                return await self._sets.get(owner, url, now=now, within=within, private=private, ca_pem=config.ca_pem)
        except TimeoutError:
            raise BackendFailed(f"the keys of the issuer: no answer within {WITHIN_S:g} s") from None
        except (Unavailable, Invalid) as refusal:
            raise BackendFailed(f"the keys of the issuer: {refusal.message}", hint=refusal.hint) from None

    async def _discover(self, owner: str, config: JwtConfig) -> str:
        """Return the URL of the keys from the discovery document. Raises Unavailable, Invalid."""
        now, kept = self._world.now(), self._documents.get(owner)
        if kept is None or not kept.at <= now < kept.at + FRESH:
            kept = _Document(await _fetch_jwks_uri(self._world, config), now)
            if len(self._documents) >= MAX_DOCUMENTS:
                self._documents.clear()
            self._documents[owner] = kept
        return kept.jwks_uri


async def _fetch_jwks_uri(world: World, config: JwtConfig) -> str:
    issuer, private = config.oidc_discovery_url, world.config.private
    answer = await request(
        "GET",
        discovery_url(issuer),
        headers={"accept": "application/json"},
        within_s=FETCH_S,
        max_bytes=MAX_JWKS,
        private=private,
        ca_pem=config.ca_pem,
    )
    try:
        document = canonical.parse(answer.body, max_bytes=MAX_JWKS) if answer.status == 200 else None
    except Malformed:
        document = None
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise Unavailable("the discovery document is missing, malformed, or of another issuer")
    return check_named(str(document.get("jwks_uri", "")), of="`jwks_uri`", private=private)


async def log_in_by_jwt(call: Call, request: VaultRequest, method: Mount) -> flows.Login:
    """Log in by a token of another issuer. Raises LoginRefused, BackendFailed, Sealed."""
    body, world = request.read_body(JwtLogin), call.world
    flows.check_open(world.db.read())
    role, config = flows.find_jwt_role(world.db.read(), method.path, body.role)
    digest = sha256(msgspec.json.encode(config)).hexdigest()
    owner = f"{method.accessor}/{role.agent}/{digest}"
    try:
        claims = await _verify(world.keep(JwtMethodKeys), owner, config, body.jwt)
    except jose.InvalidToken as refusal:
        raise flows.LoginRefused(f"error validating token: {refusal.message}") from None
    issuer, address = config.bound_issuer or config.oidc_discovery_url, call.origin
    return await act(
        world,
        "vault.login",
        lambda act: flows.login_by_jwt(
            act, method, role.name, claims, config, issuer=issuer, address=address, config=world.config
        ),
        request=call.request_id,
        network=call.network,
    )


async def _verify(keys: JwtMethodKeys, owner: str, config: JwtConfig, unverified_jwt: str) -> dict[str, object]:
    """Return the claims of a token with a valid signature. Raises InvalidToken, BackendFailed."""
    jose.parse_jws(unverified_jwt)  # a text that is no token fetches nothing
    if config.jwt_validation_pubkeys:
        return verify_token(unverified_jwt, read_public_keys(tuple(config.jwt_validation_pubkeys)), config)
    try:
        return verify_token(unverified_jwt, await keys.get(owner, config, within=FRESH), config)
    except jose.InvalidToken as refusal:
        if refusal.code != "unknown_kid":
            raise
    return verify_token(unverified_jwt, await keys.get(owner, config, within=SOON), config)

"""Logins at the login methods that agents enabled (`auth/MOUNT/login` of the Vault API): by a token of another issuer
(jwt), by a client certificate (cert), or by the token of a Kubernetes service account (kubernetes).

The configuration of a jwt method contains the keys of the issuer, or a URL from which the SSRF-safe fetcher reads them.
Discovery documents and key sets are cached for an hour. A token with an unknown `kid` causes another fetch, at most
once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Forbidden, Invalid, Malformed, Unavailable
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.outbound.fetch import check_named, send_request
from ostiaryd.ground.outbound.jwks import FETCH_S, FRESH, MAX_JWKS, SOON, KeySets
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.secrets import flows
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.jwt_login import JwtConfig, read_public_keys, verify_token
from ostiaryd.secrets.model.kubernetes_login import (
    REVIEW_PATH,
    KubernetesConfig,
    KubernetesRole,
    ServiceAccount,
    describe,
    parse_review,
    refusal_of,
    render_review,
)
from ostiaryd.secrets.model.login_role import LoginRole
from ostiaryd.secrets.model.mount import Mount
from ostiaryd.secrets.model.request import VaultRequest
from ostiaryd.trust.model.oidc_login import discovery_url

MAX_DOCUMENTS = 1024
"""Maximum number of discovery documents in the cache; above it, all are removed and fetched again when needed."""
WITHIN_S = 10.0
"""Maximum seconds to get the keys of an issuer, including the wait for other logins that fetch the same keys."""


class JwtLogin(msgspec.Struct):
    """The body of a login by a token."""

    jwt: str
    role: str = ""


class _CertificateLogin(msgspec.Struct):
    name: str = ""


class _Document(NamedTuple):
    jwks_uri: str
    at: int


class JwtMethodKeys:
    """The cached public keys of other issuers, for the JWT login methods. Concurrent logins with the same configuration
    wait for each other, so that only the first one sends a request to the issuer.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sets = KeySets()
        self._documents: dict[str, _Document] = {}
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    async def get(self, owner: str, config: JwtConfig, *, within: int) -> jose.JwkSet:
        """Return the key set of the issuer in `config`, fetched now or at most `within` microseconds ago. `owner`: the
        id of the configuration in the cache. Raises BackendFailed if the keys cannot be fetched.
        """
        try:
            async with asyncio.timeout(WITHIN_S), self._turns.setdefault(owner, asyncio.Lock()):
                url = config.jwks_url or await self._discover(owner, config)
                now, private = self._world.now(), self._world.config.private
                return await self._sets.get(owner, url, now=now, within=within, private=private, ca_pem=config.ca_pem)
        except TimeoutError:
            raise BackendFailed(f"the keys of the issuer were not received within {WITHIN_S:g} s") from None
        except (Unavailable, Invalid) as refusal:
            raise BackendFailed(
                f"the keys of the issuer cannot be fetched: {refusal.message}", hint=refusal.hint
            ) from None

    async def _discover(self, owner: str, config: JwtConfig) -> str:
        """Return the URL of the keys from the discovery document. Raises Unavailable if the issuer cannot be reached,
        Invalid if the document is malformed.
        """
        now, kept = self._world.now(), self._documents.get(owner)
        if kept is None or not kept.at <= now < kept.at + FRESH:
            kept = _Document(await _fetch_jwks_uri(self._world, config), now)
            if len(self._documents) >= MAX_DOCUMENTS:
                self._documents.clear()
            self._documents[owner] = kept
        return kept.jwks_uri


async def _fetch_jwks_uri(world: World, config: JwtConfig) -> str:
    issuer, private = config.oidc_discovery_url, world.config.private
    answer = await send_request(
        "GET",
        discovery_url(issuer),
        headers={"accept": "application/json"},
        within_s=FETCH_S,
        max_bytes=MAX_JWKS,
        private=private,
        ca_pem=config.ca_pem,
    )
    if answer.status != 200:
        raise Unavailable(
            f"{discovery_url(issuer)} answers {answer.status} instead of 200", hint="check `oidc_discovery_url`"
        )
    try:
        document = canonical.parse(answer.body, max_bytes=MAX_JWKS)
    except Malformed:
        document = None
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise Unavailable(
            f"{discovery_url(issuer)} is not a discovery document of the issuer {issuer[:200]}",
            hint="set `oidc_discovery_url` exactly as the issuer states it in the document",
        )
    return check_named(str(document.get("jwks_uri", "")), of="`jwks_uri`", private=private)


async def log_in_by_jwt(call: Call, request: VaultRequest, method: Mount) -> flows.Login:
    """Log in by a token of another issuer, and return the Vault token. Raises LoginRefused for a token that is not
    valid or not admitted, BackendFailed if the issuer's keys cannot be fetched, and Sealed while the secrets are
    sealed.
    """
    body, world = request.read_body(JwtLogin), call.world
    reader = world.db.read()
    flows.check_open(reader)
    role = flows.find_login_role(reader, method.path, body.role)
    used = flows.find_login_config(reader, role)
    config = convert(used, JwtConfig)
    digest = sha256(msgspec.json.encode(config)).hexdigest()
    owner = f"{method.accessor}/{role.agent}/{digest}"
    try:
        claims = await _verify(world.get_singleton(JwtMethodKeys), owner, config, body.jwt)
    except jose.InvalidToken as refusal:
        raise flows.LoginRefused(f"error validating token: {refusal.message}") from None
    issuer = config.bound_issuer or config.oidc_discovery_url
    return await _log_in(
        call, method, role.name, used, lambda act, role: flows.admit_claims(role, claims, issuer=issuer, now=act.now)
    )


async def _log_in(
    call: Call,
    method: Mount,
    name: str,
    used: Mapping[str, object] | None,
    admit: Callable[[Act, LoginRole], flows.RoleLogin],
) -> flows.Login:
    return await act(
        call.world,
        "vault.login",
        lambda act: flows.login_by_role(
            act, method, name, used, partial(admit, act), address=call.origin, config=call.world.config
        ),
        request=call.request_id,
        network=call.network,
    )


async def _verify(keys: JwtMethodKeys, owner: str, config: JwtConfig, unverified_jwt: str) -> dict[str, object]:
    """Verify the signature of a token, and return its claims. Raises InvalidToken for a token that is not valid,
    BackendFailed if the keys cannot be fetched.
    """
    jose.parse_jws(unverified_jwt)  # keys are fetched only for a well-formed token
    if config.jwt_validation_pubkeys:
        return verify_token(unverified_jwt, read_public_keys(tuple(config.jwt_validation_pubkeys)), config)
    try:
        return verify_token(unverified_jwt, await keys.get(owner, config, within=FRESH), config)
    except jose.InvalidToken as refusal:
        if refusal.code != "unknown_kid":
            raise
    return verify_token(unverified_jwt, await keys.get(owner, config, within=SOON), config)


# --- client certificates


async def log_in_by_certificate(call: Call, request: VaultRequest, method: Mount) -> flows.Login:
    """Log in by the client certificate of the connection, and return the Vault token. Without `name` in the body, the
    login is at the only role that admits the certificate. Raises LoginRefused without a certificate, or if not exactly
    one role admits it, Malformed for a malformed body, and Sealed while the secrets are sealed.
    """
    name, shown = request.read_body(_CertificateLogin).name, call.certificate
    if shown is None:
        raise flows.LoginRefused(
            "client certificate must be supplied",
            hint="connect to the address of `mtls_listen`, with a client certificate",
        )

    def admit(act: Act, role: LoginRole) -> flows.RoleLogin:
        return flows.admit_certificate(act, role, shown)

    def find_name(act: Act) -> str:
        names = []
        for role in flows.list_login_roles(act.tx, method.path):
            with suppress(flows.LoginRefused):
                admit(act, role)
                names.append(role.name)
        if len(names) != 1:
            raise flows.LoginRefused(
                f"invalid certificate: {len(names)} roles admit it, and exactly one must",
                hint="state the `name` of a role",
            )
        return names[0]

    def flow(act: Act) -> flows.Login:
        flows.check_open(act.tx)
        config, address = call.world.config, call.origin
        chosen = name or find_name(act)
        return flows.login_by_role(act, method, chosen, None, partial(admit, act), address=address, config=config)

    return await act(call.world, "vault.login", flow, request=call.request_id, network=call.network)


# --- service accounts of Kubernetes


async def log_in_by_service_account(call: Call, request: VaultRequest, method: Mount) -> flows.Login:
    """Log in by the token of a service account, which the cluster verifies; return the Vault token. Raises LoginRefused
    for an unknown role or a malformed token, Forbidden if the cluster does not accept the token or the role does not
    admit the account, BackendFailed if the cluster does not answer, Sealed if the secrets are sealed.
    """
    body, reader = request.read_body(JwtLogin), call.world.db.read()
    flows.check_open(reader)
    role = flows.find_login_role(reader, method.path, body.role)
    used = flows.find_login_config(reader, role)
    audience = convert(role.settings, KubernetesRole).audience
    account = await _review(call.world, convert(used, KubernetesConfig), body.jwt, audience=audience)

    def admit(act: Act, role: LoginRole) -> flows.RoleLogin:
        settings = convert(role.settings, KubernetesRole)
        if why := refusal_of(settings, account):
            raise Forbidden(why, code="login_refused")
        return flows.RoleLogin(f"{account.namespace}-{account.name}", describe(settings, account))

    return await _log_in(call, method, role.name, used, admit)


async def _review(world: World, config: KubernetesConfig, unverified_jwt: str, *, audience: str) -> ServiceAccount:
    """Let the cluster verify the token of a service account, and return the service account. The token also
    authenticates the request to the cluster. Raises Forbidden if the cluster refuses the token, LoginRefused if the
    token is malformed, BackendFailed if the cluster cannot be reached or fails.
    """
    try:
        jose.parse_jws(unverified_jwt)  # only a well-formed token is sent to the cluster and put into a header
    except jose.InvalidToken as refusal:
        raise flows.LoginRefused(f"error validating token: {refusal.message}") from None
    try:
        answer = await send_request(
            "POST",
            config.kubernetes_host.rstrip("/") + REVIEW_PATH,
            body=render_review(unverified_jwt, audience=audience),
            headers={
                "accept": "application/json",
                "authorization": f"Bearer {unverified_jwt}",
                "content-type": "application/json",
            },
            within_s=WITHIN_S,
            private=world.config.private,
            ca_pem=config.kubernetes_ca_cert,
        )
    except (Unavailable, Invalid) as refusal:
        raise BackendFailed(f"the cluster cannot be reached: {refusal.message}", hint=refusal.hint) from None
    match answer.status:
        case 200 | 201:
            pass
        case 401:
            raise Forbidden(
                "permission denied: the cluster refuses the token as its own credential (401)", code="login_refused"
            )
        case 403:
            raise Forbidden(
                "permission denied: the service account may not ask for the review of its token",
                hint="bind the service account to the cluster role system:auth-delegator",
                code="login_refused",
            )
        case status:
            raise BackendFailed(f"the cluster answers {status}")
    try:
        review = canonical.parse(answer.body)
    except Malformed:
        review = None
    account = parse_review(review) if isinstance(review, dict) else None
    if account is None:
        raise Forbidden(
            "permission denied: the cluster's review does not confirm the token of a service account",
            code="login_refused",
        )
    return account

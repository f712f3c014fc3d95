"""Login by an OpenID provider: the browser is redirected to the provider and returns with a code (OpenID Connect Core
1.0 section 3.1).

    GET /login/with/{provider}      303 to the provider, with the attempt in a cookie
    GET /login/callback/{provider}  the response: code, ID token, claims, session; then 303 to the target of the login

Each provider has a redirect URI of its own (RFC 9700 section 4.4.2). All requests of the server to a provider are
protected against SSRF, and count in `ProviderLogins`. Discovery documents are kept for an hour, key sets by the rules
of `ground/outbound/jwks.py`.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Malformed, Unavailable
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.http.html import PAGES
from ostiaryd.ground.http.routes import NOT_FOUND, Content, Query, Route
from ostiaryd.ground.outbound.fetch import MAX_ANSWER, check_named, send_request
from ostiaryd.ground.outbound.jwks import FETCH_S, FRESH, SOON, KeySets
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.world import World
from ostiaryd.trust.flows import providers
from ostiaryd.trust.model import ASSERTION_TYPE, SECOND
from ostiaryd.trust.model.oidc_login import (
    Attempt,
    ProviderMetadata,
    TokenAnswer,
    authenticated_at,
    authorization_url,
    check_id_token,
    check_metadata,
    check_response,
    check_sub,
    discovery_url,
    stated_assurance,
    verified_email,
)
from ostiaryd.trust.model.providers import (
    NO_NAME,
    Identity,
    OidcSettings,
    Provider,
    ProviderRefused,
    check_required,
    read_group_claim,
    suggest_name,
)
from ostiaryd.trust.wire_federation import (
    ProviderLogins,
    begin_attempt,
    callback_uri,
    end_attempt,
    find_provider_of,
    log_in_identity,
    refuse_attempt,
)

log = logging.getLogger("ostiary")

MAX_METADATA = 256 << 10
ASSERTION_S = 60


class KeptMetadata(NamedTuple):
    """A discovery document, and the time at which the server fetched it, in microseconds."""

    metadata: ProviderMetadata
    at: int


class OpenIdProviders:
    """Cached discovery documents and key sets of the OpenID providers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[str, KeptMetadata] = {}
        self.key_sets = KeySets()

    async def metadata(self, provider: Provider) -> ProviderMetadata:
        """Return the discovery document of a provider. Raises Unavailable if the document cannot be fetched or used."""
        now, kept = self._world.now(), self._kept.get(provider.provider_id)
        if kept is None or not kept.at <= now < kept.at + FRESH:
            metadata = await fetch_metadata(self._world, provider.issuer)
            kept = self._kept[provider.provider_id] = KeptMetadata(metadata, now)
        return kept.metadata

    async def keys(self, provider: Provider, metadata: ProviderMetadata, *, within: int) -> jose.JwkSet:
        """Return the key set of a provider, fetched at most `within` microseconds ago. Raises Unavailable if the
        provider does not send its keys.
        """
        now, private = self._world.now(), self._world.config.private
        return await self.key_sets.get(provider.provider_id, metadata.jwks_uri, now=now, within=within, private=private)


async def fetch_metadata(world: World, issuer: str) -> ProviderMetadata:
    """Fetch the discovery document of an issuer, check its URLs, and return it. Raises Unavailable if the document
    cannot be fetched or is malformed, Invalid for a URL that the server must not call.
    """
    private = world.config.private
    headers = {"accept": "application/json"}
    answer = await send_request(
        "GET", discovery_url(issuer), headers=headers, within_s=FETCH_S, max_bytes=MAX_METADATA, private=private
    )
    if answer.status != 200:
        raise Unavailable(
            f"the provider answers the request for its discovery document with {answer.status} instead of 200"
        )
    try:
        parsed = canonical.parse(answer.body, max_bytes=MAX_METADATA)
        metadata = check_metadata(convert(parsed, ProviderMetadata), issuer=issuer)
    except (Malformed, msgspec.ValidationError) as error:
        raise Unavailable(f"the discovery document of the provider is malformed: {str(error)[:200]}") from None
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
        if (url := getattr(metadata, name)) or name != "userinfo_endpoint":
            check_named(url, of=f"`{name}` of the provider", private=private)
    return metadata


async def begin_login(call: Call) -> Reply:
    """Redirect the browser to an OpenID provider.

    The parameters `return_to`, `prompt`, `max_age`, `acr_values` and `login_hint` have the meaning that they have at
    `/login`.
    """
    provider, settings = _find(call)
    world = call.world
    openid = world.get_singleton(OpenIdProviders)
    async with _asking(call, provider):
        metadata = await openid.metadata(provider)
    begun = begin_attempt(call, provider)
    url = authorization_url(
        metadata,
        settings,
        begun.attempt,
        redirect_uri=callback_uri(world.config, provider),
        login_hint=begun.demand.login_hint,
        acr_values=begun.acr_values,
    )
    return Reply(303, headers=[(b"location", url.encode()), *begun.headers])


async def finish_login(call: Call) -> Reply:
    """Receive the response of an OpenID provider, and begin a session.

    1. Check that the response belongs to the attempt of this browser. 2. Exchange the code for an ID token at the
    provider. 3. Verify the token. 4. If the token lacks groups, required claims or a name, and the settings of the
    provider allow it, read further claims from userinfo. 5. Admit the person.
    """
    provider, settings = _find(call)
    try:
        answer = _parameters(call)
        attempt = end_attempt(call, provider, answer.get("state", ""))
        openid = call.world.get_singleton(OpenIdProviders)
        async with _asking(call, provider):
            metadata = await openid.metadata(provider)
            code = check_response(answer, attempt, metadata)
            tokens = await _redeem(call.world, provider, settings, metadata, attempt, code)
            claims = await _verify(call.world, openid, provider, settings, metadata, attempt, tokens)
            claims = await _with_userinfo(call.world, provider, settings, metadata, claims, tokens)
        check_required(provider, claims)
        identity = _identify(provider, claims)
    except ProviderRefused as refusal:
        await refuse_attempt(call, provider, refusal)
        raise
    return await log_in_identity(call, provider, identity, attempt)


@asynccontextmanager
async def _asking(call: Call, provider: Provider) -> AsyncIterator[None]:
    """Count a login as in progress while the context lasts, in which the server asks the provider. Raises Unavailable
    at a limit of logins, or if the provider does not answer.
    """
    async with call.world.get_singleton(ProviderLogins).taking(call):
        try:
            yield
        except Unavailable as failure:
            detail = failure.message_with_detail
            log.warning("the login provider `%s` does not answer: %s", provider.name, detail)
            raise Unavailable(
                f"{provider.label} does not answer",
                hint="go back and try again in a minute, or sign in another way",
                code="provider_unavailable",
                detail=detail,
            ) from None


def _find(call: Call) -> tuple[Provider, OidcSettings]:
    provider = find_provider_of(call, "oidc")
    assert isinstance(provider.settings, OidcSettings)
    return provider, provider.settings


def _parameters(call: Call) -> dict[str, str]:
    """Return the parameters of the provider's response. Raises ProviderRefused for a parameter that occurs twice (RFC
    6749 section 3.1).
    """
    values = parse_form(call.query.encode("latin-1"))
    if repeated := [name for name, sent in values.items() if len(sent) > 1]:
        message = f"the parameter {repeated[0][:64]!a} of the response was sent more than once"
        raise ProviderRefused(message, hint="start the login again")
    return {name: sent[0] for name, sent in values.items()}


async def _redeem(
    world: World,
    provider: Provider,
    settings: OidcSettings,
    metadata: ProviderMetadata,
    attempt: Attempt,
    code: str,
) -> TokenAnswer:
    """Exchange the code for tokens at the provider, and return its response (Core 3.1.3.1, RFC 7636 section 4.5).
    Raises ProviderRefused if the provider does not accept the code or sends another response, Unavailable if the
    provider fails.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": callback_uri(world.config, provider),
        "code_verifier": attempt.verifier,
    }
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    match settings.authentication:
        case "client_secret_basic":
            # both parts are form-encoded (RFC 6749 section 2.3.1)
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(_secret(world, provider))}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        case "client_secret_post":
            form |= {"client_id": settings.client_id, "client_secret": _secret(world, provider)}
        case "private_key_jwt":
            form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": _assertion(world, settings, metadata)}
        case "none":
            form["client_id"] = settings.client_id
    answer = await send_request(
        "POST",
        metadata.token_endpoint,
        body=urlencode(form).encode(),
        headers=headers,
        within_s=FETCH_S,
        private=world.config.private,
    )
    if answer.status in (400, 401, 403):
        raise ProviderRefused(
            "the identity provider does not accept the code",
            hint="start the login again; if that does not help, the client secret may be wrong",
            code="code_refused",
        )
    if answer.status != 200:
        raise Unavailable(f"the token endpoint of the provider answers {answer.status}", hint="try again later")
    try:
        return convert(canonical.parse(answer.body, max_bytes=MAX_ANSWER), TokenAnswer)
    except (Malformed, msgspec.ValidationError):
        raise ProviderRefused("the response of the provider's token endpoint is not a token response") from None


def _secret(world: World, provider: Provider) -> str:
    return providers.open_client_secret(provider, world.keys)


def _assertion(world: World, settings: OidcSettings, metadata: ProviderMetadata) -> str:
    """Return a client assertion, signed with a key that `/jwks` of this server publishes (Core section 9, RFC 7523)."""
    offered = metadata.token_endpoint_auth_signing_alg_values_supported or ("RS256",)
    alg = next((alg for alg in ("ES256", "RS256", "EdDSA") if alg in offered), "RS256")
    now = world.now()
    claims = {
        "iss": settings.client_id,
        "sub": settings.client_id,
        "aud": metadata.token_endpoint,
        "jti": new_id("ca", now=now, random=world.random),
        "iat": now // SECOND,
        "exp": now // SECOND + ASSERTION_S,
    }
    return jose.sign_jwt(world.keys.signer("token", alg), typ="client-authentication+jwt", claims=claims)


async def _verify(
    world: World,
    openid: OpenIdProviders,
    provider: Provider,
    settings: OidcSettings,
    metadata: ProviderMetadata,
    attempt: Attempt,
    answer: TokenAnswer,
) -> dict[str, Any]:
    """Verify the ID token, and return its claims. If its key is unknown, the key set is fetched again, at most once a
    minute.
    """

    async def check(within: int) -> dict[str, Any]:
        return check_id_token(
            answer.id_token,
            keys=await openid.keys(provider, metadata, within=within),
            issuer=provider.issuer,
            client_id=settings.client_id,
            nonce=attempt.nonce,
            access_token=answer.access_token,
            now=world.now(),
        )

    try:
        try:
            return await check(FRESH)
        except jose.InvalidToken as error:
            if error.code != "unknown_kid":
                raise
            return await check(SOON)
    except jose.InvalidToken as error:
        raise ProviderRefused(f"the ID token is not valid: {error.message}", hint="start the login again") from None


async def _with_userinfo(
    world: World,
    provider: Provider,
    settings: OidcSettings,
    metadata: ProviderMetadata,
    claims: dict[str, Any],
    answer: TokenAnswer,
) -> dict[str, Any]:
    """Return the claims of the ID token. If it lacks groups, required claims or a name, as it may in the code flow
    (Core 5.4), add the claims of userinfo, which must have the same `sub` (Core 5.3). Claims of the ID token take
    precedence. If only a name is missing, userinfo may fail. Raises ProviderRefused if userinfo is about another
    person, Unavailable if userinfo is needed and fails.
    """
    has_groups = not provider.group_claim or read_group_claim(claims, provider.group_claim) is not None
    has_required = all(name in claims for name in settings.required_claims)
    has_name = _name_of(claims) != NO_NAME
    if not settings.reads_userinfo or not metadata.userinfo_endpoint or (has_groups and has_required and has_name):
        return claims
    try:
        parsed = await _read_userinfo(world, metadata.userinfo_endpoint, answer.access_token)
    except Unavailable as failure:
        if has_groups and has_required:
            log.warning("a login by `%s` has no name: %s", provider.name, failure.message)
            return claims
        raise
    if parsed.get("sub") != claims["sub"]:  # the access token belongs to another person (Core 5.3.2)
        raise ProviderRefused("userinfo is about another person", hint="start the login again", code="mixed_up")
    return {**parsed, **claims}


async def _read_userinfo(world: World, url: str, access_token: str) -> dict[str, Any]:
    """Return the claims of the userinfo endpoint. Raises Unavailable for any response other than a JSON object."""
    answered = await send_request(
        "GET",
        url,
        headers={"authorization": f"Bearer {access_token}", "accept": "application/json"},
        within_s=FETCH_S,
        private=world.config.private,
    )
    try:
        parsed = canonical.parse(answered.body, max_bytes=MAX_ANSWER)
    except Malformed:
        parsed = None
    hint = "try again; if this repeats, compare the scopes of the login provider"
    if answered.status != 200:
        raise Unavailable(f"userinfo of the identity provider answers {answered.status} instead of 200", hint=hint)
    if not isinstance(parsed, dict):
        raise Unavailable("the response of userinfo of the identity provider is not a JSON object", hint=hint)
    return parsed


def _identify(provider: Provider, claims: dict[str, Any]) -> Identity:
    acr, amr = stated_assurance(claims)
    return Identity(
        issuer=provider.issuer,
        sub=check_sub(claims),
        name=_name_of(claims),
        email=verified_email(claims),
        groups=read_group_claim(claims, provider.group_claim),
        acr=acr,
        amr=amr,
        authenticated_at=authenticated_at(claims),
    )


def _name_of(claims: dict[str, Any]) -> str:
    return suggest_name(claims.get("preferred_username"), claims.get("email"), claims.get("name"))


DEMANDS = (
    Query("return_to", "Path of this server to which the login leads."),
    Query("prompt", "`login`: the person must authenticate again."),
    Query("max_age", "Maximum age of the login, in seconds; the provider must authenticate the person again.", int),
    Query("acr_values", "Demanded levels of assurance, separated by spaces; the provider is asked for one of them."),
    Query("login_hint", "Name of the person at the provider."),
)
ERRORS = (
    NOT_FOUND,
    ProviderRefused("the response belongs to another login", hint="start the login again"),
    Unavailable("the identity provider answers 500", hint="try again later"),
)
ROUTES = (
    Route(
        "GET",
        "/login/with/{provider}",
        begin_login,
        "",
        protocol=PAGES,
        query=DEMANDS,
        answers={303: None},
        errors=ERRORS,
    ),
    Route(
        "GET",
        "/login/callback/{provider}",
        finish_login,
        "",
        protocol=PAGES,
        query=(
            Query("code", "Authorization code of the provider."),
            Query("state", "The `state` of the authentication request, which the provider repeats."),
            Query("iss", "The issuer that sent the response (RFC 9207)."),
            Query("error", "Error code of the provider's refusal."),
        ),
        answers={303: None, 200: Content(media_types=("text/html",))},
        errors=ERRORS,
    ),
)

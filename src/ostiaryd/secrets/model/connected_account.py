"""Accounts of persons at other providers, whose access tokens agents get: OAuth 2.0 (RFC 6749) with PKCE (RFC 7636).

A person connects an account once. The refresh token stays in this server; an agent with a task on behalf of the person
gets access tokens. This module is stricter than RFC 6749: an access token must have an expiry, a known type, and no
scopes that were not requested.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.protocol import canonical, jose
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.errors import Forbidden, Invalid, Malformed, Unavailable
from ostiary.protocol.uri import add_query
from ostiaryd.registry.model import check_name
from ostiaryd.secrets.model.request import SECOND

OAUTH_MOUNT = "oauth"
MAX_PROVIDERS = 50
MAX_SCOPES = 50
MAX_SCOPE_TEXT = 4096
MAX_SCOPE = 255
MAX_SECRET = 4096
MAX_TOKEN = 8192
MAX_ANSWER = 64 << 10
MAX_PARAMETERS = 8
LONGEST_LIFE_S = 10 * 365 * 86_400
ATTEMPT_LIFETIME = 600 * SECOND
CLAIM_S = 60
"""Seconds for which a claimed refresh prevents each other server from refreshing the same account."""
SEND_S = 20
"""Seconds after the claim within which the refresh request must be sent."""
FRESH_S = 300
"""Minimum remaining seconds of a shared access token; a token with less is refreshed before an agent gets it."""
REUSE_S = 10
"""Minimum remaining seconds of an access token that an egress proxy puts into a further request."""
AGAIN = "the person connects the account on the page /accounts"
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
"""A scope: RFC 6749 section 3.3."""
_TOKEN = re.compile(r"[\x20-\x7e]+")
_IDENTITY = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})
"""Scopes about the identity of the person, which some providers grant although they were not requested."""
_GRANT_ENDED = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_revoked"})
"""Error codes of a refresh that mean that the refresh token is no longer valid: RFC 6749 section 5.2, GitHub, Slack."""

AccountMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]


class AccountRefused(Forbidden):
    """The response of the provider is not acceptable, or the person may not connect an account."""

    code = "account_refused"


class NotConnected(Forbidden):
    """The person has no connected account at the provider, or must connect the account again."""

    code = "not_connected"


class ProviderDown(Unavailable):
    """The provider is unreachable, or reports an error of its own."""

    code = "provider_down"


class AccountProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider at which persons connect accounts, and the registration of this server at the provider.

    `states_issuer`: the provider announces that its authorization responses have the parameter `iss`. `scopes`: the
    scopes to which a person can consent. `parameters`: additional parameters of the authorization request.
    `token_type`: the type of the provider's tokens. `separator`: the text between scopes in requests. `shares_tokens`:
    a refresh ends the previous access token, so all agents must share the present one. `revokes_each`: the revocation
    of an access token leaves the refresh token valid, which RFC 7009 section 2.1 does not promise. `roles`: the roles
    that may connect accounts; empty: every person. Times are microseconds since the epoch.
    """

    name: str
    label: str
    preset: str
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    states_issuer: bool
    client_id: str
    authentication: AccountMethod
    signing_alg: str
    scopes: tuple[str, ...]
    parameters: dict[str, str]
    token_type: str
    separator: str
    shares_tokens: bool
    revokes_each: bool
    roles: tuple[str, ...]
    added_at: int
    removed_at: int | None = None


class AccountPreset(NamedTuple):
    """The settings for a known product. An empty endpoint is read from the metadata of the issuer."""

    label: str
    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    parameters: Mapping[str, str] = {}
    scopes: tuple[str, ...] = ()
    token_type: str = "bearer"
    separator: str = " "
    authentication: AccountMethod = "client_secret_basic"
    shares_tokens: bool = False


PRESETS: Mapping[str, AccountPreset] = {
    "": AccountPreset(""),
    "github": AccountPreset(
        "GitHub",
        authorization_endpoint="https://github.com/login/oauth/authorize",
        token_endpoint="https://github.com/login/oauth/access_token",
        authentication="client_secret_post",
        separator=",",
        shares_tokens=True,
    ),
    "google": AccountPreset(
        "Google",
        issuer="https://accounts.google.com",
        parameters={"access_type": "offline", "prompt": "consent"},
    ),
    "microsoft": AccountPreset("Microsoft", scopes=("offline_access",)),
    "slack": AccountPreset(
        "Slack",
        authorization_endpoint="https://slack.com/oauth/v2_user/authorize",
        token_endpoint="https://slack.com/api/oauth.v2.user.access",
        authentication="client_secret_post",
        token_type="user",
        separator=",",
        shares_tokens=True,
    ),
}
"""Settings by product. At GitHub and Slack, a refresh ends the previous access token. Microsoft gives a refresh
token for the scope `offline_access`, and its issuer contains the tenant.
"""


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The members of an authorization server's metadata that this server uses: RFC 8414 section 2."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str = ""
    response_types_supported: tuple[str, ...] = ("code",)
    code_challenge_methods_supported: tuple[str, ...] | None = None
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False


class AccountState(StrEnum):
    """The state of a connected account: `active`; `broken` until the person connects the account again; `ending` until
    the provider has revoked the refresh token.
    """

    ACTIVE = "active"
    BROKEN = "broken"
    ENDING = "ending"


class ConnectedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of a person at a provider. `rotation`: the number of the refresh token, which each refresh increases.
    Times are microseconds since the epoch.
    """

    account_id: str
    provider: str
    person: str
    scopes: frozenset[str]
    state: AccountState
    token_expires_at: int
    rotation: int
    connected_at: int
    refreshed_at: int
    due_at: int = 0
    attempts: int = 0
    error: str = ""


class ConnectAttempt(msgspec.Struct, frozen=True):
    """An attempt of a person in a browser to connect an account. `state`: the value that the provider's response must
    contain. `verifier`: the code verifier of PKCE. `began_at`: microseconds since the epoch.
    """

    provider: str
    token_endpoint: str
    person: str
    session: str
    scopes: tuple[str, ...]
    state: str
    verifier: str
    began_at: int


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A token response (RFC 6749 section 5.1). `expires_in`: seconds."""

    access_token: str
    token_type: str
    expires_in: int | str | None = None
    refresh_token: str = ""
    scope: str | None = None

    def __repr__(self) -> str:
        """Return a text with only the type, because the tokens are secret."""
        return f"TokenAnswer({self.token_type[:20]!a})"


class ErrorAnswer(msgspec.Struct, frozen=True):
    """An error response of a token endpoint (RFC 6749 section 5.2)."""

    error: str = ""


def check_provider(provider: AccountProvider) -> AccountProvider:
    """Return the provider if its settings are valid. Raises Invalid otherwise."""
    check_name(provider.name, of="name of the provider")
    if not 0 < len(provider.label) <= 40 or not provider.label.isprintable():
        raise Invalid("`label` must have 1 to 40 printable characters")
    if not 0 < len(provider.client_id) <= MAX_SCOPE or not provider.client_id.isprintable():
        raise Invalid(f"`client_id` must have 1 to {MAX_SCOPE} printable characters")
    check_scopes(provider.scopes, separator=provider.separator)
    if len(provider.parameters) > MAX_PARAMETERS:
        raise Invalid(f"`parameters` may have at most {MAX_PARAMETERS} members")
    for name, value in provider.parameters.items():
        if name in _RESERVED:
            raise Invalid(f"the parameter {name!a} is a parameter of the protocol, which the server sets")
        if not 0 < len(name) <= 64 or not 0 < len(value) <= MAX_SCOPE:
            lengths = f"a name of 1 to 64 characters, and a value of 1 to {MAX_SCOPE}"
            raise Invalid(f"the parameter {name[:64]!a} must have {lengths}")
        if not (name + value).isascii() or not (name + value).isprintable():
            raise Invalid(f"the parameter {name[:64]!a} is not printable ASCII")
    if len(provider.roles) > 20:
        raise Invalid("`roles` may have at most 20 members")
    for role in provider.roles:
        check_name(role, of="role")
    return provider


_RESERVED = frozenset(
    {
        "response_type",
        "response_mode",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
    }
)


def check_scopes(scopes: tuple[str, ...], *, separator: str = " ") -> None:
    """Check the scopes of a configuration or a request. Raises Invalid for too many or too long scopes, and for a text
    that is not one scope.
    """
    if len(scopes) > MAX_SCOPES or len(" ".join(scopes)) > MAX_SCOPE_TEXT:
        raise Invalid(f"`scopes` may have at most {MAX_SCOPES} scopes, with {MAX_SCOPE_TEXT} characters together")
    for scope in scopes:
        if not _SCOPE.fullmatch(scope) or separator in scope:
            raise Invalid(
                f"{scope[:64]!a} is not a scope", hint="write each scope as a separate value (RFC 6749 section 3.3)"
            )


def parse_scopes(text: str, *, separator: str = " ") -> frozenset[str]:
    """Return the scopes in a text, separated by spaces or by `separator`."""
    return frozenset(filter(None, text.replace(separator, " ").split(" ")))


def check_metadata(metadata: ServerMetadata, *, issuer: str) -> ServerMetadata:
    """Return the metadata if they state the issuer `issuer`, the code flow, and PKCE with S256 (or nothing about PKCE).
    Raises Invalid otherwise.
    """
    if metadata.issuer != issuer:
        raise Invalid("the metadata state another issuer", hint="write the issuer exactly as the provider states it")
    if "code" not in metadata.response_types_supported:
        raise Invalid("the provider does not offer the code flow")
    methods = metadata.code_challenge_methods_supported
    if methods is not None and "S256" not in methods:
        raise Invalid("the provider does not offer PKCE with S256")
    return metadata


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return the two URLs at which an issuer may publish its metadata (OpenID Connect Discovery 1.0 section 4, RFC 8414
    section 3).
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    well_known = f"/.well-known/oauth-authorization-server{path}"
    return (
        issuer.rstrip("/") + "/.well-known/openid-configuration",
        urlunsplit((parts.scheme, parts.netloc, well_known, "", "")),
    )


# --- the code flow


def authorization_url(provider: AccountProvider, attempt: ConnectAttempt, *, redirect_uri: str) -> str:
    """Return the URL of the authorization request: RFC 6749 section 4.1.1, RFC 7636 section 4.3."""
    parameters = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect_uri,
        **({"scope": provider.separator.join(attempt.scopes)} if attempt.scopes else {}),
        "state": attempt.state,
        "code_challenge": jose.b64u(sha256(attempt.verifier.encode()).digest()),
        "code_challenge_method": "S256",
        **provider.parameters,
    }
    return add_query(provider.authorization_endpoint, parameters)


def seal_attempt(attempt: ConnectAttempt, *, secret: bytes, nonce: bytes) -> str:
    """Return the text of a cookie with the encrypted attempt."""
    return jose.b64u(nonce + AESGCM(secret).encrypt(nonce, _encode(attempt), _BOUND))


def open_attempt(
    unverified_cookie: str | None, provider: AccountProvider, *, person: str, session: str, secret: bytes, now: int
) -> ConnectAttempt:
    """Return the attempt in a cookie. Raises AccountRefused if there is no attempt, or if it is too old or belongs to
    another provider, person or session.
    """
    try:
        sealed = jose.unb64u((unverified_cookie or "")[:8192])
        attempt = _decode(AESGCM(secret).decrypt(sealed[:12], sealed[12:], _BOUND))
    except (Malformed, InvalidTag, ValueError, msgspec.DecodeError):
        raise _again("this browser has no attempt to connect an account", code="no_attempt") from None
    if (attempt.provider, attempt.token_endpoint) != (provider.name, provider.token_endpoint):
        raise _again("the response is from another provider", code="mixed_up")  # RFC 9700 section 4.4
    if (attempt.person, attempt.session) != (person, session):
        raise _again("the attempt was begun in another session", code="other_session")
    if not attempt.began_at <= now < attempt.began_at + ATTEMPT_LIFETIME:
        raise _again("the attempt took too long", code="attempt_expired")
    return attempt


_BOUND = b"account attempt"
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(ConnectAttempt)


def check_response(answer: Mapping[str, str], attempt: ConnectAttempt, provider: AccountProvider) -> str:
    """Return the authorization code in an authorization response. Raises AccountRefused if the provider refused, or a
    check fails.

    1. `state` must equal the state of the attempt. 2. `iss`, if present, must be the issuer of the provider; it must be
    present if the provider `states_issuer` (RFC 9207 section 2.4). 3. The response must not be an error.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
        raise _again("the response belongs to another attempt", code="wrong_state")
    issuer = answer.get("iss")
    if issuer != provider.issuer and (issuer is not None or provider.states_issuer):
        raise _again("the response is from another provider", code="mixed_up")
    if (error := answer.get("error")) is not None:
        raise AccountRefused(
            f"{provider.label} refused the connection ({_word(error)})", hint="connect the account again"
        )
    code = answer.get("code", "")
    if not 0 < len(code) <= 4096 or not _TOKEN.fullmatch(code):
        raise _again("the response has no code", code="no_code")
    return code


def _again(message: str, *, code: str) -> AccountRefused:
    return AccountRefused(message, hint="begin again on the page of connected accounts", code=code)


def _word(text: str) -> str:
    return "".join(one for one in text[:64] if one.isascii() and (one.isalnum() or one in "_-."))


# --- token responses


def parse_token_answer(provider: AccountProvider, status: int, body: bytes) -> TokenAnswer:
    """Return the token response in the body of an HTTP response.

    Raises AccountRefused for an error response (code `grant_ended` if the refresh token is no longer valid) and for
    tokens that are malformed; ProviderDown if the provider failed.
    """
    try:
        parsed = canonical.parse(body, max_bytes=MAX_ANSWER)
        error = convert(parsed, ErrorAnswer).error
    except (Malformed, msgspec.ValidationError):
        parsed, error = None, ""
    if error in _GRANT_ENDED and status in (200, 400, 401):
        raise AccountRefused(f"{provider.label} has ended the connection ({_word(error)})", code="grant_ended")
    if status in (400, 401, 403) or (status == 200 and error):
        word = _word(error) or str(status)
        hint = "ask an administrator to check the client id and the client secret"
        raise AccountRefused(f"{provider.label} refused the request for a token ({word})", hint=hint)
    if status != 200:
        raise ProviderDown(f"{provider.label} answers {status}", hint="try again later")
    try:
        answer = convert(parsed, TokenAnswer)
    except msgspec.ValidationError:
        raise AccountRefused(f"the response of {provider.label} is not a token response", code="bad_answer") from None
    for token in (answer.access_token, answer.refresh_token or "-"):
        if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise AccountRefused(
                f"a token of {provider.label} is malformed or too long",
                hint="try again; if this repeats, compare the token endpoint with the documentation of the provider",
                code="bad_answer",
            )
    return answer


class AccessToken(NamedTuple):
    """An access token of a provider, with its scopes and its expiry in microseconds."""

    text: str
    scopes: frozenset[str]
    expires_at: int

    def __repr__(self) -> str:
        """Return a text with only the expiry, because the token is secret."""
        return f"AccessToken({self.expires_at})"


def check_token_answer(
    provider: AccountProvider, answer: TokenAnswer, *, requested: frozenset[str], now: int
) -> AccessToken:
    """Return the access token in a token response. Raises AccountRefused if the token has another type than the
    provider's, no expiry or an expiry that is too late, a scope that was not requested, or none of the requested
    scopes.
    """
    if answer.token_type.lower() != provider.token_type:
        raise AccountRefused(
            f"{provider.label} issued a token of another type than {provider.token_type!a}", code="wrong_token_type"
        )
    seconds = answer.expires_in
    if isinstance(seconds, str):
        seconds = int(seconds) if re.fullmatch(r"\d{1,10}", seconds) else None
    if seconds is None or not 0 < seconds <= LONGEST_LIFE_S:
        raise AccountRefused(
            f"{provider.label} issued an access token without an expiry within {LONGEST_LIFE_S} seconds",
            hint="turn on expiring tokens in the settings of the application at the provider",
            code="endless_token",
        )
    stated = requested if answer.scope is None else parse_scopes(answer.scope, separator=provider.separator)
    if wider := stated - requested - _IDENTITY:
        raise AccountRefused(
            f"{provider.label} granted the scope {min(wider)[:64]!a}, which was not requested", code="wider_scope"
        )
    if requested and not stated & requested:
        raise AccountRefused(f"{provider.label} granted none of the requested scopes", code="no_scope")
    return AccessToken(answer.access_token, stated & requested, now + seconds * SECOND)


def choose_scopes(account: ConnectedAccount, provider: AccountProvider, requested: frozenset[str]) -> frozenset[str]:
    """Return the scopes of a new access token: `requested`; if empty, all scopes of the consent that the provider still
    has. Raises Invalid for a scope outside the consent, or, if the provider has one token that all agents share, for
    only a part of the scopes; NotConnected if an administrator removed all scopes of the consent from the provider's
    settings, or, for a shared token, any of them.
    """
    granted = account.scopes & frozenset(provider.scopes)
    if granted != account.scopes and (provider.shares_tokens or not granted):
        raise NotConnected(f"an administrator removed scopes of this account at {provider.label}", hint=AGAIN)
    if not requested:
        return granted
    if not requested <= granted:
        raise Invalid(
            f"the person did not consent to the scope {min(requested - granted)[:64]!a}",
            hint=f"the person consented to: {' '.join(sorted(granted))[:200]}",
            code="scope_not_consented",
        )
    if provider.shares_tokens and requested != granted:
        raise Invalid(f"{provider.label} issues tokens only for all scopes of the account", hint="leave `scopes` out")
    return requested

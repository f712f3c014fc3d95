"""Authorization requests: RFC 6749 section 4.1.1 (as OAuth 2.1 narrows it), OpenID Connect Core 1.0 section 3.1.2.1,
PKCE (RFC 7636), `resource` (RFC 8707), `authorization_details` (RFC 9396), and `dpop_jkt` (RFC 9449 section 10).

Stricter than the specifications: PKCE with S256 is required of every client, the response type is `code`, and no
parameter may be repeated.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from ostiary.authorization import assurance
from ostiary.authorization.assurance import StepUp
from ostiary.authorization.bounds import ToolDetail, parse_details, render_details
from ostiary.authorization.claims import parse_scope, render_scope
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.protocol.jose import b64u
from ostiary.protocol.uri import add_query
from ostiaryd.tokens.model.grants import (
    MAX_VALUE,
    Form,
    InvalidGrant,
    InvalidRequest,
    Unmet,
    UnsupportedResponseType,
    parse_demand,
    parse_details_of,
    read_form,
    resolve_aliases,
)
from ostiaryd.trust.model.clients import OAuthClient

OPENID, PROFILE, EMAIL, OFFLINE = "openid", "profile", "email", "offline_access"
IDENTITY_SCOPES = {
    OPENID: "Know who you are: your id at this server",
    PROFILE: "See your name",
    EMAIL: "See your e-mail address",
    OFFLINE: "Stay connected while you are signed out",
}
"""Scopes of OpenID Connect Core 1.0 sections 3.1.2.1, 5.4 and 11, with their words on the consent page; they belong to
no resource.
"""
_IDENTITY = frozenset(IDENTITY_SCOPES)
PERSON_CLAIMS = {"name": PROFILE, "preferred_username": PROFILE, "email": EMAIL}
"""Claims from the record of a person, each with the scope that requests it (OpenID Connect Core 1.0 section 5.4)."""
CLAIMS = ("sub", *PERSON_CLAIMS, "auth_time", "acr", "amr")
"""Claims about a person that this server can supply."""
PROMPTS = ("none", "login", "consent", "select_account")
RESPONSE_MODES = ("query", "form_post")
REQUEST_URI = "urn:ietf:params:oauth:request_uri:"
"""Prefix of the reference to a stored request (RFC 9126 section 2.2)."""
MAX_SHORT = 2048
"""Maximum length of `state`, `nonce` and `redirect_uri`, in characters."""
MAX_CLAIMS_DEPTH = 6
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_THUMBPRINT = _CHALLENGE


class LoginRequired(Refused):
    """The request forbids a login page (`prompt=none`), but the person is not signed in; or another person signed in
    than the person whom the request names (OpenID Connect Core 1.0 section 3.1.2.6).
    """

    code = "login_required"
    is_challenge = True


class ConsentRequired(Refused):
    """The request forbids a consent page (`prompt=none`), but the person has not consented yet (OpenID Connect Core 1.0
    section 3.1.2.6).
    """

    code = "consent_required"
    is_challenge = True


class RequestNotSupported(Refused):
    """A request object without a signature, or of a client without keys, is not supported (OpenID Connect Core 1.0
    section 3.1.2.6).
    """

    code = "request_not_supported"


class RequestUriNotSupported(Refused):
    """The parameter `request_uri` is not supported (OpenID Connect Core 1.0 section 3.1.2.6)."""

    code = "request_uri_not_supported"


class RegistrationNotSupported(Refused):
    """The parameter `registration` is not supported (OpenID Connect Core 1.0 section 3.1.2.6)."""

    code = "registration_not_supported"


NOT_SUPPORTED: Mapping[str, type[Refused]] = {
    "request_uri": RequestUriNotSupported,
    "registration": RegistrationNotSupported,
}
"""Parameters that this server does not support, each with its error."""


class ReturnAddress(NamedTuple):
    """The redirect URI to which the server sends the response of an authorization request, with `state` and
    `response_mode`. Errors of the request go to this URI too.
    """

    redirect_uri: str
    response_mode: str
    state: str


class AuthorizationRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The validated parameters of an authorization request of a known client. `details` are the unparsed
    `authorization_details` (JSON).
    """

    client_id: str
    redirect_uri: str
    response_mode: str = "query"
    state: str = ""
    code_challenge: str = ""
    """S256 challenge of PKCE. Empty for a device authorization request, which needs no PKCE, and for a request of
    `is_protected_by_nonce`.
    """
    scope: str = ""
    resource: str | None = None
    details: list[dict[str, object]] = []
    nonce: str = ""
    prompt: tuple[str, ...] = ()
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()
    id_token_claims: tuple[str, ...] = ()
    userinfo_claims: tuple[str, ...] = ()
    subject: str = ""
    """Id of the only person who may answer the request; empty if any person may."""
    login_hint: str = ""
    jkt: str = ""
    """Thumbprint of the DPoP key with which the client must redeem the code; empty if any key is accepted."""

    @property
    def scopes(self) -> frozenset[str]:
        """Return the requested scopes of the resource, without the scopes of OpenID Connect."""
        return parse_scope(self.scope) - _IDENTITY

    @property
    def identity(self) -> frozenset[str]:
        """Return the requested scopes of OpenID Connect."""
        return parse_scope(self.scope) & _IDENTITY

    @property
    def is_protected_by_nonce(self) -> bool:
        """Return whether this request can do without PKCE if its client authenticates: it asks for an ID token with a
        `nonce`, and for no access to a resource (OAuth 2.1 section 7.5.1).
        """
        is_sign_in = OPENID in self.identity and not (self.scopes or self.resource or self.details)
        return is_sign_in and bool(self.nonce)

    @property
    def return_address(self) -> ReturnAddress:
        """Return the redirect URI, state and response mode of this request."""
        return ReturnAddress(self.redirect_uri, self.response_mode, self.state)

    def bounds(self, *, classes: Collection[str]) -> tuple[ToolDetail, ...]:
        """Return the parsed `authorization_details`. `classes` are the allowed data classes. Raises InvalidDetails for
        malformed bounds.
        """
        return parse_details(self.details, classes=classes)


def parse_return_address(form: Mapping[str, Sequence[str]], client: OAuthClient) -> ReturnAddress:
    """Return the checked redirect URI, with `state` and `response_mode`. Raises InvalidRequest if the URI is missing,
    repeated or not registered. Do not send this error to the redirect URI, which is not trusted.
    """
    sent, redirect_uris = [value for value in form.get("redirect_uri", ()) if value], client.metadata.redirect_uris
    if len(sent) > 1:
        raise InvalidRequest(f"`redirect_uri` was sent {len(sent)} times", hint="send `redirect_uri` once")
    if not sent and len(redirect_uris) != 1:
        raise InvalidRequest("`redirect_uri` is missing", hint="send one of the registered redirect URIs")
    uri = sent[0] if sent else redirect_uris[0]
    if not client.has_redirect_uri(uri):
        raise InvalidRequest(
            "`redirect_uri` is not registered for this client",
            hint="`redirect_uri` must equal a registered one; only the port of a loopback address may differ",
        )
    states, modes = form.get("state", ()), form.get("response_mode", ())
    state = states[0] if len(states) == 1 and len(states[0]) <= MAX_SHORT else ""
    mode = modes[0] if len(modes) == 1 and modes[0] in RESPONSE_MODES else "query"
    return ReturnAddress(uri, mode, state)


def parse_request(
    form: Mapping[str, Sequence[str]],
    client: OAuthClient,
    *,
    address: ReturnAddress,
    classes: Collection[str],
    subject: str = "",
) -> AuthorizationRequest:
    """Return the validated request of a client. `subject` is the id of the person that `id_token_hint` names.

    Raises the error of RFC 6749 or OpenID Connect for the first parameter that is not valid: InvalidRequest,
    InvalidTarget, InvalidScope, InvalidDetails, UnsupportedResponseType, RequestUriNotSupported,
    RegistrationNotSupported or Unmet. All these errors are sent to the redirect URI.
    """
    values = read_form({name: list(value) for name, value in form.items()})
    for name, refusal in NOT_SUPPORTED.items():
        if name in values:
            hint = "register the client at `/register`" if name == "registration" else "push the parameters to `/par`"
            raise refusal(f"`{name}` is not supported", hint=hint)
    if (kind := values.get("response_type")) != "code":
        error = InvalidRequest if kind is None else UnsupportedResponseType
        raise error("`response_type` must be `code`")
    if values.get("response_mode", "query") not in RESPONSE_MODES:
        raise InvalidRequest("`response_mode` must be `query` or `form_post`")
    for name in ("state", "nonce", "login_hint"):
        if len(values.get(name, "")) > MAX_SHORT:
            raise InvalidRequest(f"`{name}` is longer than {MAX_SHORT} characters")
    scope = _parse_scope(values)
    if OPENID in parse_scope(scope) and "redirect_uri" not in values:
        raise InvalidRequest("`redirect_uri` is missing", hint="OpenID Connect requires it")
    demand = _parse_demand(values, client)
    requested = _parse_claims(values.get("claims"))
    named = requested.subject or subject
    if subject and named != subject:
        raise InvalidRequest("`claims` and `id_token_hint` name two different persons")
    request = AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=address.redirect_uri,
        response_mode=address.response_mode,
        state=address.state,
        code_challenge=_parse_challenge(values),
        scope=scope,
        resource=values.get("resource"),
        details=render_details(parse_details_of(values.get("authorization_details"), classes=classes)),
        nonce=values.get("nonce", ""),
        prompt=_parse_prompt(values.get("prompt", "")),
        max_age=demand.max_age,
        acr_values=requested.acr_values or demand.acr_values,
        id_token_claims=requested.id_token,
        userinfo_claims=requested.userinfo,
        subject=named,
        login_hint=values.get("login_hint", ""),
        jkt=_parse_jkt(values.get("dpop_jkt")),
    )
    if not request.code_challenge and (client.is_public or not request.is_protected_by_nonce):
        raise InvalidRequest("`code_challenge` is missing", hint="PKCE with `code_challenge_method` S256 is required")
    return request


def parse_device_request(values: Form, client: OAuthClient, *, classes: Collection[str]) -> AuthorizationRequest:
    """Return the request of a device (RFC 8628 section 3.1). Raises InvalidRequest, InvalidScope or InvalidDetails for
    a parameter that is not valid, Unmet for an authentication that no person can reach.
    """
    scope, demand = _parse_scope(values), _parse_demand(values, client)
    return AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri="",
        scope=scope,
        resource=values.get("resource"),
        details=render_details(parse_details_of(values.get("authorization_details"), classes=classes)),
        max_age=demand.max_age,
        acr_values=demand.acr_values,
        prompt=("consent",),
    )


def _parse_scope(values: Form) -> str:
    """Return the requested scopes. Of a request with `openid`, leave out scopes that no resource can have, for example
    `address`: OpenID Connect Core 1.0 section 3.1.2.1 says to ignore unknown scopes. Raises InvalidScope for a
    malformed scope.
    """
    scope = resolve_aliases(values.get("scope", ""))
    scopes = parse_scope(scope)
    unknown = {one for one in scopes - _IDENTITY if ":" not in one} if OPENID in scopes else None
    return render_scope(scopes - unknown) if unknown else scope


def _parse_demand(values: Form, client: OAuthClient) -> StepUp:
    """Return the authentication that the request demands. If `acr_values` or `max_age` is missing, the registered
    demand of the client applies (OpenID Connect Dynamic Client Registration 1.0 section 2). Levels that this server
    does not support are ignored. Raises InvalidRequest for malformed values, Unmet if only agents can reach the levels.
    """
    requested, registered = parse_demand(values), client.metadata
    levels = requested.acr_values if "acr_values" in values else registered.default_acr_values
    max_age = registered.default_max_age if requested.max_age is None else requested.max_age
    return StepUp(_reachable(tuple(level for level in levels if level in assurance.LEVELS)), max_age)


def _reachable(levels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the demanded levels, if the login of a person can reach one of them. Otherwise raises Unmet, so that the
    person is not asked for proofs without end.
    """
    if levels and not set(levels) & set(assurance.PERSON_LEVELS):
        hint = f"the levels of people are {', '.join(assurance.PERSON_LEVELS)}"
        raise Unmet("the login of a person cannot reach a demanded level of assurance (`acr`)", hint=hint)
    return levels


def _parse_challenge(values: Mapping[str, str]) -> str:
    """Return `code_challenge` (RFC 7636 section 4.3), empty if absent. Raises InvalidRequest if it is malformed or its
    method is not S256.
    """
    challenge = values.get("code_challenge")
    if challenge is None and "code_challenge_method" not in values:
        return ""
    if challenge is None:
        raise InvalidRequest(
            "`code_challenge` is missing", hint="send `code_challenge` too, or leave `code_challenge_method` out"
        )
    if values.get("code_challenge_method") != "S256":
        raise InvalidRequest("`code_challenge_method` must be S256")
    if not _CHALLENGE.fullmatch(challenge):
        raise InvalidRequest("`code_challenge` is not a SHA-256 digest in base64url, 43 characters")
    return challenge


def check_verifier(verifier: str, challenge: str) -> None:
    """Check that a verifier matches its challenge (RFC 7636 section 4.6). If both are empty, the check passes. Raises
    InvalidGrant for a verifier that does not match, and InvalidRequest if only the verifier is empty.

    A verifier without a challenge is refused, because an attacker may have removed the challenge from the request (RFC
    9700 section 4.8.2).
    """
    if not challenge and not verifier:
        return
    if not challenge:
        raise InvalidGrant("`code_verifier` was sent, but the authorization request had no `code_challenge`")
    if not verifier:
        raise InvalidRequest("`code_verifier` is missing")
    if not _VERIFIER.fullmatch(verifier):
        raise InvalidGrant("`code_verifier` does not have 43 to 128 characters of A-Z, a-z, 0-9, `-._~`")
    if not hmac.compare_digest(b64u(sha256(verifier.encode()).digest()), challenge):
        raise InvalidGrant("`code_verifier` does not match `code_challenge`")


def _parse_prompt(text: str) -> tuple[str, ...]:
    """Parse `prompt` of an authorization request. Raises InvalidRequest for an unknown word, and for `none` with other
    words.
    """
    prompts = tuple(dict.fromkeys(text.split(" "))) if text else ()
    if not all(prompt in PROMPTS for prompt in prompts):
        raise InvalidRequest(f"`prompt` has a word that is not one of {', '.join(PROMPTS)}")
    if "none" in prompts and len(prompts) > 1:
        raise InvalidRequest("`prompt`: `none` cannot be combined with other values")
    return prompts


def _parse_jkt(thumbprint: str | None) -> str:
    """Return `dpop_jkt` of an authorization request, empty if absent. Raises InvalidRequest for other text than a JWK
    thumbprint.
    """
    if thumbprint is not None and not _THUMBPRINT.fullmatch(thumbprint):
        raise InvalidRequest("`dpop_jkt` is not a JWK thumbprint in base64url, 43 characters")
    return thumbprint or ""


class RequestedClaims(NamedTuple):
    """The contents of the parameter `claims`: the names of the requested claims, the levels of an essential `acr`, and
    the id of the requested person.
    """

    id_token: tuple[str, ...] = ()
    userinfo: tuple[str, ...] = ()
    acr_values: tuple[str, ...] = ()
    subject: str = ""


class _Claims(msgspec.Struct, frozen=True):
    """The JSON structure of the parameter `claims`. The value of each requested claim is null or an object."""

    id_token: dict[str, dict[str, object] | None] | None = None
    userinfo: dict[str, dict[str, object] | None] | None = None


def _parse_claims(text: str | None) -> RequestedClaims:
    """Return the claims that `claims` requests (OpenID Connect Core 1.0 section 5.5). Unknown claims are ignored.
    Raises InvalidRequest for malformed JSON, Unmet if the login of a person cannot reach a level of an essential `acr`.
    """
    if text is None:
        return RequestedClaims()
    try:
        requested = convert(canonical.parse(text, max_bytes=MAX_VALUE, max_depth=MAX_CLAIMS_DEPTH), _Claims)
    except (Malformed, msgspec.ValidationError) as error:
        raise InvalidRequest(f"`claims`: {str(error)[:200]}") from None
    id_token, userinfo = requested.id_token or {}, requested.userinfo or {}
    subjects = [subject for part in (id_token, userinfo) for subject in _values_of(part.get("sub") or {})]
    if not all(isinstance(subject, str) and subject == subjects[0] for subject in subjects):
        raise InvalidRequest("`claims`: `sub` names more than one person, or is not a string")
    return RequestedClaims(
        id_token=tuple(name for name in CLAIMS if name in id_token),
        userinfo=tuple(name for name in CLAIMS if name in userinfo),
        acr_values=_reachable(_essential_acr(id_token.get("acr") or {})),
        subject=str(subjects[0]) if subjects else "",
    )


def _essential_acr(request: Mapping[str, object]) -> tuple[str, ...]:
    """Return the levels that an essential `acr` lists; empty if `acr` is not essential (OpenID Connect Core 1.0 section
    5.5.1.1). Raises InvalidRequest for malformed levels.
    """
    if request.get("essential") is not True:
        return ()
    values = _values_of(request)
    if not all(isinstance(value, str) for value in values):
        raise InvalidRequest("`claims`: `values` of `acr` is not a list of strings")
    try:
        return assurance.parse_acr_values(" ".join(map(str, values)))
    except Invalid as error:
        raise InvalidRequest(f"`claims`: {error.message}") from None


def _values_of(request: Mapping[str, object]) -> list[object]:
    """Return the values of which a requested claim must have one: `values`, or else `value`. Raises InvalidRequest if
    `values` is not a list.
    """
    values = request.get("values", [request["value"]] if "value" in request else [])
    if not isinstance(values, list):
        raise InvalidRequest("`claims`: `values` is not a list")
    return values


def render_redirect(address: ReturnAddress, parameters: Mapping[str, str]) -> str:
    """Return the redirect URI with the parameters of the response in its query."""
    return add_query(address.redirect_uri, parameters)


def render_answer(address: ReturnAddress, parameters: Mapping[str, str], *, issuer: str) -> dict[str, str]:
    """Return the parameters of an authorization response: `parameters`, `state`, and `iss` (RFC 9207 section 2)."""
    state = {"state": address.state} if address.state else {}
    return {**parameters, **state, "iss": issuer}

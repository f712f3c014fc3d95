"""Rules for the target, the scopes, the bounds and the lifetime of a token (RFC 6749, 8707, 9396, 9068).

Access only narrows: a token never has more than was requested, and never more than its task and agent have.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Collection, Iterable
from urllib.parse import unquote_plus, urlsplit

import msgspec

from ostiary.authorization import assurance, bounds
from ostiary.authorization.assurance import NO_DEMAND, StepUp
from ostiary.authorization.claims import SCOPE_ALIASES, InvalidScope, render_scope
from ostiary.protocol import canonical
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Forbidden, Invalid, Malformed, Refused
from ostiary.protocol.nearest import nearest
from ostiaryd.registry.model import ADMIN, Agent, Resource, check_uri
from ostiaryd.trust.model import Credentials, InvalidClient

SECOND = 1_000_000
MAX_VALUE = 16 << 10
MAX_DETAILS_DEPTH = 8
Form = dict[str, str]
KIND = "token"
"""Kind under which access tokens are stored as holdings."""
CLIENT_CREDENTIALS = "client_credentials"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CIBA = "urn:openid:params:grant-type:ciba"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
"""Identifier of the token type of access tokens (RFC 8693 section 3)."""


class InvalidRequest(Malformed):
    """A parameter of the request is missing, malformed or repeated (RFC 6749 section 5.2)."""

    code = "invalid_request"


class InvalidGrant(Refused):
    """The authorization on which the token request is based (code, refresh token or task) has ended, or belongs to
    another client (RFC 6749 section 5.2).
    """

    code = "invalid_grant"


class InvalidTarget(Refused):
    """The requested resource is unknown, or the client cannot get a token for it (RFC 8707 section 2)."""

    code = "invalid_target"


class UnauthorizedClient(Refused):
    """The client cannot use this grant type (RFC 6749 section 5.2)."""

    code = "unauthorized_client"


class Unmet(Refused):
    """The authentication of the client or person does not have the level or the age that the request or a restriction
    demands (RFC 9470 section 5).
    """

    code = "unmet_authentication_requirements"


class UnknownUser(Refused):
    """No person matches `login_hint` (CIBA section 13)."""

    code = "unknown_user_id"


class InvalidBindingMessage(Refused):
    """The `binding_message` is too long or cannot be shown (CIBA section 13)."""

    code = "invalid_binding_message"


class BackchannelDenied(Forbidden):
    """A person, a policy or a restriction denies the access (RFC 6749 section 4.1.2.1, CIBA sections 11 and 13).

    This class is the refusal of a new backchannel request (POST /bc-authorize), with status 403: a person denied an
    equal request, the approval of an equal request was used, or the agent made too many approval requests. Every other
    refusal with this code is a Forbidden.
    """

    code = "access_denied"


class Pending(Refused):
    """The person has not answered yet: poll again (CIBA section 11)."""

    code = "authorization_pending"


class SlowDown(Pending):
    """The client polls too often: wait five more seconds between polls (CIBA section 11)."""

    code = "slow_down"


class ExpiredToken(Refused):
    """The request, or the person's approval of the request, has expired (CIBA section 11)."""

    code = "expired_token"


class UnsupportedGrantType(Refused):
    """The server does not support this grant type (RFC 6749 section 5.2)."""

    code = "unsupported_grant_type"


class UnsupportedResponseType(Refused):
    """The server does not support this `response_type` (RFC 6749 section 4.1.2.1)."""

    code = "unsupported_response_type"


class KeysDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="keys"):
    """The message to guards that the signing keys of the server have changed."""


class Target(msgspec.Struct, frozen=True):
    """The target of a token: a resource with its URI, or an agent that receives the token to exchange it. `resource` is
    None for an unregistered resource and for an agent.
    """

    uri: str
    resource: Resource | None = None
    agent: Agent | None = None

    def owns(self, scope: str) -> bool:
        """Return whether the target accepts the scope: an agent accepts every scope, a registered resource accepts the
        scopes with its name, and an unregistered resource accepts none.
        """
        if self.agent is not None:
            return True
        return self.resource is not None and resource_name(scope) == self.resource.name


def resource_name(scope: str) -> str:
    """Return the name of the resource in a scope: `files` for the scope `files:read`."""
    return scope.partition(":")[0]


def sole_resource(scopes: Iterable[str]) -> str:
    """Return the name of the resource to which all these scopes belong. Raises InvalidTarget if they belong to none or
    to several resources.
    """
    names = {resource_name(scope) for scope in scopes}
    if len(names) != 1:
        raise InvalidTarget(
            f"the scopes belong to {len(names) or 'no'} resources; a token can be for only one resource",
            hint="send `resource`",
        )
    return names.pop()


def is_origin_of(unverified_uri: str, uri: str) -> bool:
    """Return whether the first URI is the origin of the second: its scheme, host and port, without a path."""
    parts = urlsplit(uri)
    return unverified_uri.removesuffix("/") == f"{parts.scheme}://{parts.netloc}"


def check_target(uri: str) -> None:
    """Check the URI of an unregistered resource: an https URI in its canonical spelling. Raises InvalidTarget if the
    check fails.
    """
    try:
        check_uri(uri)
    except Invalid as error:
        raise InvalidTarget(f"`resource`: {error.message}", hint=error.hint) from None
    if not uri.startswith("https://"):
        raise InvalidTarget("`resource`: an unregistered resource must have an `https` URI")


def check_scopes(requested: frozenset[str], *, agent: frozenset[str], task: frozenset[str]) -> None:
    """Check that agent and task have all requested scopes. Raises InvalidScope for a scope that the agent or the task
    lacks.
    """
    if extra := requested - (agent & task):
        party = "agent" if extra - agent else "task"
        near = nearest(min(extra), agent & task)
        where = "ask an administrator to grant them to the agent" if extra - agent else "start a task with them"
        hint = f"did you mean `{near}`?" if near else f"request fewer scopes, or {where}"
        raise InvalidScope(f"the {party} lacks the scopes {render_scope(extra)}", hint=hint)


def scopes_of_bearer(requested: frozenset[str], *, available: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return two sets for a client that gets bearer tokens: the requested scopes that the client has, and all scopes
    that its bearer tokens may have.

    Missing scopes are no error as long as one is left: a client without DPoP requests every scope in a resource's
    metadata, and the response states the granted scopes (RFC 6749 section 3.3). A bearer token never has the
    administrator's scope. Raises InvalidScope if no requested scope is left.
    """
    available -= {ADMIN}
    if requested and not requested & available:
        hint = (
            "a bearer token never has `ostiary:admin`"
            if ADMIN in requested
            else "ask an administrator to grant the scope"
        )
        raise InvalidScope(f"the agent has none of these scopes: {render_scope(requested)}", hint=hint)
    return requested & available, available


def scopes_at(target: Target, requested: frozenset[str], *, available: frozenset[str]) -> frozenset[str]:
    """Return the requested scopes; if none is requested, all available scopes that the target accepts. Raises
    InvalidTarget for a scope that a registered resource as target does not accept; for an unregistered resource,
    `find_target` has checked the scopes.
    """
    if not requested:
        return frozenset(filter(target.owns, available))
    foreign = frozenset(scope for scope in requested if not target.owns(scope))
    if foreign and target.resource is not None:
        name = target.resource.name
        raise InvalidTarget(
            f"these scopes do not belong to the resource `{name}`: {render_scope(foreign)}",
            hint="request a separate token for them",
        )
    return requested


def narrow_details(
    requested: Iterable[bounds.ToolDetail], *, task: Iterable[bounds.ToolDetail], target: Target
) -> tuple[bounds.ToolDetail, ...]:
    """Return the bounds (`authorization_details`) of the token: the requested bounds, checked to lie within the task's
    bounds and reduced to the target. Without requested bounds, the task's bounds apply.

    If neither has bounds, the result is empty, and only scopes limit the token. Raises InvalidDetails if a requested
    bound is wider than the task's or none is at the target, and InvalidTarget if no bound of the task is at the target;
    an empty result would permit everything. For an agent as target the bounds stay complete, because the agent must
    exchange the token before use.
    """
    inner, outer = tuple(requested), tuple(task)
    granted = bounds.narrow(outer, inner) if outer else inner
    if target.agent is not None or not granted:
        return granted
    reached = tuple(_at(detail, target.uri) for detail in granted if target.uri in detail.locations)
    if not reached:
        if inner:
            raise bounds.InvalidDetails(
                "none of the requested bounds is for this resource",
                hint="compare `locations` of the bounds with the resource",
            )
        raise InvalidTarget("the bounds of the task do not include this resource")
    return reached


def _at(detail: bounds.ToolDetail, uri: str) -> bounds.ToolDetail:
    if detail.locations == (uri,):
        return detail
    return msgspec.structs.replace(detail, locations=(uri,))


def lifetime(*, now: int, longest: int, ends: Iterable[int | None]) -> int:
    """Return the lifetime of a token in whole seconds: `longest` (seconds), or less if one of `ends` comes earlier.
    `now` and `ends` are in microseconds; None in `ends` means no end.

    Raises InvalidGrant if less than one second is left.
    """
    seconds = longest
    for end in ends:
        if end is not None:
            seconds = min(seconds, (end - now) // SECOND)
    if seconds < 1:
        raise InvalidGrant("the agent, the task, the grant or the key of the token ends in less than a second")
    return seconds


def read_form(form: dict[str, list[str]]) -> Form:
    """Return the parameters of a form as name and value, without empty ones (RFC 6749 section 3.2).

    Raises InvalidRequest for a repeated or too long parameter, and InvalidTarget for more than one `resource` or
    `audience`.
    """
    if len(form.get("resource", ())) > 1 or len(form.get("audience", ())) > 1:
        raise InvalidTarget("a token can be for only one `resource` or `audience`", hint="send one request for each")
    for name, values in form.items():
        if len(values) > 1:
            raise InvalidRequest(
                f"the parameter {name[:50]!a} was sent {len(values)} times", hint="send the parameter once"
            )
        if len(values[0]) > MAX_VALUE:
            raise InvalidRequest(f"the parameter {name[:50]!a} is longer than {MAX_VALUE} characters")
        if "\0" in values[0]:
            raise InvalidRequest(f"the parameter {name[:50]!a} contains a NUL character")
    return {name: values[0] for name, values in form.items() if values[0]}


def resolve_aliases(scope: str) -> str:
    """Return a scope string with each alias replaced by the scope that it stands for."""
    return " ".join(dict.fromkeys(SCOPE_ALIASES.get(name, name) for name in scope.split(" "))) if scope else ""


def spell_scope(scope: str, *, requested: str) -> str:
    """Return the granted scopes as one string, in which each scope has the alias by which the client requested it,
    because some clients compare the two strings.
    """
    if not requested:
        return scope
    names = set(requested.split(" "))
    aliases = {full: alias for alias, full in SCOPE_ALIASES.items() if alias in names and full not in names}
    return " ".join(aliases.get(name, name) for name in scope.split(" "))


def required(form: Form, name: str) -> str:
    """Return the value of a required parameter. Raises InvalidRequest if it is missing."""
    if name not in form:
        raise InvalidRequest(f"`{name}` is missing")
    return form[name]


def credentials(form: Form, authorization: str | None, certificate: ClientCertificate | None = None) -> Credentials:
    """Return the client credentials in the form or in the Authorization header (RFC 6749 section 2.3), with the
    certificate of the client.

    Raises InvalidRequest for two authentications at once, InvalidClient for an unsupported authentication.
    """
    ways = ("client_assertion" in form) + ("client_secret" in form) + (authorization is not None)
    if ways > 1:
        raise InvalidRequest(
            "the client authenticates by two methods at once",
            hint="send only one of `client_assertion`, `client_secret` and the header `Authorization`",
        )
    if authorization is not None:
        return msgspec.structs.replace(_basic(form, authorization), certificate=certificate)
    return Credentials(
        form.get("client_assertion"),
        form.get("client_assertion_type"),
        form.get("client_id"),
        form.get("client_secret"),
        certificate=certificate,
    )


def _basic(form: Form, authorization: str) -> Credentials:
    """Return the client id and the secret of an Authorization header with scheme Basic (`client_secret_basic`). Both
    parts are form-encoded, and an empty secret is no secret (RFC 6749 section 2.3.1). Raises InvalidClient for a
    malformed header, InvalidRequest if the form names another client id.
    """
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        hint = "send `client_assertion` (private_key_jwt)"
        raise InvalidClient("the Authorization header does not authenticate a client", hint=hint)
    try:
        pair = b64decode(encoded.strip(" "), validate=True).decode("ascii")
    except ValueError:
        raise InvalidClient("the Basic credentials are not base64 of ASCII", hint="encode ID:SECRET") from None
    client_id, _, secret = (unquote_plus(part) for part in pair.partition(":"))
    if form.get("client_id", client_id) != client_id:
        raise InvalidRequest(
            "`client_id` differs from the client id in the Authorization header",
            hint="send the client id only in the header",
        )
    return Credentials(None, None, client_id, secret or None)


def parse_demand(form: Form) -> StepUp:
    """Return the authentication that the token request demands: `acr_values` and `max_age` (RFC 9470 section 4). Raises
    InvalidRequest for malformed values.
    """
    if "acr_values" not in form and "max_age" not in form:
        return NO_DEMAND
    try:
        values = assurance.parse_acr_values(form.get("acr_values", ""))
        return StepUp(values, assurance.parse_max_age(form["max_age"]) if "max_age" in form else None)
    except Invalid as error:
        raise InvalidRequest(error.message) from None


def parse_details_of(text: str | None, *, classes: Collection[str]) -> tuple[bounds.ToolDetail, ...]:
    """Return the parsed `authorization_details`; none if the parameter is missing. Raises InvalidDetails for malformed
    JSON or bounds.
    """
    if text is None:
        return ()
    try:
        value = canonical.parse(text, max_bytes=MAX_VALUE, max_depth=MAX_DETAILS_DEPTH)
    except Malformed as error:
        raise bounds.InvalidDetails(f"`authorization_details`: {error.message}") from None
    return bounds.parse_details(value, classes=classes)


class Backchannel(msgspec.Struct, frozen=True, kw_only=True):
    """A backchannel request (CIBA), which a person answers on another device, with its state.

    `request` is the digest of the `auth_req_id`; `digest` is the digest of the approval's contents. `interval_s` is the
    minimum time between two polls, in seconds. Times are in microseconds.
    """

    request: str
    approval: str
    client: str
    person: str
    wish: Wish
    digest: str
    interval_s: int
    expires_at: int
    polled_at: int = 0
    answered_at: int | None = None
    is_approved: bool = False


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The access that a client asks a person for in a backchannel request (CIBA): scope, resource, bounds, and the
    message to the person. `is_openid`: whether the client gets an ID token too.
    """

    scope: str
    resource: str | None = None
    details: list[dict[str, object]] = []
    message: str = ""
    is_openid: bool = False

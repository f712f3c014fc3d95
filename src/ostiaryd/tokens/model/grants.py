"""The rules of a token: its resource, its access, its lifetime (RFC 6749, 8707, 9396, 9068).

Everything narrows: granted access lies within the requested access, and that within the access of task and agent.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Collection, Iterable
from urllib.parse import unquote_plus

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
from ostiaryd.trust.model.clients import AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN

SECOND = 1_000_000
MAX_VALUE = 16 << 10
MAX_DETAILS_DEPTH = 8
Form = dict[str, str]
KIND = "token"
"""kind of the holding of a token"""
CLIENT_CREDENTIALS = "client_credentials"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CIBA = "urn:openid:params:grant-type:ciba"
GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE, CLIENT_CREDENTIALS, TOKEN_EXCHANGE, CIBA)
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
"""Identifier of the token type of access tokens (RFC 8693 section 3)."""


class InvalidRequest(Malformed):
    """A parameter of the request is missing, malformed or repeated (RFC 6749 section 5.2)."""

    code = "invalid_request"


class InvalidGrant(Refused):
    """The basis of the token has ended, or belongs to another client (RFC 6749 section 5.2)."""

    code = "invalid_grant"


class InvalidTarget(Refused):
    """The requested resource is unknown, or the client cannot get a token for it (RFC 8707 section 2)."""

    code = "invalid_target"


class UnauthorizedClient(Refused):
    """The client cannot use this grant type (RFC 6749 section 5.2)."""

    code = "unauthorized_client"


class Unmet(Refused):
    """The proofs of the request do not meet the demanded authentication (RFC 9470 section 5)."""

    code = "unmet_authentication_requirements"


class UnknownUser(Refused):
    """No person matches `login_hint` (CIBA section 13)."""

    code = "unknown_user_id"


class InvalidBindingMessage(Refused):
    """The `binding_message` is too long or cannot be shown (CIBA section 13)."""

    code = "invalid_binding_message"


class BackchannelDenied(Forbidden):
    """The person denied the request (CIBA section 13: status 403)."""

    code = "access_denied"


class Pending(Refused):
    """The person has not answered yet: poll again (CIBA section 11)."""

    code = "authorization_pending"


class SlowDown(Pending):
    """The client polls too often: wait five more seconds between polls (CIBA section 11)."""

    code = "slow_down"


class ExpiredToken(Refused):
    """The request expired before the person answered (CIBA section 11)."""

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
    """The target of a token: a resource (None for an unregistered one), or an agent that may act on the token."""

    uri: str
    resource: Resource | None = None
    agent: Agent | None = None

    def owns(self, scope: str) -> bool:
        """Return whether the scope belongs to this target."""
        if self.agent is not None:
            return True
        return self.resource is not None and resource_name(scope) == self.resource.name


def resource_name(scope: str) -> str:
    """Return the resource of a scope: `files` of `files:read`."""
    return scope.partition(":")[0]


def sole_resource(scopes: Iterable[str]) -> str:
    """Return the name of the only resource of these scopes. Raises InvalidTarget for none or several."""
    names = {resource_name(scope) for scope in scopes}
    if len(names) != 1:
        raise InvalidTarget(f"the scopes are of {len(names) or 'no'} resources, not of one", hint="send `resource`")
    return names.pop()


def check_target(uri: str) -> None:
    """Check the URI of an unregistered resource: an https URI in its canonical spelling. Raises InvalidTarget."""
    try:
        check_uri(uri)
    except Invalid as error:
        raise InvalidTarget(f"`resource`: {error.message}", hint=error.hint) from None
    if not uri.startswith("https://"):
        raise InvalidTarget("a resource that is not registered must be https")


def check_scopes(requested: frozenset[str], *, agent: frozenset[str], task: frozenset[str]) -> None:
    """Check the requested scopes. Raises InvalidScope for a scope that the agent or the task lacks."""
    if extra := requested - (agent & task):
        party = "agent" if extra - agent else "task"
        near = nearest(min(extra), agent & task)
        hint = f"did you mean `{near}`?" if near else "request fewer scopes, or have them granted"
        raise InvalidScope(f"the {party} does not have {render_scope(extra)}", hint=hint)


def scopes_of_bearer(requested: frozenset[str], *, available: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the requested scopes of a bearer client that the client has and that a bearer token may have.

    A client without DPoP requests every scope in a resource's metadata; the response states the granted scopes (RFC
    6749 section 3.3). No bearer token administers this server. Raises InvalidScope if no scope is left.
    """
    available -= {ADMIN}
    if requested and not requested & available:
        hint = (
            "a bearer token never has `ostiary:admin`" if ADMIN in requested else "let an administrator grant the scope"
        )
        raise InvalidScope(f"the agent has none of these scopes: {render_scope(requested)}", hint=hint)
    return requested & available, available


def scopes_at(target: Target, requested: frozenset[str], *, available: frozenset[str]) -> frozenset[str]:
    """Return the requested scopes, or all scopes of the agent there if none is requested. Raises InvalidTarget for a
    scope of another resource.
    """
    if not requested:
        return frozenset(filter(target.owns, available))
    foreign = frozenset(scope for scope in requested if not target.owns(scope))
    if foreign and target.resource is not None:
        name = target.resource.name
        raise InvalidTarget(f"not of the resource `{name}`: {render_scope(foreign)}", hint="request a separate token")
    return requested


def narrow_details(
    requested: Iterable[bounds.ToolDetail], *, task: Iterable[bounds.ToolDetail], target: Target
) -> tuple[bounds.ToolDetail, ...]:
    """Return the bounds of the token: the requested bounds within those of the task, cut down to the target.

    A task without bounds is bounded by its scopes alone. Raises InvalidDetails if wider bounds are requested or none of
    them is at the target, and InvalidTarget if the task's bounds do not reach the target: an empty result would mean no
    bounds. Bounds for an agent are not cut down, because the token is not used before its exchange.
    """
    inner, outer = tuple(requested), tuple(task)
    granted = bounds.narrow(outer, inner) if outer else inner
    if target.agent is not None or not granted:
        return granted
    reached = tuple(_at(detail, target.uri) for detail in granted if target.uri in detail.locations)
    if not reached:
        if inner:
            raise bounds.InvalidDetails("none of the requested bounds is at this resource", hint="see `locations`")
        raise InvalidTarget("the task does not reach this resource")
    return reached


def _at(detail: bounds.ToolDetail, uri: str) -> bounds.ToolDetail:
    if detail.locations == (uri,):
        return detail
    return msgspec.structs.replace(detail, locations=(uri,))


def lifetime(*, now: int, longest: int, ends: Iterable[int | None]) -> int:
    """Return the lifetime of a token in whole seconds: at most `longest`, and not beyond any of the `ends`
    (microseconds).

    Raises InvalidGrant if the lifetime is less than one second.
    """
    left = min((end - now for end in ends if end is not None), default=longest * SECOND)
    seconds = min(longest, left // SECOND)
    if seconds < 1:
        raise InvalidGrant("an object that the token depends on ends within a second")
    return seconds


def read_form(form: dict[str, list[str]]) -> Form:
    """Return the form, in which each parameter occurs once, without empty parameters (RFC 6749 section 3.2).

    Raises InvalidRequest, and InvalidTarget for more than one `resource`.
    """
    if len(form.get("resource", ())) > 1 or len(form.get("audience", ())) > 1:
        raise InvalidTarget("a token is for one resource", hint="send one request for each")
    for name, values in form.items():
        if len(values) > 1:
            raise InvalidRequest(f"the parameter {name[:50]!a} was sent {len(values)} times", hint="send it once")
        if len(values[0]) > MAX_VALUE:
            raise InvalidRequest(f"the parameter {name[:50]!a} is longer than {MAX_VALUE} characters")
        if "\0" in values[0]:
            raise InvalidRequest(f"the parameter {name[:50]!a} contains a NUL")
    return {name: values[0] for name, values in form.items() if values[0]}


def resolve_aliases(scope: str) -> str:
    """Return a scope string with each alias replaced by the scope that it stands for."""
    return " ".join(dict.fromkeys(SCOPE_ALIASES.get(name, name) for name in scope.split(" "))) if scope else ""


def spell_scope(scope: str, *, requested: str) -> str:
    """Return granted scopes by the names that the client requested, since some clients compare them."""
    if not requested:
        return scope
    names = set(requested.split(" "))
    aliases = {full: alias for alias, full in SCOPE_ALIASES.items() if alias in names and full not in names}
    return " ".join(aliases.get(name, name) for name in scope.split(" "))


def required(form: Form, name: str) -> str:
    """Return the value of a required parameter. Raises InvalidRequest."""
    if name not in form:
        raise InvalidRequest(f"`{name}` is missing")
    return form[name]


BASIC = 'Basic realm="ostiary"'


def credentials(form: Form, authorization: str | None, certificate: ClientCertificate | None = None) -> Credentials:
    """Return the client credentials in the form or in the Authorization header (RFC 6749 section 2.3), with the
    certificate of the client.

    Raises InvalidRequest for two authentications at once, InvalidClient for an unsupported authentication.
    """
    ways = ("client_assertion" in form) + ("client_secret" in form) + (authorization is not None)
    if ways > 1:
        raise InvalidRequest("the client sent two authentications", hint="send only `client_assertion`")
    if authorization is not None:
        return _basic(form, authorization)._replace(certificate=certificate)
    return Credentials(
        form.get("client_assertion"),
        form.get("client_assertion_type"),
        form.get("client_id"),
        form.get("client_secret"),
        certificate=certificate,
    )


def _basic(form: Form, authorization: str) -> Credentials:
    """Return client id and secret of `client_secret_basic`, each of which is form-encoded (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        hint = "send `client_assertion` (private_key_jwt)"
        raise InvalidClient("the Authorization header does not authenticate a client", hint=hint, scheme="DPoP")
    try:
        pair = b64decode(encoded.strip(" "), validate=True).decode("ascii")
    except ValueError:
        raise InvalidClient(
            "the Basic credentials are not base64 of ASCII", hint="encode ID:SECRET", scheme=BASIC
        ) from None
    client_id, _, secret = (unquote_plus(part) for part in pair.partition(":"))
    if form.get("client_id", client_id) != client_id:
        raise InvalidRequest("`client_id` is not the client of the Authorization header", hint="send it once")
    return Credentials(None, None, client_id, secret, BASIC)


def parse_demand(form: Form) -> StepUp:
    """Return the authentication that the client requests for the token (RFC 9470 section 4)."""
    if "acr_values" not in form and "max_age" not in form:
        return NO_DEMAND
    try:
        values = assurance.parse_acr_values(form.get("acr_values", ""))
        return StepUp(values, assurance.parse_max_age(form["max_age"]) if "max_age" in form else None)
    except Invalid as error:
        raise InvalidRequest(error.message) from None


def parse_details_of(text: str | None, *, classes: Collection[str]) -> tuple[bounds.ToolDetail, ...]:
    """Return the parsed `authorization_details`; none if the parameter is missing. Raises InvalidDetails."""
    if text is None:
        return ()
    try:
        value = canonical.parse(text, max_bytes=MAX_VALUE, max_depth=MAX_DETAILS_DEPTH)
    except Malformed as error:
        raise bounds.InvalidDetails(f"`authorization_details`: {error.message}") from None
    return bounds.parse_details(value, classes=classes)


class Backchannel(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a person answers on another device (CIBA), and its state.

    `request` is the digest of its `auth_req_id`; times are in microseconds.
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
    """The request of a client to a person (CIBA)."""

    scope: str
    resource: str | None = None
    details: list[dict[str, object]] = []
    message: str = ""

"""What is true of a token: for which resource it is, what it may, how long it lives (RFC 6749, 8707, 9396, 9068).

Everything narrows: what is granted lies within what was asked, and that within what the task and the agent have.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ostiary.core import bounds
from ostiary.core.claims import InvalidScope, render_scope
from ostiary.core.errors import Invalid, Malformed, Refused
from ostiaryd.registry.model import Agent, Resource, check_uri

SECOND = 1_000_000
KIND = "token"
"""Of which kind of holding a token is."""
CLIENT_CREDENTIALS = "client_credentials"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_TYPES = (CLIENT_CREDENTIALS, TOKEN_EXCHANGE)
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
"""RFC 8693 section 3."""


class InvalidRequest(Malformed):
    """RFC 6749 section 5.2."""

    code = "invalid_request"


class InvalidGrant(Refused):
    """RFC 6749 section 5.2: what the token would rest on has ended, or is somebody else's."""

    code = "invalid_grant"


class InvalidTarget(Refused):
    """RFC 8707 section 2."""

    code = "invalid_target"


class UnauthorizedClient(Refused):
    """RFC 6749 section 5.2."""

    code = "unauthorized_client"


class Unmet(Refused):
    """RFC 9470 section 5, OpenID Connect Core Error Code unmet_authentication_requirements 1.0."""

    code = "unmet_authentication_requirements"


class UnsupportedGrantType(Refused):
    """RFC 6749 section 5.2."""

    code = "unsupported_grant_type"


class UnsupportedResponseType(Refused):
    """RFC 6749 section 4.1.2.1."""

    code = "unsupported_response_type"


class KeysDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="keys"):
    """What guards hear when our signing keys change: that they do."""


class Target(msgspec.Struct, frozen=True):
    """For whom a token is: a resource (None where nobody has registered it), or an agent that may act on it."""

    uri: str
    resource: Resource | None = None
    agent: Agent | None = None

    def owns(self, scope: str) -> bool:
        if self.agent is not None:
            return True
        return self.resource is not None and resource_name(scope) == self.resource.name


def resource_name(scope: str) -> str:
    """`files` of `files:read`."""
    return scope.partition(":")[0]


def sole_resource(scopes: Iterable[str]) -> str:
    """The name of the one resource that all these scopes belong to. Raises InvalidTarget unless it is exactly one."""
    names = {resource_name(scope) for scope in scopes}
    if len(names) != 1:
        raise InvalidTarget("for which resource the token shall be is not said", hint="send `resource`")
    return names.pop()


def check_target(uri: str) -> None:
    """What may be named without being registered: an https URI in its one spelling. Raises InvalidTarget."""
    try:
        check_uri(uri)
    except Invalid as error:
        raise InvalidTarget(f"`resource`: {error.message}", hint=error.hint) from None
    if not uri.startswith("https://"):
        raise InvalidTarget("a resource that is not registered must be https")


def check_scopes(asked: frozenset[str], *, agent: frozenset[str], task: frozenset[str]) -> None:
    """Raises InvalidScope when more is asked than both agent and task have."""
    if extra := asked - (agent & task):
        who = "agent" if extra - agent else "task"
        raise InvalidScope(f"the {who} does not have {render_scope(extra)}", hint="ask for less, or let it be granted")


def scopes_at(target: Target, asked: frozenset[str], *, held: frozenset[str]) -> frozenset[str]:
    """Those asked for, or all that are held there if none are. Raises InvalidTarget for one of another resource."""
    if not asked:
        return frozenset(filter(target.owns, held))
    foreign = frozenset(scope for scope in asked if not target.owns(scope))
    if foreign and target.resource is not None:
        name = target.resource.name
        raise InvalidTarget(f"not of the resource `{name}`: {render_scope(foreign)}", hint="ask for it apart")
    return asked


def narrow_details(
    asked: Iterable[bounds.ToolDetail], *, task: Iterable[bounds.ToolDetail], target: Target
) -> tuple[bounds.ToolDetail, ...]:
    """The bounds in the token: what was asked within those of the task, cut down to the target.

    A task without bounds is bounded by its scopes alone. Raises InvalidDetails when wider ones are asked or nothing of
    what is asked is at the target, InvalidTarget when the task's bounds do not reach the target: an empty result would
    stand for no bounds at all. What is for an agent is not cut down: it is not used until it is exchanged.
    """
    wanted, outer = tuple(asked), tuple(task)
    granted = bounds.narrow(outer, wanted) if outer else wanted
    if target.agent is not None:
        return granted
    here = tuple(_at(detail, target.uri) for detail in granted if target.uri in detail.locations)
    if granted and not here:
        if wanted:
            raise bounds.InvalidDetails("nothing that is asked for is at this resource", hint="see `locations`")
        raise InvalidTarget("the task does not reach this resource")
    return here


def _at(detail: bounds.ToolDetail, uri: str) -> bounds.ToolDetail:
    if detail.locations == (uri,):
        return detail
    return msgspec.structs.replace(detail, locations=(uri,))


def lifetime(*, now: int, longest: int, ends: Iterable[int | None]) -> int:
    """Whole seconds that a token may live: at most `longest`, and not beyond any of the ends (microseconds).

    Raises InvalidGrant where that is less than one.
    """
    left = min((end - now for end in ends if end is not None), default=longest * SECOND)
    seconds = min(longest, left // SECOND)
    if seconds < 1:
        raise InvalidGrant("what the token would rest on ends within a second")
    return seconds

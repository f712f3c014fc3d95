"""What is true of a token: for which resource it is, what it may, how long it lives (RFC 6749, 8707, 9396, 9068).

Everything narrows: what is granted lies within what was asked, and that within what the task and the agent have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from ostiary.core import bounds
from ostiary.core.claims import InvalidScope, render_scope
from ostiary.core.errors import Malformed, Refused

SECOND = 1_000_000
KIND = "token"
"""Of which kind of holding a token is."""
MAX_URI = 2048
CLIENT_CREDENTIALS = "client_credentials"


class InvalidRequest(Malformed):
    """RFC 6749 section 5.2."""

    code = "invalid_request"


class InvalidGrant(Refused):
    """RFC 6749 section 5.2: what the token would rest on has ended, or is somebody else's."""

    code = "invalid_grant"


class InvalidTarget(Refused):
    """RFC 8707 section 2."""

    code = "invalid_target"


class UnsupportedGrantType(Refused):
    """RFC 6749 section 5.2."""

    code = "unsupported_grant_type"


class UnsupportedResponseType(Refused):
    """RFC 6749 section 4.1.2.1."""

    code = "unsupported_response_type"


class KeysDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="keys"):
    """What guards hear when our signing keys change: that they do."""


@dataclass(frozen=True, slots=True)
class Target:
    """The resource that a token is for; `name` is empty where nobody has registered it."""

    uri: str
    name: str = ""

    def owns(self, scope: str) -> bool:
        return resource_name(scope) == self.name


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
    """An absolute https URI without fragment: what may be named without being registered. Raises InvalidTarget."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or len(uri) > MAX_URI or not uri.isascii() or "#" in uri or parts.scheme != "https" or "@" in host:
        raise InvalidTarget("`resource` is neither registered nor an absolute https URI without fragment")


def narrow_scopes(
    asked: frozenset[str], *, agent: frozenset[str], task: frozenset[str], target: Target
) -> frozenset[str]:
    """The scopes that are granted: those asked for, or all that agent and task have at the target if none are asked.

    Raises InvalidScope when more is asked than both have, InvalidTarget for a scope of another resource.
    """
    held = agent & task
    if not asked:
        return frozenset(filter(target.owns, held))
    if extra := asked - held:
        who = "agent" if extra - agent else "task"
        raise InvalidScope(f"the {who} does not have {render_scope(extra)}", hint="ask for less, or let it be granted")
    if target.name and (foreign := frozenset(scope for scope in asked if not target.owns(scope))):
        raise InvalidTarget(f"not of the resource `{target.name}`: {render_scope(foreign)}", hint="ask for it apart")
    return asked


def narrow_details(
    asked: Iterable[bounds.ToolDetail], *, task: Iterable[bounds.ToolDetail], target: Target
) -> tuple[bounds.ToolDetail, ...]:
    """The bounds in the token: what was asked within those of the task, cut down to the target.

    A task without bounds is bounded by its scopes alone. Raises InvalidDetails when wider ones are asked or nothing of
    what is asked is at the target, InvalidTarget when the task's bounds do not reach the target: an empty result would
    stand for no bounds at all.
    """
    wanted, outer = tuple(asked), tuple(task)
    granted = bounds.narrow(outer, wanted) if outer else wanted
    here = tuple(_at(detail, target.uri) for detail in granted if target.uri in detail.locations)
    if granted and not here:
        if wanted:
            raise bounds.InvalidDetails("nothing that is asked for is at this resource", hint="see `locations`")
        raise InvalidTarget("the task does not reach this resource")
    return here


def _at(detail: bounds.ToolDetail, uri: str) -> bounds.ToolDetail:
    if detail.locations == (uri,):
        return detail
    return bounds.ToolDetail(locations=(uri,), actions=detail.actions, arguments=detail.arguments)


def lifetime(*, now: int, longest: int, ends: Iterable[int | None]) -> int:
    """Whole seconds that a token may live: at most `longest`, and not beyond any of the ends (microseconds).

    Raises InvalidGrant where that is less than one.
    """
    left = min((end - now for end in ends if end is not None), default=longest * SECOND)
    seconds = min(longest, left // SECOND)
    if seconds < 1:
        raise InvalidGrant("what the token would rest on ends within a second")
    return seconds

"""Routes: a route is the description of one operation of the HTTP interface, used by the server and by its
documentation.

Each package lists its routes in `ROUTES`; `ostiaryd.app` serves them, and `ostiaryd.openapi` describes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, NotRequired, TypedDict

from ostiary.protocol.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ostiaryd.ground.http.edge import Failed, Render, TooLarge, UnsupportedMediaType, Wire, render_admin


class ErrorBody(TypedDict):
    """A refusal of the administration API: a stable code, the error message, and the next step."""

    error: str
    message: str
    hint: NotRequired[str]


class EmptyBody(TypedDict):
    """A JSON object without members, as the body of an answer."""


@dataclass(frozen=True, slots=True)
class RouteProtocol:
    """The form in which one protocol, such as OAuth, renders refusals."""

    name: str
    render: Render
    error: Any
    """Type of the response body of a refusal."""
    other_media_types: tuple[str, ...] = ()
    """Further media types of refusals, for a protocol that responds in the format of the request."""
    refuses_methods: bool = False
    """True if a method that is not allowed is refused in this form. If false, it is refused in the form of the
    administration API.
    """
    parses_bodies: bool = False
    """True if the wire functions parse bodies themselves, so that `Call.json` needs no parsed value of a large body."""


ADMIN_API = RouteProtocol("Administration", render_admin, ErrorBody)


@dataclass(frozen=True, slots=True)
class Content:
    """A request or response body that is not JSON of one type."""

    type: Any = None
    """Type of the decoded body; None for text and bytes."""
    media_types: tuple[str, ...] = ("application/json",)
    example: Any = None
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class PageBody:
    """Type of a list in pages: `{kind: [row], "next": cursor or null}` (`ostiaryd.ground.http.pages`)."""

    kind: str
    row: Any


@dataclass(frozen=True, slots=True)
class Either:
    """A request body that may have one of two types."""

    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query string of a route, with its description and type."""

    name: str
    description: str
    type: Any = str
    is_required: bool = False


@dataclass(frozen=True)
class Route:
    """An operation of the HTTP interface: its method and path, the scope of its callers, its request body and its
    responses.
    """

    method: str
    path: str
    wire: Wire
    scope: str
    """Scope that the caller's token must have; empty for a route without authentication."""
    _: KW_ONLY
    protocol: RouteProtocol = ADMIN_API
    body: Any = None
    """Type of the JSON body, or a `Content`; None for a route that ignores its body."""
    query: tuple[Query, ...] = ()
    answers: Mapping[int, Any] = field(default_factory=dict)
    """Type of the JSON body, or a `Content`, of each response, by status; None for an empty body."""
    errors: tuple[Refused, ...] = ()
    """Examples of refusals that only this route has; `refusals` adds the common ones."""
    stops: bool = False
    """True for a route that only stops or restricts something, or confirms a stop: its jobs run before other waiting
    jobs.
    """
    reports: bool = False
    """True for a route by which a guard delivers its records. Within a rate of the guard, the jobs do not expire while
    they wait.
    """
    proves_in_act: bool = False
    """True if the wire function authenticates its caller inside its own act (`Call.prove`), which needs one commit
    instead of two.
    """
    verifies_ahead: bool = False
    """True if the gate only verifies the signatures of the credentials, and the one act of the wire function
    authenticates the caller: whether token, holder and scope are valid is decided there, on cached rows.
    """
    allows_people: bool = False
    """True if the route, which every authenticated caller may use, also accepts persons with a key."""
    allows_peps: bool = False
    """True if the route accepts the API key of a static PEP."""
    grants: bool = False
    """True if the route grants access. The route answers 503 `clock_unconfirmed` from a forward jump of the wall clock
    until an operator confirms the time (`ostiary clock accept`).
    """
    is_large: bool = False
    """True if authenticated callers may send a body of up to `max_request_bytes`; otherwise `SMALL_BODY`
    is the limit.
    """
    bounds_body: bool = False
    """True if the wire function itself refuses a body of more than `SMALL_BODY` bytes, in the form of its protocol and
    with an entry. It receives the beginning of such a body.
    """
    streams: bool = False
    """True if the response is sent while it is made."""
    area: str = ""
    """Area of the route in role policies; empty for the first segment of the path after `/api/v1`."""
    is_cross_origin: bool = False
    """True if scripts of every origin may send the request and read the response (CORS). The route must not accept
    cookies.
    """

    @cached_property
    def _documentation(self) -> tuple[str, str]:
        summary, _, rest = (self.wire.__doc__ or "").strip().partition("\n")
        return summary, re.sub(r"\n[ ]+", "\n", rest).strip()

    @property
    def summary(self) -> str:
        """Return the first line of the wire function's docstring: a sentence that describes the operation."""
        return self._documentation[0]

    @property
    def description(self) -> str:
        """Return the rest of the wire function's docstring."""
        return self._documentation[1]

    @property
    def parameters(self) -> list[str]:
        """Return the names of the parameters in the path."""
        return re.findall(r"{(\w+)", self.path)

    @property
    def refusals(self) -> tuple[Refused, ...]:
        """Return an example of each refusal that the route can raise."""
        added: list[Refused] = [*SAMPLES["always"]]
        if not self.bounds_body:
            added += SAMPLES["size"]
        if self.scope:
            added += SAMPLES["scope"]
        if self.parameters:
            added += SAMPLES["parameters"]
        if self.scope and self.method != "GET":
            added += SAMPLES["change"]
        if self.query or self.body is not None:
            added += SAMPLES["values"]
        if self.body is not None:
            added += SAMPLES["body"]
        return (*added, *self.errors)

    @cached_property
    def error_statuses(self) -> dict[int, list[Refused]]:
        """Return the examples of `refusals` by the status that the route's protocol gives them."""
        samples: dict[int, list[Refused]] = {}
        for refusal in self.refusals:
            samples.setdefault(self.protocol.render(refusal).status, []).append(refusal)
        return samples

    @property
    def statuses(self) -> frozenset[int]:
        """Return all status codes with which the route may respond."""
        return frozenset({*self.answers, *self.error_statuses})


CONFLICT = Conflict("the request contradicts the present state", hint="read the object and try again")
FORBIDDEN = Forbidden("the caller may not do this")
INVALID = Invalid("`limit` must be 1 to 1000")
NOT_FOUND = NotFound("not found")
SAMPLES: Mapping[str, tuple[Refused, ...]] = {
    "always": (
        Malformed("the query contains a null character (`%00`)"),
        Failed(),
        Unavailable("the server cannot answer now", hint="try again later"),
    ),
    "size": (TooLarge("the request body is over 65536 bytes", hint="send a smaller body"),),
    "scope": (
        Unauthenticated("not authenticated", hint="send `Authorization: DPoP` with a proof"),
        Forbidden(
            "the access token lacks the scope of this route",
            hint="request a token with the scope",
            code="insufficient_scope",
        ),
    ),
    "parameters": (NOT_FOUND, INVALID),
    "change": (CONFLICT, NOT_FOUND, INVALID),
    "values": (INVALID,),
    "body": (
        Malformed("Object missing required field `name`"),
        UnsupportedMediaType("the content type `text/plain` is not supported", hint="send application/json"),
    ),
}
"""Examples of refusals that routes have in common: of every route, of routes whose wire function does not check the
size of the body itself, and of routes with a scope, path parameters, a change, query values, or a body.
"""
FORM = ("application/x-www-form-urlencoded",)
TEXT = Content(media_types=("text/plain",))
PAGE = (
    Query("limit", "Maximum number of rows of the page: 1 to 1000, 100 by default.", int),
    Query("after", "The member `next` of the previous page."),
)
"""Query parameters of a list in pages (`ostiaryd.ground.http.pages`)."""

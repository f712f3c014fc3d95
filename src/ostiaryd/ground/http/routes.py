"""Routes: one value for each operation of the HTTP interface, for the server and for its documents.

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
    """A refusal of the administration API: a stable code, the error, and the next step."""

    error: str
    message: str
    hint: NotRequired[str]


class EmptyBody(TypedDict):
    """An object without members."""


@dataclass(frozen=True, slots=True)
class RouteProtocol:
    """The form in which one protocol writes its refusals."""

    name: str
    render: Render
    error: Any
    """Type of the body of a refusal."""
    other_media_types: tuple[str, ...] = ()
    """Media types of refusals besides that of `render`, for a protocol that answers in the format of the request."""
    refuses_methods: bool = False
    """True if a method that is not allowed is refused in this form, instead of that of the administration API."""


ADMIN_API = RouteProtocol("Administration", render_admin, ErrorBody)


@dataclass(frozen=True, slots=True)
class Content:
    """A body that is not plain JSON of one type."""

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
    """A body of one of two types."""

    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query string."""

    name: str
    description: str
    type: Any = str
    is_required: bool = False


@dataclass(frozen=True)
class Route:
    """An operation of the HTTP interface: its path, the scope of its callers, its body and its answers."""

    method: str
    path: str
    wire: Wire
    scope: str
    """Scope that the caller's token must have; "" for a route without authentication."""
    _: KW_ONLY
    protocol: RouteProtocol = ADMIN_API
    body: Any = None
    """Type of the JSON body, or a `Content`; None for a route that ignores its body."""
    query: tuple[Query, ...] = ()
    answers: Mapping[int, Any] = field(default_factory=dict)
    """Type of the JSON body, or a `Content`, by status; None for an empty body."""
    errors: tuple[Refused, ...] = ()
    """Samples of refusals that only this route has; `refusals` adds the common ones."""
    stops: bool = False
    """True for a route that only stops or narrows something, or confirms a stop: it overtakes queued writes."""
    proves_in_act: bool = False
    """True if the wire proves its caller in its own act (`Call.prove`): one commit instead of two."""
    spends_in_act: bool = False
    """True if the one act of the wire uses up the proof that the gate has checked: one commit instead of two."""
    allows_people: bool = False
    """True if people with a key may use a route that every authenticated caller may use."""
    allows_peps: bool = False
    """True if the API key of a static PEP is accepted."""
    grants: bool = False
    """True for a route that is refused while the wall clock is not confirmed."""
    is_large: bool = False
    """True if a body of `max_request_bytes` is accepted, from a proven caller, instead of `SMALL_BODY`."""
    bounds_body: bool = False
    """True if the wire refuses a body of more than `SMALL_BODY` bytes, in its protocol and with an entry. It gets the
    beginning of such a body.
    """
    streams: bool = False
    """True if the answer is sent while it is made."""
    area: str = ""
    """Area that role policies see; empty: the first part of the path after `/api/v1`."""
    is_cross_origin: bool = False
    """True if scripts of every origin may send the request and read the answer (CORS): no cookie counts there."""

    @cached_property
    def _documentation(self) -> tuple[str, str]:
        summary, _, rest = (self.wire.__doc__ or "").strip().partition("\n")
        return summary, re.sub(r"\n[ ]+", "\n", rest).strip()

    @property
    def summary(self) -> str:
        """Return one sentence on the operation: the first line of the docstring of its route function."""
        return self._documentation[0]

    @property
    def description(self) -> str:
        """Return the rest of that docstring."""
        return self._documentation[1]

    @property
    def parameters(self) -> list[str]:
        """Return the names of the parameters in the path."""
        return re.findall(r"{(\w+)", self.path)

    @property
    def refusals(self) -> tuple[Refused, ...]:
        """Return a sample of each refusal that the route can raise."""
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
        """Return the samples of `refusals` by the status that the protocol gives them."""
        samples: dict[int, list[Refused]] = {}
        for refusal in self.refusals:
            samples.setdefault(self.protocol.render(refusal).status, []).append(refusal)
        return samples

    @property
    def statuses(self) -> frozenset[int]:
        """Return every status that the route may answer with."""
        return frozenset({*self.answers, *self.error_statuses})


CONFLICT = Conflict("the request contradicts the present state", hint="read the object and try again")
FORBIDDEN = Forbidden("the caller may not do this")
INVALID = Invalid("`limit` must be 1 to 1000")
NOT_FOUND = NotFound("not found")
SAMPLES: Mapping[str, tuple[Refused, ...]] = {
    "always": (
        Malformed("the path or the query contains a null character"),
        Failed(),
        Unavailable("the server cannot answer now", hint="try again later"),
    ),
    "size": (TooLarge("the body is over 65536 bytes", hint="send less"),),
    "scope": (
        Unauthenticated("not authenticated", hint="send `Authorization: DPoP` with a proof"),
        Forbidden("this needs another scope", hint="request a token with that scope", code="insufficient_scope"),
    ),
    "parameters": (NOT_FOUND, INVALID),
    "change": (CONFLICT, NOT_FOUND, INVALID),
    "values": (INVALID,),
    "body": (
        Malformed("Object missing required field `name`"),
        UnsupportedMediaType("the content type is `text/plain`", hint="send application/json"),
    ),
}
"""Refusals of every route, and of routes whose wire does not bound the body, or with a scope, path parameters, a
change, values, or a body.
"""
FORM = ("application/x-www-form-urlencoded",)
TEXT = Content(media_types=("text/plain",))
PAGE = (
    Query("limit", "Rows of the page: 1 to 1000, 100 by default.", int),
    Query("after", "The `next` of the page before."),
)
"""Query parameters of a list in pages (`ostiaryd.ground.http.pages`)."""

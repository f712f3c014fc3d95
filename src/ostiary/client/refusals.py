"""The parser of refusals for all servers that this project calls: the API and the feed of Ostiary, and other
authorization servers.

An Ostiary server answers `{"error", "message", "hint"}`, an OAuth server `{"error", "error_description"}` (RFC 6749
section 5.2), and an AuthZEN decision point a JSON string (Authorization API 1.0 section 10.1.2). A proxy in between
may answer in another form; then the refusal states only the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed, Refused, Unavailable

MAX_TEXT = 500
"""Maximum number of characters of a message or a hint; longer texts are cut."""
MAX_CODE = 64
"""Maximum number of characters of an error code."""


def read_object(content: bytes) -> Mapping[str, Any]:
    """Return the JSON object in `content`; an empty object if `content` is not a JSON object."""
    try:
        body = canonical.parse(content)
    except Malformed:
        return {}
    return body if isinstance(body, dict) else {}


def parse_refusal(status: int, content: bytes, *, kind: type[Refused], code: str = "refused") -> Refused:
    """Return the refusal that a response states, as an error of the class `kind`; from status 500 on, as Unavailable.

    `code`: the error code if the response states none.
    """
    body = read_object(content) or {"message": _read_string(content)}
    message = _text(body, "message") or _text(body, "error_description") or f"HTTP {status}"
    return (Unavailable if status >= 500 else kind)(
        message, hint=_text(body, "hint"), code=_text(body, "error")[:MAX_CODE] or code
    )


def _read_string(content: bytes) -> str:
    try:
        body = canonical.parse(content)
    except Malformed:
        return ""
    return body if isinstance(body, str) else ""


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value[:MAX_TEXT] if isinstance(value, str) else ""

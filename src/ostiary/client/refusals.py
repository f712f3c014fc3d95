"""The one parser of refusals, for all servers that this project calls: our API, feeds, and authorization servers.

Our server answers `{"error", "message", "hint"}`, an OAuth server `{"error", "error_description"}` (RFC 6749 section
5.2), and an AuthZEN decision point a JSON string (Authorization API 1.0 section 10.1.2). An answer of a program
between them may have none of these forms. Then the refusal states the status alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed, Refused, Unavailable

MAX_TEXT = 500
"""Characters of a message or a hint; the rest is cut off."""
MAX_CODE = 64
"""Characters of an error code."""


def read_object(content: bytes) -> Mapping[str, Any]:
    """Return the JSON object in `content`; an empty one if there is none."""
    try:
        body = canonical.parse(content)
    except Malformed:
        return {}
    return body if isinstance(body, dict) else {}


def parse_refusal(
    status: int, content: bytes, *, kind: type[Refused], code: str = "refused", server_kind: type[Refused] = Unavailable
) -> Refused:
    """Return the refusal that a response states: a `kind`, or a `server_kind` from status 500 on.

    `code`: the error code if the response states none.
    """
    body = read_object(content) or {"message": _read_string(content)}
    message = _text(body, "message") or _text(body, "error_description") or f"HTTP {status}"
    return (server_kind if status >= 500 else kind)(
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

"""Signed links in alerts to the page of an approval request: `/alerts/ID.END.MAC`.

The MAC proves that this server made the link; the link expires with the approval request. A link gives no access: the
page requires a login, and an answer requires the person's rights.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from ostiary.protocol.errors import NotFound
from ostiary.protocol.jose import b64u

PURPOSE = "alert link"
"""Purpose from which the secret that signs links is derived."""
SECOND = 1_000_000
_TOKEN = re.compile(r"(ap_[0-9a-f]{32})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


def sign_link(approval: str, *, ends_at: int, secret: bytes) -> str:
    """Return the path segment `ID.END.MAC` of a link to an approval request that ends at `ends_at` (microseconds since
    the epoch).
    """
    text = f"{approval}.{ends_at // SECOND}"
    return f"{text}.{_mac(text, secret)}"


def parse_link(unverified_token: str, *, now: int, secret: bytes) -> str:
    """Return the id of the approval request in a link's token. Raises NotFound if this server did not sign the token,
    or the end time of the approval request is past.
    """
    match = _TOKEN.fullmatch(unverified_token)
    text = f"{match[1]}.{match[2]}" if match else ""
    is_ours = hmac.compare_digest(_mac(text, secret), match[3] if match else "")
    hint = "open the console to see the open approval requests"
    if match is None or not is_ours:
        raise NotFound("the link is incomplete, or this server did not sign it", hint=hint, code="alert_link_ended")
    if now >= int(match[2]) * SECOND:
        raise NotFound("the approval request of the link has expired", hint=hint, code="alert_link_ended")
    return match[1]


def _mac(text: str, secret: bytes) -> str:
    return b64u(hmac.digest(secret, text.encode(), sha256))

"""Codes of an authenticator app: TOTP (RFC 6238) with HMAC-SHA-1, six digits, steps of 30 seconds."""

from __future__ import annotations

import hmac
from base64 import b32encode
from urllib.parse import quote, urlencode

from ostiaryd.trust.model import SECOND

SECRET_BYTES = 20
STEP = 30 * SECOND
DIGITS = 6
DRIFT = 1
"""Maximum number of time steps by which the clock of the app may be ahead or behind (RFC 6238 section 5.2)."""


def hotp(secret: bytes, counter: int) -> str:
    """Return the code for a secret and a counter (RFC 4226 section 5.3)."""
    digest = hmac.digest(secret, counter.to_bytes(8), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def match_code(secret: bytes, unverified_code: str, *, now: int, last_step: int) -> int | None:
    """Return the time step to which a code belongs, if the code is right for that step. Return None for a wrong code,
    and if the step is not later than `last_step`, the step of the last accepted code.
    """
    code = "".join(unverified_code.split()).encode()
    present = now // STEP
    matching = [
        step
        for step in range(present - DRIFT, present + DRIFT + 1)
        if hmac.compare_digest(hotp(secret, step).encode(), code) and step > last_step
    ]
    return min(matching, default=None)


def render_uri(secret: bytes, *, issuer: str, name: str) -> str:
    """Return the `otpauth` URI that transfers a secret to an app, as text for a QR code."""
    query = urlencode({"secret": render_secret(secret), "issuer": issuer, "digits": DIGITS, "period": STEP // SECOND})
    return f"otpauth://totp/{quote(issuer)}:{quote(name)}?{query}"


def render_secret(secret: bytes) -> str:
    """Return a secret in Base32, for a person to type into an app."""
    return b32encode(secret).decode().rstrip("=")

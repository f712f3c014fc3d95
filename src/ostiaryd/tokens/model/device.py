"""Device authorization (RFC 8628): user codes that people type, and the state of a request."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ostiaryd.tokens.model.authorization import AuthorizationRequest
from ostiaryd.tokens.model.grants import SECOND

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""Letters of user codes: no vowels, so no words (section 6.1)."""
USER_CODE_LETTERS = 8
DEVICE_S = 600
"""Lifetime of a device code, in seconds."""
DEVICE_INTERVAL_S = 5


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device authorization request. `device` is the digest of the device code; times are in microseconds."""

    device: str
    user_code: str
    client_id: str
    request: AuthorizationRequest
    interval_s: int
    expires_at: int
    polled_at: int = 0
    answered_at: int | None = None
    code: str | None = None
    """Database key of the authorization code that the person's consent created. None before the answer, and if the
    person denied.
    """

    @property
    def created_at(self) -> int:
        """Return the time of the request, in microseconds."""
        return self.expires_at - DEVICE_S * SECOND


def make_user_code(random: Callable[[int], bytes]) -> str:
    """Return a new user code with about 34.6 bits of randomness, without separator. `random(n)` returns n bytes."""
    letters = ""
    while len(letters) < USER_CODE_LETTERS:
        byte = random(1)[0]
        if byte < 240:  # a multiple of the size of the alphabet, so that each letter is as probable as any other
            letters += ALPHABET[byte % len(ALPHABET)]
    return letters


def render_user_code(code: str) -> str:
    """Return a user code as people read it: `WDJB-MJHT`."""
    return f"{code[:4]}-{code[4:]}"


def read_user_code(text: str) -> str:
    """Return the user code that a person typed, in capitals without separators; empty if the text cannot be a
    user code.
    """
    letters = "".join(letter for letter in text.upper() if letter.isalpha())
    return letters if len(letters) == USER_CODE_LETTERS and set(letters) <= set(ALPHABET) else ""

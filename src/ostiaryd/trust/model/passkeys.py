"""Passkeys: the public key of a WebAuthn credential, and the challenge of a registration or login.

A challenge contains a MAC over the browser and the kind of ceremony (registration or login), so the server need not
store the challenges of unauthenticated callers. A challenge can be used once: `trust.store.proofs.spend` stores used
challenges.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Literal, NamedTuple

from ostiary.protocol.errors import Forbidden
from ostiaryd.trust.model import DIGEST_BYTES, SECOND, Spend

MAX_PASSKEYS = 20
MAX_PASSKEY_NAME = 64
MAX_CREDENTIAL = 16 << 10
CHALLENGE_LIFETIME = 600 * SECOND
_NONCE, _TAG = 16, 32
Ceremony = Literal["create", "get"]


class PasskeyRefused(Forbidden):
    """The response of an authenticator is not valid, or belongs to another browser or an earlier page."""

    code = "passkey_refused"

    def __init__(self, message: str = "the passkey was not accepted") -> None:
        super().__init__(message, hint="reload the page and try again")


class Passkey(NamedTuple):
    """A registered passkey. `id` is the credential id in Base64url, `public_key` a COSE key. Times are in
    microseconds.
    """

    id: str
    person: str
    name: str
    public_key: bytes
    sign_count: int
    transports: str
    added_at: int
    used_at: int | None


def make_challenge(
    secret: bytes, ceremony: Ceremony, browser: str, *, now: int, random: Callable[[int], bytes]
) -> bytes:
    """Return a new challenge for one registration or login in one browser."""
    head = now.to_bytes(8) + random(_NONCE)
    return head + _tag(secret, ceremony, browser, head)


def check_challenge(secret: bytes, ceremony: Ceremony, browser: str, unverified: bytes, *, now: int) -> Spend:
    """Check that this server made a challenge for this kind of ceremony and this browser, at most a limited time ago.
    Return its digest and expiry, so that the caller marks it as used. Raises PasskeyRefused for an expired challenge,
    and for one of another browser or kind.
    """
    head, tag = unverified[: 8 + _NONCE], unverified[8 + _NONCE :]
    if not hmac.compare_digest(tag, _tag(secret, ceremony, browser, head)):
        raise PasskeyRefused("the page was made for another browser")
    made = int.from_bytes(head[:8])
    until = made + CHALLENGE_LIFETIME
    if now >= until:
        raise PasskeyRefused("the page has expired")
    return Spend(sha256(b"challenge" + unverified).digest()[:DIGEST_BYTES], until, made)


def _tag(secret: bytes, ceremony: Ceremony, browser: str, head: bytes) -> bytes:
    return hmac.digest(secret, f"{ceremony} {browser} ".encode() + head, "sha256")[:_TAG]

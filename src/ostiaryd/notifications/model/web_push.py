"""Web Push: the encryption of a message to a browser (RFC 8291, RFC 8188), and the proof of the sender (RFC 8292).

The push service of the browser's vendor transports the message and cannot read it. The server authenticates to the push
service by VAPID. The VAPID key is derived from the server's keyring and is not stored.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import NewType
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u

SubscriptionId = NewType("SubscriptionId", str)
PURPOSE = "web push"
"""Purpose from which the secret of the VAPID key is derived."""
MAX_OF_PERSON = 10
RECORD_SIZE = 4096
MAX_PLAIN = RECORD_SIZE - 17 - 86
"""Maximum number of bytes of a message before encryption: every push service accepts 4,096 bytes, including header and
tag (RFC 8291 section 4).
"""
AUTH_BYTES, POINT_BYTES, SALT_BYTES = 16, 65, 16
VAPID_LIFE_S = 12 * 3600
"""Lifetime of the VAPID token in seconds; push services accept at most 24 hours (RFC 8292 section 2)."""
MAX_TTL_S = 86_400
SECOND = 1_000_000
PAUSE_S = 10
"""Minimum seconds between two messages to a browser; the second message covers all requests in between."""
PUSH_TRY_S = 15
DELAYS_S = (5, 30, 60)
"""Seconds between the attempts to send a message; the last attempt follows the last delay."""
LONGEST_DELAY_S = 3600
GONE = (404, 410)
"""HTTP statuses with which a push service says that the subscription no longer exists (RFC 8030 section 7.3)."""
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the curve P-256."""


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that gets push messages for a person.

    `next_idx` is the index of the first ledger entry that the subscription has not handled. `attempts` and `due_at`
    (time of the next attempt) belong to the present message. `busy_until` is the end of the delivering process's claim.
    Times are microseconds since the epoch.
    """

    subscription_id: SubscriptionId
    person: str
    endpoint: str
    public_key: bytes
    auth: bytes
    browser: str
    created_at: int
    next_idx: int
    attempts: int = 0
    due_at: int = 0
    busy_until: int = 0


class PushMessage(msgspec.Struct, frozen=True):
    """The message that the service worker shows. `page` is the path below `/console/` that a click opens."""

    title: str
    body: str
    page: str


def parse_browser_keys(p256dh: str, auth: str) -> tuple[bytes, bytes]:
    """Return the public key and the authentication secret of a browser (Push API, `PushEncryptionKeyName`), from
    base64url. Raises Invalid for other text.
    """
    try:
        point = unb64u(p256dh)
        if len(point) != POINT_BYTES:
            raise ValueError
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except (ValueError, Malformed):
        raise Invalid("`keys.p256dh` must be an uncompressed point of P-256, in base64url") from None
    try:
        secret = unb64u(auth)
    except Malformed:
        secret = b""
    if len(secret) != AUTH_BYTES:
        raise Invalid(f"`keys.auth` must have {AUTH_BYTES} bytes, in base64url")
    return point, secret


def encrypt_message(plain: bytes, *, public_key: bytes, auth: bytes, secret: bytes, salt: bytes) -> bytes:
    """Return the encrypted body of a message: one record in the coding `aes128gcm` (RFC 8291 section 4, RFC 8188
    section 2).

    `public_key` and `auth` belong to the browser. `secret` is 32 random bytes, from which the key of only this message
    is derived; `salt` is random, too.
    """
    if len(plain) > MAX_PLAIN:
        raise ValueError(f"a push message must have at most {MAX_PLAIN} bytes, not {len(plain)}")
    own = _private_key(secret)
    own_point = _point(own)
    browser = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    shared = own.exchange(ec.ECDH(), browser)
    input_key = _expand(_mac(auth, shared), b"WebPush: info\0" + public_key + own_point, 32)
    mixed = _mac(salt, input_key)
    key, nonce = _expand(mixed, b"Content-Encoding: aes128gcm\0", 16), _expand(mixed, b"Content-Encoding: nonce\0", 12)
    header = salt + RECORD_SIZE.to_bytes(4, "big") + bytes([POINT_BYTES]) + own_point
    return header + AESGCM(key).encrypt(nonce, plain + b"\x02", b"")


def sender_key(secret: bytes) -> str:
    """Return the public VAPID key of the server in base64url, which browsers need as `applicationServerKey`."""
    return b64u(_point(_private_key(secret)))


def sender_headers(secret: bytes, endpoint: str, *, contact: str, now: int, ttl_s: int) -> dict[str, str]:
    """Return the HTTP headers of a message to an endpoint: the VAPID token, the content coding, the lifetime and the
    urgency (RFC 8030, RFC 8292).

    `secret`: the source of the VAPID key. `contact`: URI of the operator. `now`: microseconds since the epoch. `ttl_s`:
    seconds for which the push service keeps the message, at most `MAX_TTL_S`.
    """
    parts = urlsplit(endpoint)
    claims = {"aud": f"{parts.scheme}://{parts.netloc}", "exp": now // SECOND + VAPID_LIFE_S, "sub": contact}
    private = _private_key(secret)
    numbers = private.private_numbers()
    point = numbers.public_numbers
    key = jose.parse_private_jwk(
        {
            "kty": "EC",
            "crv": "P-256",
            "x": b64u(point.x.to_bytes(32, "big")),
            "y": b64u(point.y.to_bytes(32, "big")),
            "d": b64u(numbers.private_value.to_bytes(32, "big")),
        },
        is_sound=True,
    )
    protected = jose.protect({"typ": "JWT", "alg": "ES256"})
    token = jose.sign_jws(key, protected=protected, payload=msgspec.json.encode(claims))
    return {
        "authorization": f"vapid t={token}, k={b64u(_point(private))}",
        "content-type": "application/octet-stream",
        "content-encoding": "aes128gcm",
        "ttl": str(max(0, min(ttl_s, MAX_TTL_S))),
        "urgency": "high",
    }


def after_failed_attempt(subscription: Subscription, *, now: int, retry_after_s: int) -> Subscription | None:
    """Return the subscription after a failed attempt, with the time of the next attempt; None if this was the last
    attempt. `retry_after_s`: the delay that the push service asks for.
    """
    if subscription.attempts >= len(DELAYS_S):
        return None
    delay = max(DELAYS_S[subscription.attempts], min(retry_after_s, LONGEST_DELAY_S))
    due = now + delay * SECOND
    return msgspec.structs.replace(subscription, attempts=subscription.attempts + 1, due_at=due, busy_until=0)


def after_push(subscription: Subscription, *, through: int, now: int) -> Subscription:
    """Return the subscription after the message about the entries up to `through` was accepted, or after its last
    attempt failed.
    """
    due = now + PAUSE_S * SECOND
    return msgspec.structs.replace(subscription, next_idx=through + 1, attempts=0, due_at=due, busy_until=0)


def _private_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret, "big") % (_ORDER - 1) + 1, ec.SECP256R1())


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, sha256)


def _expand(key: bytes, info: bytes, size: int) -> bytes:
    """Return the first `size` bytes of HKDF-Expand (RFC 5869), limited to one block."""
    return _mac(key, info + b"\x01")[:size]

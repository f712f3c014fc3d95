"""Envelope encryption: each value is encrypted with its own data key, and each data key with a wrapping key.

Values, data keys and wrapping keys are encrypted by AES-256-GCM. The associated data binds a ciphertext to its place,
so a ciphertext that is moved to another place cannot be decrypted. A key of the keyring encrypts the wrapping keys.
While the secrets are sealed, the unseal key encrypts the wrapping keys instead (HPKE, RFC 9180); the server has only
the public part of the unseal key.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Malformed, Refused

KEY_BYTES = 32
NONCE_BYTES = 12
NUMBER_BYTES = 4
PURPOSE = "secret wrapping key"
"""Purpose for which the key that encrypts wrapping keys is derived from the keyring."""
_UNNUMBERED = NONCE_BYTES + KEY_BYTES + 16
"""Number of bytes of an encrypted data key in the old format, without the number of its wrapping key. A key of the
keyring encrypted such data keys directly; this key counts as wrapping key 0.
"""
_UNSEAL = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

Place = tuple[str, str, int]
"""The place of a value: mount, path and version."""
Random = Callable[[int], bytes]


class Envelope(NamedTuple):
    """An encrypted value with its encrypted data key. The encrypted data key begins with the number of the wrapping
    key; without a number (an old format), the wrapping key is 0.
    """

    wrapped_key: bytes
    sealed: bytes

    @property
    def key_number(self) -> int:
        """Return the number of the wrapping key."""
        if len(self.wrapped_key) <= _UNNUMBERED:
            return 0
        return int.from_bytes(self.wrapped_key[:NUMBER_BYTES])


class WrappingKey(NamedTuple):
    """A decrypted wrapping key."""

    number: int
    key: bytes

    def __repr__(self) -> str:
        """Return only the number: the key is secret."""
        return f"WrappingKey({self.number})"


class DataKey(NamedTuple):
    """A new data key for one value: the key, its encrypted form, and the place of the value (mount, path and version),
    for which alone the value can be decrypted.
    """

    wrapped_key: bytes
    key: bytes
    place: Place

    def __repr__(self) -> str:
        """Return only the place: the key is secret."""
        return f"DataKey({self.place})"


def make_data_key(*, under: WrappingKey, place: Place, random: Random) -> DataKey:
    """Return a new data key for one value at `place` (mount, path and version), together with the data key in encrypted
    form, under the wrapping key `under`.
    """
    key = random(KEY_BYTES)
    wrapped = _encrypt(under.key, key, _associated_data(place), random)
    return DataKey(under.number.to_bytes(NUMBER_BYTES) + wrapped, key, place)


def seal_under(data_key: DataKey, plain: bytes, *, random: Random) -> Envelope:
    """Return a value, encrypted with a data key. A data key must be used for one value only."""
    return Envelope(data_key.wrapped_key, _encrypt(data_key.key, plain, _associated_data(data_key.place), random))


def open_value(envelope: Envelope, *, under: WrappingKey, place: Place) -> bytes:
    """Return the decrypted value of an envelope. `under`: the wrapping key whose number the envelope states. Raises
    Conflict if the envelope was made for another `place` (mount, path and version) or was changed.
    """
    bound = _associated_data(place)
    wrapped = envelope.wrapped_key[NUMBER_BYTES if under.number else 0 :]
    try:
        return _decrypt(_decrypt(under.key, wrapped, bound), envelope.sealed, bound)
    except (InvalidTag, ValueError):  # ValueError: the ciphertext is shorter than a nonce
        raise damaged() from None


def damaged() -> Conflict:
    """Return the error for a stored value that cannot be decrypted."""
    return Conflict(
        "a stored secret cannot be decrypted: it was changed, or another server stored it",
        hint="restore the database and the root key from the same backup",
    )


def close_key(key: WrappingKey, *, under: bytes, random: Random) -> bytes:
    """Return a wrapping key, encrypted with the key `under`, which is derived from the server's root key."""
    return _encrypt(under, key.key, _key_context(key.number), random)


def open_key(number: int, sealed: bytes, *, under: bytes) -> WrappingKey:
    """Return the wrapping key with this number, decrypted from `sealed` with the key `under`, which is derived from the
    server's root key. Raises Conflict if `sealed` cannot be decrypted.
    """
    try:
        return WrappingKey(number, _decrypt(under, sealed, _key_context(number)))
    except (InvalidTag, ValueError):
        raise damaged() from None


def lock_key(key: WrappingKey, *, public: bytes) -> bytes:
    """Return a wrapping key, encrypted for the unseal key whose public part is `public`. Raises Invalid if `public` is
    a weak point, which is the public key of no unseal key.
    """
    try:
        return _UNSEAL.encrypt(key.key, X25519PublicKey.from_public_bytes(public), info=_key_context(key.number))
    except ValueError:  # a point of low order: anyone could compute the shared secret
        raise Invalid("`unseal_public_key` is not the public key of any unseal key") from None


def unlock_key(number: int, locked: bytes, *, unseal_key: bytes) -> WrappingKey:
    """Return a wrapping key that `lock_key` has encrypted, decrypted with the unseal key. Raises Conflict if `locked`
    was changed, or was encrypted for another unseal key.
    """
    private = X25519PrivateKey.from_private_bytes(unseal_key)
    try:
        return WrappingKey(number, _UNSEAL.decrypt(locked, private, info=_key_context(number)))
    except (InvalidTag, ValueError):
        raise damaged() from None


def decode_key(text: str, *, field: str) -> bytes:
    """Return the bytes of a key in base64url. `field`: the name of the member in the error message. Raises Malformed
    for other text; the message does not contain the text.
    """
    try:
        return jose.unb64u(text)
    except Refused:
        raise Malformed(f"`{field}` is not base64url") from None


def check_unseal_key(unverified_key: bytes, *, public: bytes) -> bytes:
    """Return the unseal key if its public part is `public`. Raises Forbidden otherwise."""
    if len(unverified_key) == KEY_BYTES:
        shown = X25519PrivateKey.from_private_bytes(unverified_key).public_key().public_bytes_raw()
        if shown == public:  # public keys are compared, so the time of the comparison reveals no secret
            return unverified_key
    raise Forbidden(
        "the unseal key is wrong",
        hint=f"the fingerprint of the right unseal key is {fingerprint(public)}",
        code="wrong_unseal_key",
    )


def fingerprint(public: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a public key, so that people can compare keys."""
    return sha256(public).hexdigest()[:16]


def _key_context(number: int) -> bytes:
    return f"wrapping key of secrets|{number}".encode()


def _associated_data(place: Place) -> bytes:
    return b"ostiary secret " + msgspec.json.encode(place)


def _encrypt(key: bytes, plain: bytes, bound: bytes, random: Random) -> bytes:
    nonce = random(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def _decrypt(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)

"""Envelope encryption: each value under a data key of its own, each data key under a key of the keyring.

Both are AES-256-GCM. The associated data binds a ciphertext to its place, so no stored value opens at another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.protocol.errors import Conflict

KEY_BYTES = 32
NONCE_BYTES = 12
PURPOSE = "secret wrapping key"
"""Purpose of the key of the keyring under which data keys are wrapped."""


class Envelope(NamedTuple):
    """A wrapped data key, and the value that is encrypted under the data key."""

    wrapped_key: bytes
    sealed: bytes


def seal_value(
    plain: bytes, *, wrapping_key: bytes, place: tuple[str, str, int], random: Callable[[int], bytes]
) -> Envelope:
    """Return the envelope of a value at a place: mount, path and version."""
    data_key = random(KEY_BYTES)
    bound = _associated_data(place)
    return Envelope(_encrypt(wrapping_key, data_key, bound, random), _encrypt(data_key, plain, bound, random))


def open_value(envelope: Envelope, *, wrapping_key: bytes, place: tuple[str, str, int]) -> bytes:
    """Return the value of an envelope. Raises Conflict if the envelope is of another place, or was changed."""
    bound = _associated_data(place)
    try:
        return _decrypt(_decrypt(wrapping_key, envelope.wrapped_key, bound), envelope.sealed, bound)
    except (InvalidTag, ValueError):  # ValueError: shorter than a nonce
        raise Conflict(
            "a stored secret does not open: it was changed, or is of another server",
            hint="restore the database and the root key from the same backup",
        ) from None


def _associated_data(place: tuple[str, str, int]) -> bytes:
    return b"ostiary secret " + msgspec.json.encode(place)


def _encrypt(key: bytes, plain: bytes, bound: bytes, random: Callable[[int], bytes]) -> bytes:
    nonce = random(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def _decrypt(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)

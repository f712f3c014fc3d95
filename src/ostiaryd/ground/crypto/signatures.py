"""Signatures that were verified before the act that relies on them.

The cache holds mathematical facts: this key made this signature of this text, or did not. No change of a key's state
makes such a fact untrue. The act itself decides which key must have signed, from the keys that are valid at its time; a
result for another key has no effect there.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.protocol.jose import InvalidToken, PublicKey

MOST = 4096
"""minimum number of results, and of keys, that are remembered; the maximum is twice as large"""


class Signed(NamedTuple):
    """A text and its unverified signature by a key."""

    key: PublicKey
    unverified_signature: bytes
    text: bytes

    @property
    def name(self) -> tuple[str, str, bytes, bytes]:
        """Return the key of the result in the cache."""
        return self.key.thumbprint, self.key.alg, self.unverified_signature, self.text

    def verify(self) -> InvalidToken | None:
        """Return None for a valid signature, otherwise the error that `PublicKey.verify` raises."""
        try:
            self.key.verify(self.unverified_signature, self.text)
        except InvalidToken as error:
            return error
        return None


class Signatures:
    """Results of verifications, each used once, and the keys with which clients have authenticated lately."""

    def __init__(self) -> None:
        self._new: dict[tuple[str, str, bytes, bytes], InvalidToken | None] = {}
        self._old = self._new.copy()
        self._keys: dict[str, PublicKey] = {}

    def add(self, signed: Signed, error: InvalidToken | None) -> None:
        """Remember a result until it is used, or until MOST newer results have come."""
        if len(self._new) >= MOST:
            self._old, self._new = self._new, {}
        self._new[signed.name] = error

    def check(self, key: PublicKey, signature: bytes, text: bytes) -> None:
        """Raise InvalidToken if `key` did not make the signature. Consumes the remembered result, or verifies
        without one.
        """
        if not self._new and not self._old:
            return key.verify(signature, text)
        name = Signed(key, signature, text).name
        for results in (self._new, self._old):
            if name in results:
                if (error := results.pop(name)) is not None:
                    raise InvalidToken(error.message)
                return None
        return key.verify(signature, text)

    def learn(self, key: PublicKey) -> None:
        """Remember a key with which a client has authenticated."""
        if len(self._keys) >= 2 * MOST:
            self._keys = {}
        self._keys[key.kid] = key

    def key(self, kid: object) -> PublicKey | None:
        """Return the key that was last remembered under that `kid`: a guess at the signer, never a proof."""
        return self._keys.get(kid) if isinstance(kid, str) else None

"""A cache of verified signatures, for verification before the act that relies on them.

A result states that a key did or did not make a signature of a text; later changes of the key's state do not affect
this. The act decides which key must have signed, from the keys that are valid at the time of the act. A cached result
for another key is not used.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.protocol.jose import InvalidToken, PublicKey

MOST = 4096
"""Minimum number of cached results and of cached keys; the maximum is twice as large."""


class Signed(NamedTuple):
    """A text, its unverified signature, and the key that should have made the signature."""

    key: PublicKey
    unverified_signature: bytes
    text: bytes

    @property
    def name(self) -> tuple[str, str, bytes, bytes]:
        """Return the value under which `Signatures` caches the result: key, algorithm, signature and text."""
        return self.key.thumbprint, self.key.alg, self.unverified_signature, self.text

    def verify(self) -> InvalidToken | None:
        """Verify the signature. Return None if it is valid, otherwise the error that `PublicKey.verify` raises."""
        try:
            self.key.verify(self.unverified_signature, self.text)
        except InvalidToken as error:
            return error
        return None


class Signatures:
    """A cache of signature verifications: results, each used at most once, and the keys with which clients have
    authenticated recently.
    """

    def __init__(self) -> None:
        self._new: dict[tuple[str, str, bytes, bytes], InvalidToken | None] = {}
        self._old = self._new.copy()
        self._keys: dict[str, PublicKey] = {}

    def add(self, signed: Signed, error: InvalidToken | None) -> None:
        """Store the result of a verification (`error` is None for a valid signature) until it is used, or until at
        least `MOST` newer results are stored.
        """
        if len(self._new) >= MOST:
            self._old, self._new = self._new, {}
        self._new[signed.name] = error

    def check(self, key: PublicKey, signature: bytes, text: bytes) -> None:
        """Check that `key` made the signature of the text: use and remove the cached result of `add`, or, if there is
        none, verify the signature now. Raises InvalidToken if the signature is not valid.
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
        """Store a public key with which a client has authenticated, so that the method `key` returns it."""
        if len(self._keys) >= 2 * MOST:
            self._keys = {}
        self._keys[key.kid] = key

    def key(self, kid: object) -> PublicKey | None:
        """Return the newest stored key with this `kid`; None if there is none. The key is only a guess at the signer:
        the caller must check that it belongs to the client.
        """
        return self._keys.get(kid) if isinstance(kid, str) else None

"""Proofs at a guard: DPoP (RFC 9449 sections 4.3 and 9) with the guard's own nonces; each proof is accepted once.

The guard creates the secret key of its nonces when it starts. A proof for another guard, or from before a restart,
therefore contains a nonce that is refused, and the list of used proofs need not survive a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from ostiary.protocol import dpop
from ostiary.protocol.errors import Unauthenticated, Unavailable

NONCE_LIFETIME_US = 300_000_000
MAX_REMEMBERED = 1_000_000
"""Maximum number of used proofs that are remembered, each for two minutes; beyond that, the guard refuses requests."""


class NonceNeeded(dpop.UseNonce):
    """The proof needs a nonce of the guard; the error has the nonce to use."""

    def __init__(self, nonce: str) -> None:
        super().__init__(
            "the DPoP proof needs a nonce of this server",
            hint="repeat the request with a new proof that has the nonce in `DPoP-Nonce` of this answer",
        )
        self.nonce = nonce


class Proofs:
    """The nonces of a guard, and the memory of used proofs. Thread-safe."""

    def __init__(self, *, secret: bytes, now: Callable[[], int], limit: int = MAX_REMEMBERED) -> None:
        self._secret, self._now, self._limit = secret, now, limit
        self._used: dict[bytes, int] = {}
        self._mutex = threading.Lock()

    def nonce(self) -> str:
        """Return a new DPoP nonce of this guard, which a client puts into its next proof."""
        return dpop.make_nonce(self._secret, b"rs", self._now())

    def check(self, unverified_proof: str, *, method: str, uri: str, access_token: str, jkt: str) -> str | None:
        """Check a DPoP proof by the key with the thumbprint `jkt`, and mark the proof as used. Return a new nonce for
        the client if half the lifetime of the proof's nonce has passed, otherwise None.

        Raises InvalidProof for an invalid or used proof, NonceNeeded for a proof without a current nonce, Unavailable
        if the memory of used proofs is full.
        """
        now = self._now()
        nonce: str | None = None

        def is_fresh(sent_nonce: str | None) -> bool:
            nonlocal nonce
            nonce = sent_nonce
            return dpop.is_fresh_nonce(self._secret, b"rs", sent_nonce, now, NONCE_LIFETIME_US)

        try:
            proof = dpop.check_proof(
                unverified_proof, method=method, uri=uri, now=now, nonces=is_fresh, access_token=access_token, jkt=jkt
            )
        except dpop.UseNonce:
            raise NonceNeeded(self.nonce()) from None
        with self._mutex:
            self._use(proof.digest, until=proof.iat + dpop.WINDOW)
        is_young = dpop.is_fresh_nonce(self._secret, b"rs", nonce, now, NONCE_LIFETIME_US // 2)
        return None if is_young else self.nonce()

    def _use(self, digest: bytes, *, until: int) -> None:
        """Record a proof as used until the time `until` (microseconds). Raises InvalidProof if the proof was used
        before, or if `until` has passed, because used proofs of that age are no longer remembered.
        """
        used, now = self._used, self._now()
        hint = "make a new proof for each request"
        if digest in used:
            raise dpop.InvalidProof("the DPoP proof was used before", hint=hint)
        if until < now:
            raise dpop.InvalidProof("the DPoP proof was made too long ago", hint=hint)
        while used and used[oldest := next(iter(used))] < now:
            del used[oldest]
        if len(used) >= self._limit:
            raise Unavailable("too many requests: the memory of used DPoP proofs is full", hint="try again in a minute")
        used[digest] = until


def access_token(authorization: str | None) -> tuple[Literal["bearer", "dpop"], str]:
    """Return the scheme and the token of an `Authorization` header. Raises Unauthenticated for an empty or malformed
    header.
    """
    if authorization is None:
        raise _nothing_sent()
    scheme, _, token = authorization.partition(" ")
    token = token.strip(" ")
    if token and scheme.lower() == "bearer":
        return "bearer", token
    if token and scheme.lower() == "dpop":
        return "dpop", token
    raise _nothing_sent()


def _nothing_sent() -> Unauthenticated:
    return Unauthenticated(
        "the request has no access token", hint="send `Authorization: DPoP ..` with a DPoP proof", code="no_credentials"
    )

"""Possession of a key, shown by a DPoP proof with a nonce of this server (RFC 9449), and protection against replay."""

from __future__ import annotations

import msgspec

from ostiary.authorization.claims import Confirmation
from ostiary.protocol import dpop
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ledger.flows import Act
from ostiaryd.trust import store
from ostiaryd.trust.model import SECOND, InvalidClient, NonceNeeded, Spend, spend_of


class Possession(msgspec.Struct, frozen=True):
    """A key whose possession was proved: its thumbprint (`jkt`), the proof to mark as used (`spend`), and the
    nonce to use next (`next_nonce`), if at least half of the last nonce's lifetime is over. `certificate` is
    the digest of a client certificate (`x5t#S256`) to which tokens are bound as well. All are None for a client
    that need not prove possession.
    """

    jkt: str | None = None
    spend: Spend | None = None
    next_nonce: str | None = None
    certificate: str | None = None

    @property
    def confirmation(self) -> Confirmation | None:
        """Return the keys that a token is bound to; None for a bearer token."""
        return Confirmation(self.jkt, self.certificate) if self.is_bound else None

    @property
    def is_bound(self) -> bool:
        """Return whether tokens are bound to a key or a certificate."""
        return self.jkt is not None or self.certificate is not None

    @property
    def bound_to(self) -> str | None:
        """Return the thumbprint that a holding stores: of the DPoP key, or else of the certificate; None for a
        bearer token.
        """
        return self.jkt or self.certificate

    @property
    def binding(self) -> str:
        """Return the thumbprints that refresh tokens are bound to, separated by spaces; empty without a binding."""
        return " ".join(filter(None, (self.jkt, self.certificate)))


def check_possession(
    unverified_proof: str,
    *,
    method: str,
    uri: str,
    now: int,
    keys: Keyring,
    config: Config,
    purpose: dpop.Purpose,
    access_token: str | None = None,
    jkt: str | None = None,
) -> Possession:
    """Check a DPoP proof, except for replay, which `spend` checks. Raises InvalidProof, NonceNeeded."""
    secret, lifetime = keys.secret("nonce"), config.nonce_lifetime_s * SECOND
    is_aging = True

    def is_fresh(nonce: str | None) -> bool:
        nonlocal is_aging
        if nonce is None and config.dpop_nonce == "offered":
            return True
        is_aging = not dpop.is_fresh_nonce(secret, purpose, nonce, now, lifetime // 2)
        return not is_aging or dpop.is_fresh_nonce(secret, purpose, nonce, now, lifetime)

    try:
        proof = dpop.check_proof(
            unverified_proof,
            method=method,
            uri=(uri, config.mtls_base + uri.removeprefix(config.public_url)) if config.mtls_base else uri,
            now=now,
            nonces=is_fresh,
            access_token=access_token,
            jkt=jkt,
            verify=keys.signatures.check,
        )
    except dpop.UseNonce:
        raise NonceNeeded(dpop.make_nonce(secret, purpose, now)) from None
    next_nonce = dpop.make_nonce(secret, purpose, now) if is_aging else None
    return Possession(proof.jkt, spend_of(proof), next_nonce)


def spend(act: Act, assertion: Spend | None, proof: Spend | None = None) -> None:
    """Mark the assertion and the proof of a request as used.

    Raises InvalidClient for an assertion, InvalidProof for a proof that was used before.
    """
    if act.again is not None:  # by this very request
        return
    if assertion is not None and not store.spend(act.tx, assertion):
        raise InvalidClient("the client assertion was used before", hint="make a new one, with a new `jti`")
    if proof is not None and not store.spend(act.tx, proof):
        raise dpop.InvalidProof("the DPoP proof was used before", hint="make a new one for each request")

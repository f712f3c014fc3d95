"""Possession of a key, shown by a DPoP proof with a nonce of ours (RFC 9449), and that nothing is used twice."""

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
    """A key that was shown to be there: its thumbprint, the proof to spend, and the nonce to use from now on,
    where half of the last one's life is over; `certificate` is the digest of a client certificate (`x5t#S256`) to which
    tokens are bound as well. All None for who need not show one.
    """

    jkt: str | None = None
    spend: Spend | None = None
    next_nonce: str | None = None
    certificate: str | None = None

    @property
    def confirmation(self) -> Confirmation | None:
        """The keys that a token is bound to; None for a bearer token."""
        return Confirmation(self.jkt, self.certificate) if self.is_bound else None

    @property
    def is_bound(self) -> bool:
        """Return whether tokens are bound to a key."""
        return self.jkt is not None or self.certificate is not None

    @property
    def bound_to(self) -> str | None:
        """The thumbprint by which a holding is known to be bound: that of the DPoP key before that of a certificate."""
        return self.jkt or self.certificate

    @property
    def binding(self) -> str:
        """The thumbprints that refresh tokens are bound to; empty for none."""
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
    """Check everything about a proof but that it is new: `spend` does that. Raises InvalidProof, NonceNeeded."""
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
    """Use up the assertion and the proof of a request, which must be new.

    Raises InvalidClient, InvalidProof for a second use.
    """
    if act.again is not None:  # by this very request
        return
    if assertion is not None and not store.spend(act.tx, assertion):
        raise InvalidClient("the client assertion was used before", hint="make a new one, with a new `jti`")
    if proof is not None and not store.spend(act.tx, proof):
        raise dpop.InvalidProof("the DPoP proof was used before", hint="make a new one for each request")

"""Proof that the sender of a request has a key: a DPoP proof with a nonce of this server (RFC 9449). Also the
protection against a second use of the proof.
"""

from __future__ import annotations

import msgspec

from ostiary.authorization.claims import Confirmation
from ostiary.protocol import dpop
from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ledger.flows import Act
from ostiaryd.trust import store
from ostiaryd.trust.model import SECOND, InvalidClient, NonceNeeded, Spend, spend_of


class Possession(msgspec.Struct, frozen=True):
    """The keys whose possession a request proved. `jkt`: thumbprint of the DPoP key. `spend`: the DPoP proof, which the
    caller must mark as used. `next_nonce`: a new nonce for the client, if its proof had no nonce or half of the
    lifetime of the nonce is over. `certificate`: digest of the client certificate (`x5t#S256`). All are None for a
    client that proved no key.
    """

    jkt: str | None = None
    spend: Spend | None = None
    next_nonce: str | None = None
    certificate: str | None = None

    @property
    def confirmation(self) -> Confirmation | None:
        """Return the claim `cnf` for a token with this binding; None for a bearer token."""
        return Confirmation(self.jkt, self.certificate) if self.is_bound else None

    @property
    def is_bound(self) -> bool:
        """Return whether a token with this possession is bound to a DPoP key or to a certificate."""
        return self.jkt is not None or self.certificate is not None

    @property
    def bound_to(self) -> str | None:
        """Return the thumbprint under which the binding of a token is stored: that of the DPoP key, or else that of the
        certificate; None for a bearer token.
        """
        return self.jkt or self.certificate

    @property
    def binding(self) -> str:
        """Return the thumbprints of all keys to which a refresh token is bound, separated by spaces; empty if there are
        none.
        """
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
    """Check a DPoP proof, and return the proved key. Replay is not checked here, but by `spend`. Raises InvalidProof
    for an invalid proof, NonceNeeded for a proof without a current nonce.

    `purpose`: the group of endpoints whose nonces are accepted. `access_token` and `jkt`, if given, are the token and
    the key thumbprint that the proof must match.
    """
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


class MadeBeforeLoss(Unavailable):
    """The assertion or proof was made before the server detected the loss of a part of its history, so it may have been
    used in that part.
    """

    code = "recovery"

    def __init__(self) -> None:
        super().__init__(
            "the assertion or proof was made before this server entered recovery", hint="make a new assertion or proof"
        )


def spend(act: Act, assertion: Spend | None, proof: Spend | None = None) -> None:
    """Mark the assertion and the DPoP proof of a request as used.

    Raises InvalidClient if the assertion was used before, InvalidProof if the DPoP proof was used before, and
    MadeBeforeLoss if either is older than the loss of a part of the history.
    """
    if act.again is not None:  # the assertion was marked as used by this same request
        return
    for one in (assertion, proof):
        if one is not None and store.proofs.is_older_than_loss(act.tx, one):
            raise MadeBeforeLoss
    if assertion is not None and not store.proofs.spend(act.tx, assertion):
        raise InvalidClient("the client assertion was used before", hint="make a new assertion, with a new `jti`")
    if proof is not None and not store.proofs.spend(act.tx, proof):
        raise dpop.InvalidProof("the DPoP proof was used before", hint="make a new proof for each request")

"""Access tokens at a guard: each signature is verified once, and the verified token is remembered by its digest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container
from hashlib import sha256

from ostiary.authorization.assurance import UNBOUND
from ostiary.authorization.claims import ACCESS_TYP, MAX_BEARER_S, AccessClaims, check_access, parse_access
from ostiary.decision import access
from ostiary.guard.knowledge import KeyUnheard, Present
from ostiary.protocol.jose import InvalidToken, parse_claims, parse_jws, verify_jwt

MAX_REMEMBERED = 10_000
SECOND = 1_000_000


def check_bearer(claims: AccessClaims, *, exempt: Container[str]) -> None:
    """Check that a verified token may be used without a DPoP proof. Either the token is bound only to a client
    certificate, which `check_certificate` compares; or the token is bound to nothing, valid for at most MAX_BEARER_S,
    and an administrator has exempted its agent, or all clients with its type of registration, at this resource
    (`exempt`).

    A token that is bound to a DPoP key always needs a proof (RFC 9449 section 7.2). Raises InvalidToken if the check
    fails.
    """
    if claims.cnf is not None and claims.cnf.jkt is None and claims.cnf.certificate is not None:
        return
    if claims.cnf is not None:
        raise InvalidToken(
            "the token is bound to a key and cannot be sent as a bearer token",
            hint="send `Authorization: DPoP` with a DPoP proof",
        )
    is_exempt = claims.client_id in exempt or (claims.registration != "" and claims.registration in exempt)
    if not is_exempt or claims.acr not in UNBOUND:
        command = "resource allow-bearer NAME" if claims.registration else "agent allow-bearer NAME --resource RESOURCE"
        hint = f"send `Authorization: DPoP` with a proof, or: ostiary {command}"
        raise InvalidToken("bearer tokens of this agent are not accepted", hint=hint)
    if claims.exp - claims.iat > MAX_BEARER_S:
        raise InvalidToken(f"the bearer token is valid for more than {MAX_BEARER_S} s", hint="get a new token")


class Tokens:
    """A cache of verified tokens. Thread-safe. If the server's keys change, each token is verified again. `leeway`:
    permitted clock difference, in microseconds.
    """

    def __init__(self, *, now: Callable[[], int], leeway: int) -> None:
        self._now, self._leeway = now, leeway
        self._mutex = threading.Lock()
        self._verified: dict[bytes, access.Principal] = {}
        self._verified_with: object = None

    def __len__(self) -> int:
        return len(self._verified)

    def principal(self, token: str, present: Present, *, issuer: str, heard_at: int) -> access.Principal:
        """Return the holder of a verified token that has not expired. `heard_at`: time of the newest message of the
        feed that `present` includes, in microseconds.

        Raises InvalidToken if the token is not valid here; KeyUnheard if a key that the guard does not know may have
        signed the token.
        """
        digest = sha256(token.encode()).digest()
        now = self._now()
        with self._mutex:
            if self._verified_with is not present.keys:
                self._verified.clear()
                self._verified_with = present.keys
            principal = self._verified.get(digest)
        if principal is None:
            try:
                verified = verify_jwt(
                    token, key_for=present.keys.key_for, typ=(ACCESS_TYP,), now=now, leeway=self._leeway
                )
            except InvalidToken as refusal:
                may_be_announced = range(heard_at // SECOND, (now + self._leeway) // SECOND + 1)
                if refusal.code == "unknown_kid" and _issued_at(token, issuer=issuer) in may_be_announced:
                    raise KeyUnheard(
                        "the token is signed by a key that this guard does not know, and is newer than the feed",
                        hint="repeat the request: the feed announces each new key",
                    ) from None
                raise
            claims = parse_access(verified)
            check_access(claims, issuer=issuer, audience=present.resource.uri, now=now, leeway=self._leeway)
            principal = access.Principal(claims)
            self._remember(digest, principal, present)
        if now >= principal.expires_at:
            raise InvalidToken("the token has expired", hint="get a new token")
        return principal

    def _remember(self, digest: bytes, principal: access.Principal, present: Present) -> None:
        with self._mutex:
            if self._verified_with is present.keys:  # the keys have not changed meanwhile
                if len(self._verified) >= MAX_REMEMBERED:
                    del self._verified[next(iter(self._verified))]
                self._verified[digest] = principal


def _issued_at(token: str, *, issuer: str) -> object:
    """Return the time at which an unverified token claims to be issued by `issuer`, in seconds; None for a token of
    another issuer. The claim allows nothing: it only decides between two refusals.
    """
    unverified_claims = parse_claims(parse_jws(token).payload)
    return unverified_claims.get("iat") if unverified_claims.get("iss") == issuer else None

"""JWK Sets: RFC 7517 section 5. Unusable keys are skipped, as the RFC says; a set with a private key is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.protocol.jose.errors import InvalidKey, InvalidToken
from ostiary.protocol.jose.keys import PublicKey, parse_public_jwk
from ostiary.protocol.jose.material import PRIVATE_MEMBERS

MAX_KEYS = 128


@dataclass(frozen=True, slots=True)
class JwkSet:
    keys: tuple[PublicKey, ...]

    @classmethod
    def parse(cls, value: object) -> JwkSet:
        """Parse a JWK Set from `{"keys": [...]}`; unusable keys are skipped. Raises InvalidKey for other JSON, for more
        than MAX_KEYS keys, and for a set with a private key.
        """
        jwks = value.get("keys") if isinstance(value, dict) else None
        if not isinstance(jwks, list):
            raise InvalidKey("a JWK Set must be a JSON object with an array `keys`")
        if len(jwks) > MAX_KEYS:
            raise InvalidKey(f"a JWK Set must have at most {MAX_KEYS} keys")
        keys: list[PublicKey] = []
        for jwk in jwks:
            if isinstance(jwk, dict) and jwk.get("kty") != "oct" and any(name in jwk for name in PRIVATE_MEMBERS):
                raise InvalidKey("a private key is published in a JWK Set")
            try:
                keys.append(parse_public_jwk(jwk))
            except InvalidKey:
                continue
        return cls(tuple(keys))

    def render(self) -> dict[str, list[dict[str, str]]]:
        """Return the JWK Set as a JSON value, `{"keys": [..]}`, with the public members of each key."""
        return {"keys": [key.jwk for key in self.keys]}

    def find(self, kid: str) -> PublicKey:
        """Return the only key with that id. Raises InvalidToken (code `unknown_kid`) for none or several."""
        candidates = [key for key in self.keys if key.kid == kid]
        if len(candidates) != 1:
            raise InvalidToken(f"{len(candidates) or 'no'} keys have the token's `kid`", code="unknown_kid")
        return candidates[0]

    def key_for(self, header: Mapping[str, object]) -> PublicKey:
        """Return the key for a header, for `verify_jwt`: the only key with the header's `alg` and, if the header has a
        `kid`, with this id. Raises InvalidToken (code `unknown_kid`) for none or several.
        """
        alg, kid = header.get("alg"), header.get("kid")
        candidates = [key for key in self.keys if key.accepts(alg) and (kid is None or key.kid == kid)]
        if len(candidates) != 1:
            raise InvalidToken(
                f"{len(candidates) or 'no'} keys fit the token's `kid` and `alg`, instead of one", code="unknown_kid"
            )
        return candidates[0]

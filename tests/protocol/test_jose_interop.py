"""Tokens and keys pass both ways between us and joserfc, which shares nothing with our code but the RFCs."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwk, jws, jwt
from joserfc.errors import BadSignatureError

from ostiary.protocol import jose

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")

ALGS = sorted(jose.ALGS)
CLAIMS = {"iss": "https://as.example", "sub": "agent", "exp": 1_800_000_000}
NOW = 1_700_000_000_000_000


def theirs(key: dict[str, str]) -> jwk.Key:
    return jwk.import_key({**key})


@pytest.mark.parametrize("alg", ALGS)
def test_joserfc_verifies_our_tokens(alg: str) -> None:
    key = jose.generate(alg)
    token = jose.sign_jwt(key, typ="at+jwt", claims=CLAIMS)
    decoded = jwt.decode(token, theirs(key.public.jwk), algorithms=[alg])
    assert decoded.claims == CLAIMS
    assert decoded.header == {"alg": alg, "kid": key.public.kid, "typ": "at+jwt"}
    with pytest.raises(BadSignatureError):
        jwt.decode(token, theirs(jose.generate(alg).public.jwk), algorithms=[alg])


@pytest.mark.parametrize("alg", ALGS)
def test_our_code_verifies_tokens_of_joserfc(alg: str) -> None:
    key = jose.generate(alg)
    token = jwt.encode({"alg": alg, "typ": "at+jwt"}, CLAIMS, theirs(key.jwk()), algorithms=[alg])
    assert jose.verify_jwt(token, key_for=lambda header: key.public, typ={"at+jwt"}, now=NOW) == CLAIMS


@pytest.mark.parametrize("alg", ALGS)
def test_our_code_reads_keys_of_joserfc_and_computes_the_same_thumbprints(alg: str) -> None:
    kinds: dict[str, tuple[Any, Any]] = {
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "RS256": ("RSA", 2048),
        "PS256": ("RSA", 3072),
    }
    kind, size = kinds.get(alg, ("OKP", "Ed25519"))
    their_key = jwk.generate_key(kind, size, {"alg": alg})
    key = jose.parse_private_jwk(their_key.as_dict(private=True))
    assert key.public.alg == alg
    assert key.public.thumbprint == their_key.thumbprint()
    assert key.jwk().items() >= {k: v for k, v in their_key.as_dict(private=True).items() if k != "kid"}.items()


def test_a_token_of_joserfc_with_another_algorithm_than_the_key_is_refused() -> None:
    key = jose.generate("ES256")
    token = jws.serialize_compact({"alg": "HS256"}, b"{}", jwk.generate_key("oct", 256), algorithms=["HS256"])
    with pytest.raises(jose.InvalidToken, match="the key is for ES256"):
        jose.verify_jwt(token, key_for=lambda header: key.public, typ={None}, now=NOW)

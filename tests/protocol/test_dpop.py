"""DPoP proofs: the examples of RFC 9449, its twelve checks on both sides, and nonces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk as their_jwk
from joserfc import jwt as their_jwt

from ostiary.protocol import dpop, jose
from ostiary.protocol.dpop import InvalidProof, UseNonce
from ostiary.protocol.errors import Malformed, Refused
from ostiary.protocol.jose import b64u

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "jose.json").read_text())
SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
KEY = jose.generate("ES256")
URI = "https://rs.example/mcp"
CLAIMS: dict[str, object] = {"jti": "e1j3V_bKic8-LAEB", "htm": "POST", "htu": URI, "iat": 1_700_000_000}
HEADER: dict[str, object] = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.public.bare_jwk}


def raw_proof(header: object = HEADER, claims: object = CLAIMS, key: jose.PrivateKey = KEY) -> str:
    """A proof with any header and claims, properly signed."""
    head, payload = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    return jose.sign_jws(key, protected=b64u(head), payload=payload)


def check(proof: str, **options: Any) -> dpop.Proof:
    options = {"method": "POST", "uri": URI, "now": NOW, **options}
    return dpop.check_proof(proof, **options)


def make(**options: Any) -> str:
    options = {"method": "POST", "uri": URI, "now": NOW, "jti": "e1j3V_bKic8-LAEB", **options}
    return dpop.make_proof(KEY, **options)


@pytest.mark.parametrize("vector", VECTORS["proofs"], ids=lambda vector: vector["source"])
def test_the_proofs_of_rfc_9449_pass(vector: dict[str, Any]) -> None:
    proof = dpop.check_proof(
        vector["proof"],
        method=vector["method"],
        uri=vector["uri"],
        now=vector["iat"] * SECOND,
        access_token=vector.get("access_token"),
        jkt="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
    )
    assert (proof.jti, proof.iat) == (vector["jti"], vector["iat"] * SECOND)
    assert proof.jkt == proof.key.thumbprint == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize("alg", sorted(jose.ALGS))
def test_a_proof_of_every_algorithm_passes(alg: str) -> None:
    key = jose.generate(alg)
    proof = dpop.make_proof(key, method="GET", uri=URI + "?q=1#f", now=NOW + 999_999, jti="j", access_token="token")
    header, claims = jose.parse_jws(proof).header, json.loads(jose.parse_jws(proof).payload)
    assert dict(header) == {"typ": "dpop+jwt", "alg": alg, "jwk": key.public.bare_jwk}
    assert claims == {"jti": "j", "htm": "GET", "htu": URI, "iat": 1_700_000_000, "ath": claims["ath"]}
    seen = dpop.check_proof(proof, method="GET", uri=URI, now=NOW, access_token="token", jkt=key.public.thumbprint)
    assert (seen.jkt, seen.jti, seen.iat, seen.key.alg) == (key.public.thumbprint, "j", NOW, alg)


def test_a_proof_of_another_implementation_passes() -> None:
    key = their_jwk.ECKey.generate_key("P-256")
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}
    proof = their_jwt.encode(header, CLAIMS, key)
    assert check(proof).jkt == key.thumbprint()


def test_another_implementation_verifies_our_proof() -> None:
    proof = make(nonce="n")
    assert their_jwt.decode(proof, their_jwk.import_key({**KEY.public.jwk})).claims == {**CLAIMS, "nonce": "n"}


def test_making_a_proof_for_a_relative_uri_is_refused() -> None:
    with pytest.raises(Malformed):
        make(uri="/mcp")


# --- form, type, key -------------------------------------------------------------------------------------------------

OTHER = jose.generate("ES256")
EDWARDS = jose.generate("EdDSA")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({**HEADER, "typ": "JWT"}, "type is not dpop\\+jwt"),
        ({**HEADER, "typ": "at+jwt"}, "type is not dpop\\+jwt"),
        ({k: v for k, v in HEADER.items() if k != "typ"}, "type is not dpop\\+jwt"),
        ({k: v for k, v in HEADER.items() if k != "jwk"}, "no `jwk`"),
        ({**HEADER, "jwk": "x"}, "no `jwk`"),
        ({**HEADER, "jwk": {}}, "kty"),
        ({**HEADER, "jwk": {"kty": "oct", "k": "AAAA"}}, "kty"),
        ({**HEADER, "jwk": KEY.jwk()}, "private members"),
        ({**HEADER, "jwk": OTHER.public.bare_jwk}, "signature"),
        ({**HEADER, "jwk": {**KEY.public.bare_jwk, "x": OTHER.public.jwk["x"]}}, "not a point"),
        ({**HEADER, "alg": "none"}, "alg"),
        ({**HEADER, "alg": "HS256"}, "alg"),
        ({**HEADER, "alg": "ES384"}, "alg"),
        ({**HEADER, "alg": "ES384", "jwk": KEY.public.jwk}, "the key is for ES256|the key is for ES256"),
        ({**HEADER, "jwk": {**KEY.public.bare_jwk, "alg": "ES384"}}, "alg"),
        ({**HEADER, "jwk": {**KEY.public.bare_jwk, "use": "enc"}}, "use"),
        ({**HEADER, "crit": ["b64"], "b64": False}, "crit"),
        (b'{"typ":"dpop+jwt","alg":"none","alg":"ES256"}', "same member twice"),
        (b"[]", "not a JSON object"),
    ],
)
def test_an_invalid_header_is_refused_with_the_problem_in_the_message(header: object, why: str) -> None:
    with pytest.raises(InvalidProof, match=why) as refusal:
        check(raw_proof(header))
    assert refusal.value.code == "invalid_dpop_proof"


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "typ": "DPoP+JWT"},
        {**HEADER, "typ": "application/dpop+jwt"},
        {**HEADER, "jwk": KEY.public.jwk},
        {**HEADER, "kid": "ignored", "jku": "https://ignored.example"},
        {**HEADER, "jwk": {**KEY.public.bare_jwk, "kid": "another"}},
    ],
)
def test_a_valid_header_is_accepted(header: dict[str, object]) -> None:
    assert check(raw_proof(header)).jkt == KEY.public.thumbprint


def test_an_rsa_key_without_alg_is_accepted_with_rs256_and_ps256() -> None:
    secret = jose.generate("RS256").jwk()
    for alg in ("RS256", "PS256"):
        key = jose.parse_private_jwk({**secret, "alg": alg})
        assert check(raw_proof({**HEADER, "alg": alg, "jwk": key.public.bare_jwk}, key=key)).key.alg == alg


def test_both_algorithm_names_of_ed25519_are_accepted_for_one_key() -> None:
    for alg in ("EdDSA", "Ed25519"):
        proof = raw_proof({"typ": "dpop+jwt", "alg": alg, "jwk": EDWARDS.public.bare_jwk}, key=EDWARDS)
        assert check(proof, jkt=EDWARDS.public.thumbprint).key.alg == alg


def test_a_signature_of_another_text_is_refused() -> None:
    head, _, signature = make().split(".")
    other = b64u(json.dumps({**CLAIMS, "jti": "another"}).encode())
    with pytest.raises(InvalidProof, match="signature"):
        check(f"{head}.{other}.{signature}")


@pytest.mark.parametrize("proof", ["", "x", "..", "a.b.c", "Bearer x", "é.é.é"])
def test_a_proof_that_is_not_a_jwt_is_refused(proof: str) -> None:
    with pytest.raises(InvalidProof):
        check(proof)


def test_two_proofs_in_one_header_are_refused() -> None:
    for joined in (", ", ",", " ", "\n"):
        with pytest.raises(InvalidProof):
            check(make() + joined + make())


def test_a_proof_beyond_the_maximum_length_is_refused() -> None:
    padding = 0
    while len(raw_proof(claims={**CLAIMS, "x": "x" * (padding + 1)})) <= dpop.MAX_PROOF_BYTES:
        padding += 1
    assert check(raw_proof(claims={**CLAIMS, "x": "x" * padding})).jti == CLAIMS["jti"]
    with pytest.raises(InvalidProof, match="longer"):
        check(raw_proof(claims={**CLAIMS, "x": "x" * (padding + 1)}))


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat"])
def test_a_proof_without_a_required_claim_is_refused(name: str) -> None:
    with pytest.raises(InvalidProof, match=name):
        check(raw_proof(claims={other: value for other, value in CLAIMS.items() if other != name}))


@pytest.mark.parametrize(("length", "taken"), [(0, False), (1, True), (256, True), (257, False)])
def test_a_jti_has_1_to_256_characters(length: int, taken: bool) -> None:
    proof = raw_proof(claims={**CLAIMS, "jti": "j" * length})
    if taken:
        assert check(proof).jti == "j" * length
    else:
        with pytest.raises(InvalidProof, match="jti"):
            check(proof)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"jti": 5}, "jti"),
        ({"jti": None}, "jti"),
        ({"htm": "GET"}, "method"),
        ({"htm": "post"}, "method"),
        ({"htm": ["POST"]}, "method"),
        ({"htm": None}, "method"),
        ({"htu": "https://rs.example/other"}, "URI"),
        ({"htu": "https://rs.example/mcp/"}, "URI"),
        ({"htu": "https://rs.example/MCP"}, "URI"),
        ({"htu": "http://rs.example/mcp"}, "URI"),
        ({"htu": "https://rs.example:8443/mcp"}, "URI"),
        ({"htu": "https://rs.example.evil.example/mcp"}, "URI"),
        ({"htu": "https://rs.example@evil.example/mcp"}, "URI"),
        ({"htu": "https://rs.example/m%2563p"}, "URI"),
        ({"htu": "/mcp"}, "URI"),
        ({"htu": ""}, "URI"),
        ({"htu": [URI]}, "URI"),
        ({"htu": URI + " "}, "URI"),
        ({"iat": True}, "iat"),
        ({"iat": "1700000000"}, "iat"),
        ({"iat": None}, "iat"),
        ({"iat": -1}, "iat"),
        ({"iat": 1e300}, "iat"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"exp": 1_699_999_999}, "expired"),
        ({"exp": "1800000000"}, "exp"),
        ({"exp": None}, "exp"),
        ({"nbf": 1_700_000_011}, "not valid yet"),
        ({"nbf": True}, "nbf"),
    ],
)
def test_claims_that_do_not_fit_the_request_are_refused(claims: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidProof, match=why):
        check(raw_proof(claims={**CLAIMS, **claims}))


@pytest.mark.parametrize(
    "htu",
    [
        URI,
        URI + "?q=1",
        URI + "#fragment",
        "HTTPS://RS.Example/mcp",
        "https://rs.example:443/mcp",
        "https://rs.example/%6dcp",
        "https://rs.example/a/../mcp",
        "https://rs.example/./mcp",
    ],
)
def test_equivalent_forms_of_the_target_uri_match(htu: str) -> None:
    assert check(raw_proof(claims={**CLAIMS, "htu": htu})).jti == CLAIMS["jti"]
    assert check(raw_proof(), uri=htu).jti == CLAIMS["jti"]


def test_an_empty_path_is_the_root() -> None:
    assert check(raw_proof(claims={**CLAIMS, "htu": "https://rs.example"}), uri="https://rs.example/").iat == NOW


@pytest.mark.parametrize(
    ("age", "taken"),
    [(0, True), (60 * SECOND, True), (60 * SECOND + 1, False), (-10 * SECOND, True), (-10 * SECOND - 1, False)],
)
def test_a_proof_is_at_most_60_seconds_old_or_10_seconds_ahead(age: int, taken: bool) -> None:
    if taken:
        assert check(raw_proof(), now=NOW + age).iat == NOW
    else:
        with pytest.raises(InvalidProof, match="`iat` of the DPoP proof is"):
            check(raw_proof(), now=NOW + age)


def test_the_caller_sets_the_window_for_iat() -> None:
    assert check(raw_proof(), now=NOW + 300 * SECOND, window_us=300 * SECOND).iat == NOW
    for options in ({"now": NOW + 10 * SECOND + 1, "window_us": 10 * SECOND}, {"now": NOW - 1, "skew_us": 0}):
        with pytest.raises(InvalidProof, match="`iat` of the DPoP proof is"):
            check(raw_proof(), **options)


def test_a_proof_may_contain_nbf_and_exp() -> None:
    """RFC 7519 sections 4.1.4 and 4.1.5 hold for every JWT; RFC 9449 requires neither claim."""
    for times in ({"exp": 1_700_000_001}, {"nbf": 1_700_000_000}, {"nbf": 1_700_000_010, "exp": 1_700_000_300}):
        assert check(raw_proof(claims={**CLAIMS, **times})).iat == NOW


def test_iat_of_a_proof_may_have_a_fraction() -> None:
    assert check(raw_proof(claims={**CLAIMS, "iat": 1_699_999_999.5})).iat == NOW - SECOND // 2


# --- access token ----------------------------------------------------------------------------------------------------


def test_a_proof_without_the_hash_of_the_access_token_is_refused() -> None:
    assert check(make(access_token="token"), access_token="token").jti == CLAIMS["jti"]
    assert check(make(access_token="token")).jti == CLAIMS["jti"]
    for proof in (make(), make(access_token="another"), raw_proof(claims={**CLAIMS, "ath": "token"})):
        with pytest.raises(InvalidProof, match="ath"):
            check(proof, access_token="token")


def test_a_proof_by_another_key_than_the_bound_key_is_refused() -> None:
    assert check(make(), jkt=KEY.public.thumbprint).jkt == KEY.public.thumbprint
    for jkt in (OTHER.public.thumbprint, KEY.public.thumbprint + "=", ""):
        with pytest.raises(InvalidProof, match="another key"):
            check(make(), jkt=jkt)


# --- nonces ----------------------------------------------------------------------------------------------------------

SECRET = bytes(range(32))
LIFE = 60 * SECOND


def fresh(nonce: str | None, now: int = NOW, purpose: dpop.Purpose = b"rs", secret: bytes = SECRET) -> bool:
    return dpop.is_fresh_nonce(secret, purpose, nonce, now, LIFE)


def test_a_nonce_is_fresh_within_its_lifetime_for_its_purpose_and_secret() -> None:
    nonce = dpop.make_nonce(SECRET, b"rs", NOW)
    assert fresh(nonce)
    assert fresh(nonce, now=NOW + LIFE - 1)
    assert not fresh(nonce, now=NOW + LIFE)
    assert not fresh(nonce, now=NOW - 1)
    assert not fresh(nonce, purpose=b"as")
    assert not fresh(nonce, secret=bytes(32))


def test_altered_and_malformed_nonces_are_not_fresh() -> None:
    nonce = dpop.make_nonce(SECRET, b"rs", NOW)
    for place in range(len(nonce)):
        other = "A" if nonce[place] != "A" else "B"
        assert not fresh(nonce[:place] + other + nonce[place + 1 :])
    for text in (None, "", nonce[:-1], nonce + "A", nonce + "=", nonce.replace(nonce[0], "é"), " " * 32, "\n" * 32):
        assert not fresh(text)


def test_a_proof_without_a_fresh_nonce_is_refused_if_a_nonce_is_required() -> None:
    nonce = dpop.make_nonce(SECRET, b"rs", NOW)
    assert check(make(nonce=nonce), nonces=fresh).jti == CLAIMS["jti"]
    assert check(make(nonce="any")).jti == CLAIMS["jti"]
    for proof in (make(), make(nonce="any"), make(nonce=dpop.make_nonce(SECRET, b"as", NOW)), make(nonce="")):
        with pytest.raises(UseNonce) as refusal:
            check(proof, nonces=fresh)
        assert refusal.value.code == "use_dpop_nonce"


@pytest.mark.parametrize(("length", "taken"), [(256, True), (257, False)])
def test_a_nonce_has_at_most_256_characters(length: int, taken: bool) -> None:
    asked: list[str | None] = []
    if taken:

        def remember(nonce: str | None) -> bool:
            asked.append(nonce)
            return True

        check(make(nonce="n" * length), nonces=remember)
        assert asked == ["n" * length]
    else:
        with pytest.raises(InvalidProof, match="nonce"):
            check(make(nonce="n" * length), nonces=fresh)


def test_a_nonce_that_is_not_a_string_is_refused() -> None:
    nonces: tuple[object, ...] = (1, ["x"], {}, True)
    for nonce in nonces:
        with pytest.raises(InvalidProof, match="nonce"):
            check(raw_proof(claims={**CLAIMS, "nonce": nonce}), nonces=fresh)


def test_an_invalid_proof_is_refused_without_a_request_for_a_nonce() -> None:
    for options in ({"method": "GET"}, {"uri": "https://other.example"}, {"now": NOW + 3600 * SECOND}, {"jkt": "x"}):
        with pytest.raises(InvalidProof):
            check(make(), nonces=lambda nonce: False, **options)


def test_a_forged_signature_is_refused_even_with_a_valid_nonce() -> None:
    head, payload, _ = make(nonce="good").split(".")
    _, _, signature = make(nonce="good").split(".")
    forged = b64u(bytes(64))
    assert signature != forged
    with pytest.raises(InvalidProof, match="signature"):
        check(f"{head}.{payload}.{forged}", nonces=lambda nonce: True)


# --- anything --------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kty", "crv", "x"]), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "jwk", "crit", "kid"]), json_values),
    st.dictionaries(st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce"]), json_values),
)
def test_checking_any_signed_json_raises_only_invalid_proof_or_use_nonce(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    try:
        proof = check(raw_proof({**HEADER, **header}, {**CLAIMS, **claims}), nonces=lambda nonce: nonce is None)
    except (InvalidProof, UseNonce):
        return
    assert proof.jkt == KEY.public.thumbprint


@given(st.text(max_size=60), st.text(max_size=20))
def test_checking_any_text_or_uri_raises_only_refusals(proof: str, uri: str) -> None:
    with pytest.raises(Refused):
        check(proof)
    with pytest.raises(InvalidProof, match="URI"):
        check(make(), uri=uri)

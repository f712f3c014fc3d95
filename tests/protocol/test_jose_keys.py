"""JWK: parsing, rendering, refused keys and thumbprints."""

from __future__ import annotations

import base64
import itertools
import json
import string
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import example, given
from hypothesis import strategies as st

from ostiary.protocol import jose
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose import InvalidKey, InvalidToken, JwkSet, b64u, material, unb64u

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "jose.json").read_text())
ALGS = sorted(jose.ALGS)
KEYS = {alg: jose.generate(alg) for alg in ALGS}


@pytest.mark.parametrize("vector", VECTORS["thumbprints"], ids=lambda vector: vector["source"])
def test_thumbprints_equal_the_examples_of_the_rfcs(vector: dict[str, Any]) -> None:
    assert jose.parse_public_jwk(vector["jwk"]).thumbprint == vector["thumbprint"]


def test_the_key_of_rfc_8037_is_the_same_after_parsing_and_rendering() -> None:
    jwk = VECTORS["private"]["jwk"]
    key = jose.parse_private_jwk(jwk)
    assert jwk.items() <= key.jwk().items()
    assert "d" not in key.public.jwk


@pytest.mark.parametrize("alg", ALGS)
def test_a_generated_key_is_the_same_after_rendering_and_parsing(alg: str) -> None:
    key = KEYS[alg]
    again = jose.parse_private_jwk(json.loads(json.dumps(key.jwk())))
    public = jose.parse_public_jwk(json.loads(json.dumps(key.public.jwk)))
    assert again.jwk() == key.jwk()
    assert (public.kid, public.alg, public.thumbprint) == (key.public.kid, alg, key.public.thumbprint)
    public.verify(again.sign(b"text"), b"text")
    with pytest.raises(InvalidToken):
        public.verify(again.sign(b"text"), b"texT")


@pytest.mark.parametrize("alg", ALGS)
def test_private_key_material_is_not_in_the_repr_or_the_public_key(alg: str) -> None:
    key = KEYS[alg]
    secrets = set(key.jwk().items()) - set(key.public.jwk.items())
    assert {name for name, _ in secrets} >= {"d"}
    assert not any(value in repr(key) or value in json.dumps(key.public.jwk) for _, value in secrets)


def test_a_generated_key_may_have_a_kid_of_its_own() -> None:
    key = jose.generate("ES256", kid="first")
    assert (key.public.kid, key.public.jwk["kid"]) == ("first", "first")
    assert key.public.thumbprint == jose.parse_public_jwk(key.public.bare_jwk).kid


@pytest.mark.parametrize("alg", ["HS256", "none", "RS512", "ES512", "es256", ""])
def test_generating_a_key_of_an_unknown_algorithm_is_refused(alg: str) -> None:
    with pytest.raises(InvalidKey, match="unknown algorithm"):
        jose.generate(alg)


@pytest.mark.parametrize(
    ("alg", "default"), [("ES256", "ES256"), ("ES384", "ES384"), ("Ed25519", "EdDSA"), ("PS256", "RS256")]
)
def test_a_key_without_alg_has_the_default_of_its_type(alg: str, default: str) -> None:
    assert jose.parse_public_jwk(KEYS[alg].public.bare_jwk).alg == default


EC, OKP, RSA = (KEYS[alg].public.jwk for alg in ("ES256", "EdDSA", "RS256"))
SPARE = KEYS["ES384"].public.jwk
P25519 = 2**255 - 19


def without(jwk: dict[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in jwk.items() if other != name}


def little(y: int) -> str:
    return b64u(y.to_bytes(32, "little"))


REFUSED: list[tuple[object, str]] = [
    (None, "JSON object"),
    ([EC], "JSON object"),
    ({}, "kty"),
    (without(EC, "kty"), "kty"),
    ({**EC, "kty": "oct", "k": "AAAA"}, "kty"),
    ({**EC, "kty": "ec"}, "kty"),
    ({**EC, "kty": ["EC"]}, "kty"),
    (without(EC, "crv"), "crv"),
    ({**EC, "crv": "P-521"}, "crv"),
    ({**EC, "crv": "secp256k1"}, "crv"),
    ({**EC, "crv": 256}, "crv"),
    (without(EC, "x"), "the key has no member `x`"),
    ({**EC, "x": 5}, "the member `x` of the key is not a string"),
    ({**EC, "x": None}, "the member `x` of the key is not a string"),
    ({**EC, "x": ""}, "`x` is empty"),
    ({**RSA, "n": ""}, "`n` is empty"),
    ({**EC, "x": EC["x"] + "="}, "`x` is not base64url"),
    ({**EC, "x": " " + EC["x"]}, "`x` is not base64url"),
    ({**EC, "x": b64u(unb64u(EC["x"])[:31])}, "31 bytes instead of 32"),
    ({**EC, "x": b64u(b"\0" + unb64u(EC["x"]))}, "33 bytes instead of 32"),
    ({**EC, "x": "A" * 1025}, "too long"),
    ({**EC, "x": EC["y"], "y": EC["x"]}, "not a point"),
    ({**EC, "x": b64u(bytes(32)), "y": b64u(bytes(32))}, "not a point"),
    ({**EC, "x": b64u(b"\xff" * 32)}, "not a point"),
    ({**EC, "x": SPARE["x"], "y": SPARE["y"]}, "48 bytes"),
    ({**EC, "alg": "ES384"}, "alg"),
    ({**EC, "alg": "RS256"}, "alg"),
    ({**EC, "alg": "none"}, "alg"),
    ({**EC, "alg": None}, "alg"),
    ({**EC, "alg": ["ES256"]}, "alg"),
    ({**EC, "use": "enc"}, "use"),
    ({**EC, "use": None}, "use"),
    ({**EC, "key_ops": ["deriveKey"]}, "key_ops"),
    ({**EC, "key_ops": []}, "key_ops"),
    ({**EC, "key_ops": "verify"}, "key_ops"),
    ({**EC, "kid": ""}, "kid"),
    ({**EC, "kid": "k" * 257}, "kid"),
    ({**EC, "kid": 1}, "kid"),
    ({**EC, "d": "AAAA"}, "private members"),
    ({**RSA, "p": "AAAA"}, "private members"),
    ({**OKP, "k": "AAAA"}, "private members"),
    ({**OKP, "crv": "Ed448"}, "Ed25519"),
    ({**OKP, "crv": "X25519"}, "Ed25519"),
    ({**OKP, "alg": "ES256"}, "alg"),
    ({**OKP, "x": b64u(b"x" * 33)}, "33 bytes"),
    ({**OKP, "x": little(P25519 + 3)}, "not in canonical form"),
    ({**RSA, "alg": "RS384"}, "alg"),
    ({**RSA, "e": "Aw"}, "exponent"),
    ({**RSA, "e": "AQAA"}, "exponent"),
    ({**RSA, "e": b64u((2**64 + 1).to_bytes(9))}, "exponent"),
    ({**RSA, "e": "AAEAAQ"}, "zero byte"),
    ({**RSA, "n": b64u(b"\0" + unb64u(RSA["n"]))}, "zero byte"),
    ({**RSA, "n": b64u((2**2048 - 2).to_bytes(256))}, "must be odd"),
]


@pytest.mark.parametrize(("jwk", "why"), REFUSED)
def test_an_invalid_public_key_is_refused_with_the_problem_in_the_message(jwk: object, why: str) -> None:
    with pytest.raises(InvalidKey, match=why):
        jose.parse_public_jwk(jwk)


@pytest.mark.parametrize(
    "jwk",
    [
        {**EC, "kid": "k" * 256},
        {**EC, "key_ops": ["verify"]},
        {**EC, "key_ops": ["deriveKey", "verify"]},
        {**EC, "x5c": ["not read"], "ext": True},
        {**OKP, "alg": "Ed25519"},
        {**RSA, "alg": "PS256"},
        {**RSA, "e": b64u((2**64 - 1).to_bytes(8))},
    ],
)
def test_a_public_key_at_the_limits_is_accepted(jwk: dict[str, object]) -> None:
    assert jose.parse_public_jwk(jwk).alg in jose.ALGS


@pytest.mark.parametrize(("bits", "taken"), [(2047, False), (2048, True), (4096, True), (4097, False)])
def test_an_rsa_key_has_2048_to_4096_bits(bits: int, taken: bool) -> None:
    modulus = (1 << bits) - 1  # odd, of that length, and no power of 65537 modulo small primes
    jwk = {**RSA, "n": b64u(modulus.to_bytes((bits + 7) // 8))}
    if taken:
        assert jose.parse_public_jwk(jwk).alg == "RS256"
    else:
        with pytest.raises(InvalidKey, match="2048 to 4096 bits"):
            jose.parse_public_jwk(jwk)


def test_a_modulus_of_the_roca_generator_is_refused() -> None:
    product = 1
    for prime in [p for p in range(3, 168, 2) if all(p % q for q in range(3, p, 2))]:
        product *= prime
    residue = pow(65537, 12345, product)
    modulus = residue + (((1 << 2047) // product // 2) * 2 + 2 - residue % 2 + 1) * product
    assert modulus % 2 == 1
    assert modulus.bit_length() == 2048
    with pytest.raises(InvalidKey, match="CVE-2017-15361"):
        jose.parse_public_jwk({**RSA, "n": b64u(modulus.to_bytes(256))})
    jose.parse_public_jwk({**RSA, "n": b64u((modulus + 2).to_bytes(256))})


def small_order() -> list[int]:
    """The y of all points whose eightfold is the neutral element, by the addition law of RFC 8032 section 5.1.4."""
    d = -121665 * pow(121666, -1, P25519) % P25519

    def add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = p, q
        t = d * x1 * x2 * y1 * y2 % P25519
        x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P25519) % P25519
        return x, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P25519) % P25519

    def times(k: int, p: tuple[int, int]) -> tuple[int, int]:
        result = (0, 1)
        while k:
            result = add(result, p) if k & 1 else result
            p, k = add(p, p), k >> 1
        return result

    order = 2**252 + 27742317777372353535851937790883648493
    found = set()
    for y in range(2, 40):
        square = (y * y - 1) * pow(d * y * y + 1, -1, P25519) % P25519
        x = pow(square, (P25519 + 3) // 8, P25519)
        x = x if x * x % P25519 == square else x * pow(2, (P25519 - 1) // 4, P25519) % P25519
        if x * x % P25519 == square:
            torsion = times(order, (x, y))
            found |= {times(k, torsion)[1] for k in range(8)}
    return sorted(found)


def test_ed25519_keys_of_small_order_are_refused_with_either_sign() -> None:
    points = small_order()
    assert len(points) == 5  # of the eight points, three pairs share their y
    for y in points:
        for sign in (0, 1 << 255):
            with pytest.raises(InvalidKey, match="small order"):
                jose.parse_public_jwk({**OKP, "x": little(y | sign)})


PRIVATE_EC, PRIVATE_OKP, PRIVATE_RSA = (KEYS[alg].jwk() for alg in ("ES256", "EdDSA", "RS256"))
OTHER = {alg: jose.generate(alg).jwk() for alg in ("ES256", "EdDSA", "RS256")}


@pytest.mark.parametrize(
    "jwk",
    [
        without(PRIVATE_EC, "d"),
        without(PRIVATE_OKP, "d"),
        without(PRIVATE_RSA, "d"),
        {**PRIVATE_EC, "d": OTHER["ES256"]["d"]},
        {**PRIVATE_OKP, "d": OTHER["EdDSA"]["d"]},
        {**PRIVATE_RSA, "d": OTHER["RS256"]["d"]},
        {**PRIVATE_RSA, "p": OTHER["RS256"]["p"]},
        {**PRIVATE_RSA, "dp": OTHER["RS256"]["dp"]},
        {**PRIVATE_RSA, "oth": []},
        *(without(PRIVATE_RSA, name) for name in ("p", "q", "dp", "dq", "qi")),
        {**PRIVATE_EC, "d": b64u(bytes(32))},
        {**PRIVATE_EC, "d": b64u(b"\xff" * 32)},
        {**PRIVATE_EC, "d": b64u(b"\x01" * 31)},
        {**PRIVATE_EC, "d": PRIVATE_EC["d"] + "="},
        {**PRIVATE_OKP, "d": b64u(b"\x01" * 31)},
        {**PRIVATE_OKP, "kty": "oct"},
        None,
    ],
)
def test_an_error_about_a_private_key_does_not_contain_the_private_value(jwk: dict[str, str] | None) -> None:
    with pytest.raises(InvalidKey) as refusal:
        jose.parse_private_jwk(jwk)
    secret = (jwk or {}).get("d", "nothing")
    assert secret not in refusal.value.message + refusal.value.hint
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_keys_generated_by_the_cryptography_library_are_parsed() -> None:
    numbers = ec.generate_private_key(ec.SECP384R1()).private_numbers()
    x, y, d = (
        b64u(value.to_bytes(48))
        for value in (numbers.public_numbers.x, numbers.public_numbers.y, numbers.private_value)
    )
    key = jose.parse_private_jwk({"kty": "EC", "crv": "P-384", "x": x, "y": y, "d": d})
    assert key.public.alg == "ES384"
    public = rsa.generate_private_key(public_exponent=65537, key_size=3072).public_key().public_numbers()
    assert jose.parse_public_jwk({"kty": "RSA", "n": b64u(public.n.to_bytes(384)), "e": "AQAB"}).alg == "RS256"


def test_a_key_set_is_the_same_after_rendering_and_parsing() -> None:
    jwks = JwkSet(tuple(KEYS[alg].public for alg in ALGS))
    again = JwkSet.parse(json.loads(json.dumps(jwks.render())))
    assert [key.thumbprint for key in again.keys] == [key.thumbprint for key in jwks.keys]
    assert again.find(EC["kid"]).thumbprint == KEYS["ES256"].public.thumbprint
    with pytest.raises(InvalidToken) as refusal:
        again.find("none of them")
    assert refusal.value.code == "unknown_kid"


def test_a_key_set_skips_keys_that_are_not_usable() -> None:
    unusable = [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "AKP"},
        {**EC, "crv": "P-521"},
        {**EC, "use": "enc"},
        5,
        without(RSA, "n"),
    ]
    assert [key.kid for key in JwkSet.parse({"keys": [*unusable, EC], "other": 1}).keys] == [EC["kid"]]


@pytest.mark.parametrize("value", [None, [], {}, {"keys": {}}, {"keys": [EC] * 129}])
def test_a_malformed_key_set_is_refused(value: object) -> None:
    with pytest.raises(InvalidKey):
        JwkSet.parse(value)


def test_a_key_set_can_have_128_keys() -> None:
    assert len(JwkSet.parse({"keys": [EC] * 128}).keys) == 128


@pytest.mark.parametrize("jwk", [PRIVATE_EC, PRIVATE_RSA, PRIVATE_OKP])
def test_a_key_set_with_a_private_key_is_refused_entirely(jwk: dict[str, str]) -> None:
    with pytest.raises(InvalidKey, match="private key is published"):
        JwkSet.parse({"keys": [SPARE, jwk]})


@given(st.binary(max_size=70))
def test_decoding_base64url_returns_the_encoded_bytes(data: bytes) -> None:
    text = b64u(data)
    assert unb64u(text) == unb64u(text.encode()) == data
    assert "=" not in text


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA=",
        "AA==",
        "AB",
        "AAB",
        "A A",
        "AA\n",
        "\nAA",
        "+/AA",
        "AA.A",
        "é",
        "\ud800",
        "AA\0",
        "====",
        "=",
    ],
)
def test_base64url_text_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        unb64u(text)


json_scraps = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*EC.values(), *RSA.values()]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.sampled_from([EC, OKP, RSA, PRIVATE_EC, PRIVATE_OKP, PRIVATE_RSA]),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "alg", "kid", "use", "key_ops", "p"]), json_scraps
    ),
)
def test_parsing_any_key_raises_nothing_but_invalid_key(jwk: dict[str, str], changes: dict[str, object]) -> None:
    refusals: list[str] = []
    for parse in (jose.parse_public_jwk, jose.parse_private_jwk, lambda jwk: JwkSet.parse({"keys": [jwk]})):
        try:
            parse({**jwk, **changes})
        except InvalidKey as refusal:
            refusals.append(refusal.code)
    assert set(refusals) <= {"invalid_key"}


@given(st.sampled_from([32, 48]), st.integers(0, 2**384 - 1), st.integers(0, 2**384 - 1))
@example(32, 0, 1)
@example(32, 0x7F << 248, 0x80 << 248)
@example(32, 0x80 << 248, 0x7F << 248)
@example(48, 2**384 - 1, 0x7F)
def test_der_signatures_equal_those_of_the_cryptography_library(size: int, r: int, s: int) -> None:
    r, s = r % (1 << 8 * size), s % (1 << 8 * size)
    der = material._der_signature(r.to_bytes(size), s.to_bytes(size))
    assert der == encode_dss_signature(r, s)
    end = 4 + der[3]
    fixed = [material._fixed(der[4:end], size), material._fixed(der[end + 2 :], size)]
    assert fixed == [r.to_bytes(size), s.to_bytes(size)]


def test_base64url_text_with_unused_bits_set_is_refused() -> None:
    letters = string.ascii_letters + string.digits + "-_"
    for length in (2, 3):
        for text in map("".join, itertools.product(letters, repeat=2)):
            spelled = text.rjust(length, "A")
            data = base64.urlsafe_b64decode(spelled + "=" * (4 - length))
            if b64u(data) == spelled:
                assert unb64u(spelled) == data
            else:
                with pytest.raises(Malformed):
                    unb64u(spelled)

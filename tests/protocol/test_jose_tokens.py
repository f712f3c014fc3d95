"""Compact JWS and JWT: the RFCs' examples, signatures that must not pass, every rule on both sides of its limit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol import jose
from ostiary.protocol.jose import InvalidToken, JwkSet, b64u, unb64u

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "jose.json").read_text())
KEYS = {alg: jose.generate(alg) for alg in sorted(jose.ALGS)}
KEY = KEYS["ES256"]
SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
CLAIMS: dict[str, object] = {
    "iss": "https://as.example",
    "sub": "agent",
    "aud": "https://rs.example",
    "exp": 1_700_000_060,
}
ORDER = {  # SEC 2 sections 2.4.2 and 2.5.1
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


def raw_token(header: object, payload: bytes = b"{}", key: jose.PrivateKey = KEY) -> str:
    """A token with any header, properly signed."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return jose.sign_jws(key, protected=b64u(head), payload=payload)


def verify(token: str, key: jose.PrivateKey = KEY, **options: Any) -> dict[str, object]:
    options = {"typ": {"at+jwt"}, "now": NOW, **options}
    return jose.verify_jwt(token, key_for=lambda header: key.public, **options)


def token(claims: dict[str, object] | None = None, **changes: object) -> str:
    return jose.sign_jwt(KEY, typ="at+jwt", claims={**(CLAIMS if claims is None else claims), **changes})


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=lambda vector: vector["source"])
def test_the_signatures_of_the_rfcs_verify_and_altered_ones_do_not(vector: dict[str, Any]) -> None:
    key = jose.parse_public_jwk(vector["jwk"])
    jws = jose.verify_jws(vector["jws"], key_for=lambda header: key, typ={None})
    assert jws.payload == unb64u(vector["jws"].split(".")[1])
    head, payload, signature = vector["jws"].split(".")
    altered = b64u(bytes([unb64u(signature)[0] ^ 1]) + unb64u(signature)[1:])
    for bad in (f"{head}.{payload}.{altered}", f"{head}.{b64u(b'x')}.{signature}"):
        with pytest.raises(InvalidToken):
            jose.verify_jws(bad, key_for=lambda header: key, typ={None})


def test_an_ed25519_signature_is_made_as_in_rfc_8037() -> None:
    key = jose.parse_private_jwk(VECTORS["private"]["jwk"])
    made = jose.sign_jws(key, protected=jose.protect({"alg": "EdDSA"}), payload=b"Example of Ed25519 signing")
    assert made == VECTORS["signatures"][3]["jws"]


@pytest.mark.parametrize("alg", sorted(jose.ALGS))
def test_a_token_verifies_only_with_its_own_key(alg: str) -> None:
    made = jose.sign_jwt(KEYS[alg], typ="at+jwt", claims=CLAIMS)
    assert verify(made, KEYS[alg]) == CLAIMS
    for other in KEYS:
        if other != alg:
            with pytest.raises(InvalidToken):
                verify(made, KEYS[other])
    fresh = jose.generate(alg)
    with pytest.raises(InvalidToken, match="signature"):
        verify(made, fresh)


def test_additional_header_members_do_not_replace_alg_and_kid() -> None:
    made = jose.sign_jwt(KEY, typ=None, claims=CLAIMS, header={"alg": "none", "kid": "x", "cty": "JWT"})
    header = jose.parse_jws(made).header
    assert dict(header) == {"alg": "ES256", "kid": KEY.public.kid, "cty": "JWT"}


# --- signatures ------------------------------------------------------------------------------------------------------

Forge = Callable[[int, int, int, int], bytes]
"""r, s, the order of the group, the size of a number -> what to send as the signature"""


def both(r: int, s: int, size: int) -> bytes:
    return r.to_bytes(size) + s.to_bytes(size)


FORGERIES: dict[str, Forge] = {
    "r and s zero": lambda r, s, n, size: both(0, 0, size),
    "r zero": lambda r, s, n, size: both(0, s, size),
    "s zero": lambda r, s, n, size: both(r, 0, size),
    "r is n": lambda r, s, n, size: both(n, s, size),
    "s is n": lambda r, s, n, size: both(r, n, size),
    "r and s are n": lambda r, s, n, size: both(n, n, size),
    "r is 1 and s is 0": lambda r, s, n, size: both(1, 0, size),
    "r is 0 and s is 1": lambda r, s, n, size: both(0, 1, size),
    "r and s are 1": lambda r, s, n, size: both(1, 1, size),
    "r and s are n - 1": lambda r, s, n, size: both(n - 1, n - 1, size),
    "s is n + 1": lambda r, s, n, size: both(r, n + 1, size),
    "all ones": lambda r, s, n, size: b"\xff" * (2 * size),
    "r negated": lambda r, s, n, size: both(n - r, s, size),
    "swapped": lambda r, s, n, size: both(s, r, size),
    "DER": lambda r, s, n, size: encode_dss_signature(r, s),
    "one byte short": lambda r, s, n, size: both(r, s, size)[:-1],
    "one byte long": lambda r, s, n, size: both(r, s, size) + b"\0",
    "a zero before each": lambda r, s, n, size: both(r, s, size + 1),
    "a zero before s": lambda r, s, n, size: r.to_bytes(size) + s.to_bytes(size + 1),
    "half": lambda r, s, n, size: both(r, s, size)[:size],
    "empty": lambda r, s, n, size: b"",
    "twice": lambda r, s, n, size: both(r, s, size) * 2,
}


@pytest.mark.parametrize("alg", sorted(alg for alg in jose.ALGS if alg.startswith("ES")))
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_malformed_ecdsa_signature_is_refused(alg: str, forge: Forge) -> None:
    key = KEYS[alg]
    signature = key.sign(b"text")
    size = len(signature) // 2
    r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    key.public.verify(signature, b"text")
    with pytest.raises(InvalidToken):
        key.public.verify(forge(r, s, ORDER[alg], size), b"text")


def test_an_ecdsa_signature_with_the_negated_s_also_verifies() -> None:
    """ECDSA is malleable and JOSE does not say otherwise: nothing may be remembered by its signature."""
    signature = KEY.sign(b"text")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    KEY.public.verify(both(r, ORDER["ES256"] - s, 32), b"text")


@pytest.mark.parametrize("alg", ["Ed25519", "RS256", "PS256"])
def test_altered_and_malformed_ed25519_and_rsa_signatures_are_refused(alg: str) -> None:
    key = KEYS[alg]
    signature = key.sign(b"text")
    forged = [
        b"",
        signature[:-1],
        signature + b"\0",
        b"\0" + signature,
        bytes(len(signature)),
        b"\xff" * len(signature),
    ]
    if alg == "Ed25519":  # RFC 8032 section 5.1.7: S is below the order of the group
        order = 2**252 + 27742317777372353535851937790883648493
        forged.append(signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little"))
    key.public.verify(signature, b"text")
    for bad in forged:
        with pytest.raises(InvalidToken):
            key.public.verify(bad, b"text")


def test_rs256_and_ps256_signatures_are_not_interchangeable() -> None:
    secret = KEYS["RS256"].jwk()
    pss = jose.parse_private_jwk({**secret, "alg": "PS256"})
    for signer, verifier in ((pss, KEYS["RS256"]), (KEYS["RS256"], pss)):
        with pytest.raises(InvalidToken):
            verifier.public.verify(signer.sign(b"text"), b"text")
        with pytest.raises(InvalidToken, match="the key is for"):
            verify(jose.sign_jwt(signer, typ="at+jwt", claims=CLAIMS), verifier)


# --- headers ---------------------------------------------------------------------------------------------------------

HEADER: dict[str, object] = {"alg": "ES256", "typ": "at+jwt"}

BAD_HEADERS: list[tuple[object, str]] = [
    ({"typ": "at+jwt"}, "no `alg`"),
    ({**HEADER, "alg": "none"}, "the key is for ES256"),
    ({**HEADER, "alg": "HS256"}, "the key is for ES256"),
    ({**HEADER, "alg": "ES384"}, "the key is for ES256"),
    ({**HEADER, "alg": "es256"}, "the key is for ES256"),
    ({**HEADER, "alg": ["ES256"]}, "`alg` .* not a string"),
    ({**HEADER, "alg": None}, "`alg` .* not a string"),
    ({**HEADER, "kid": 1}, "`kid` .* not a string"),
    ({**HEADER, "typ": ["at+jwt"]}, "`typ` .* not a string"),
    ({**HEADER, "typ": None}, "`typ` .* not a string"),
    ({**HEADER, "cty": {}}, "`cty` .* not a string"),
    ({"alg": "ES256"}, "not of type"),
    ({**HEADER, "typ": "JWT"}, "not of type"),
    ({**HEADER, "typ": ""}, "not of type"),
    ({**HEADER, "typ": "text/at+jwt"}, "not of type"),
    ({**HEADER, "typ": "at+jwt "}, "not of type"),
    ({**HEADER, "crit": []}, "crit"),
    ({**HEADER, "crit": ["exp"], "exp": 1}, "crit"),
    ({**HEADER, "crit": ["b64"], "b64": False}, "crit"),
    ({**HEADER, "b64": False}, "b64"),
    ({**HEADER, "b64": True}, "b64"),
    ([HEADER], "not a JSON object"),
    ("ES256", "not a JSON object"),
    (b"{", "not JSON"),
    (b'{"alg":"none","alg":"ES256","typ":"at+jwt"}', "same member twice"),
    (b'{"alg":"ES256","typ":"at+jwt","\\u0061lg":"ES256"}', "same member twice"),
    (b'\xef\xbb\xbf{"alg":"ES256","typ":"at+jwt"}', "not JSON"),
    (b'{"alg":"ES256","typ":"at+jwt","x":"\xff"}', "not JSON"),
    (b'{"alg":"ES256","typ":"at+jwt","x":' + b"[" * 16 + b"]" * 16 + b"}", "nested"),
    ({**HEADER, "x": "x" * 4096}, "longer than 4096"),
]


@pytest.mark.parametrize(("header", "why"), BAD_HEADERS)
def test_an_invalid_header_with_a_valid_signature_is_refused_with_the_problem(header: object, why: str) -> None:
    with pytest.raises(InvalidToken, match=why):
        verify(raw_token(header, json.dumps(CLAIMS).encode()))


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        {**HEADER, "typ": "AT+JWT"},
        {**HEADER, "typ": "application/at+jwt"},
        {**HEADER, "typ": "Application/At+Jwt"},
        {**HEADER, "unknown": {"deep": [1]}},
        {**HEADER, "x": "x" * 4000},
        b'{"alg":"ES256","typ":"at+jwt","x":' + b"[" * 15 + b"]" * 15 + b"}",
        b' {\n"typ" : "at+jwt","alg":\t"ES256" } ',
    ],
)
def test_a_valid_header_is_accepted(header: object) -> None:
    assert verify(raw_token(header, json.dumps(CLAIMS).encode())) == CLAIMS


def test_keys_contained_in_or_referenced_by_a_header_are_ignored() -> None:
    attacker = jose.generate("ES256")
    brought = {
        "jwk": attacker.public.bare_jwk,
        "jku": "https://evil.example",
        "x5u": "https://evil.example",
        "x5c": [""],
    }
    with pytest.raises(InvalidToken, match="signature"):
        verify(jose.sign_jwt(attacker, typ="at+jwt", claims=CLAIMS, header=brought))
    assert verify(jose.sign_jwt(KEY, typ="at+jwt", claims=CLAIMS, header=brought)) == CLAIMS


def test_a_token_without_typ_is_accepted_only_if_no_typ_is_required() -> None:
    untyped = raw_token({"alg": "ES256"}, json.dumps(CLAIMS).encode())
    assert verify(untyped, typ={None, "jwt"}) == CLAIMS
    assert verify(raw_token({"alg": "ES256", "typ": "JWT"}, json.dumps(CLAIMS).encode()), typ={None, "jwt"}) == CLAIMS
    with pytest.raises(InvalidToken, match="jwt"):
        verify(untyped, typ={"jwt"})


def test_the_accepted_algorithm_names_of_ed25519_depend_on_the_key() -> None:
    """RFC 9864: `EdDSA` covers Ed25519, so a key for `EdDSA` takes both names; a key for `Ed25519` takes its own."""
    secret = KEYS["EdDSA"].jwk()
    exact = jose.parse_private_jwk({**secret, "alg": "Ed25519"})
    by_family, by_name = (jose.sign_jwt(key, typ="at+jwt", claims=CLAIMS) for key in (KEYS["EdDSA"], exact))
    assert verify(by_family, KEYS["EdDSA"]) == verify(by_name, KEYS["EdDSA"]) == verify(by_name, exact) == CLAIMS
    with pytest.raises(InvalidToken, match="the key is for Ed25519"):
        verify(by_family, exact)


def test_a_parsed_header_is_read_only() -> None:
    header = jose.parse_jws(token()).header
    with pytest.raises(TypeError):
        header["alg"] = "none"  # type: ignore[index]


# --- form ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mangle",
    [
        lambda h, p, s: f"{h}.{p}",
        lambda h, p, s: f"{h}.{p}.{s}.",
        lambda h, p, s: f"{h}.{p}.{s}.{s}",
        lambda h, p, s: f".{h}.{p}.{s}",
        lambda h, p, s: f"{h}..{p}.{s}",
        lambda h, p, s: f"{h}.{p}.",
        lambda h, p, s: f"{h}..{s}",
        lambda h, p, s: f".{p}.{s}",
        lambda h, p, s: "",
        lambda h, p, s: "..",
        lambda h, p, s: f"{h}=.{p}.{s}",
        lambda h, p, s: f"{h}.{p}=.{s}",
        lambda h, p, s: f"{h}.{p}.{s}==",
        lambda h, p, s: f" {h}.{p}.{s}",
        lambda h, p, s: f"{h}.{p}.{s}\n",
        lambda h, p, s: f"{h}.{p[:8]}\n{p[8:]}.{s}",
        lambda h, p, s: f"{h}.{p}.{s[:-1]}{chr(ord(s[-1]) + 1)}",  # stray bits in the last letter
        lambda h, p, s: f"{h}.{p}.{s.replace('_', '/').replace('-', '+')}+",
        lambda h, p, s: f"{h}.{p}.{s}é",
        lambda h, p, s: f"{h}.{p}\ud800.{s}",
        lambda h, p, s: json.dumps({"protected": h, "payload": p, "signature": s}),
    ],
)
def test_a_token_in_another_form_than_compact_jws_is_refused(mangle: Callable[[str, str, str], str]) -> None:
    good = token()
    assert verify(good) == CLAIMS
    with pytest.raises(InvalidToken):
        verify(mangle(*good.split(".")))


def test_a_token_beyond_the_maximum_length_is_refused() -> None:
    good = token()
    assert verify(good, max_bytes=len(good)) == verify(good, max_bytes=len(good) + 1) == CLAIMS
    with pytest.raises(InvalidToken, match="longer"):
        verify(good, max_bytes=len(good) - 1)
    assert verify(token(x="x" * 8000))["x"] == "x" * 8000
    with pytest.raises(InvalidToken, match=f"longer than {jose.MAX_TOKEN_BYTES}"):
        verify(token(x="x" * jose.MAX_TOKEN_BYTES))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"exp":1,"exp":1800000000}', "same member twice"),
        (b'{"exp":1800000000,"x":NaN}', "not JSON"),
        (b'{"exp":1e999}', "not JSON"),
        (b'{"exp":1800000000,"x":' + b"[" * 16 + b"]" * 16 + b"}", "nested"),
        (b'{"exp":1800000000,"x":"\\ud800"}', "not JSON"),
    ],
)
def test_claims_that_are_not_a_valid_json_object_are_refused(payload: bytes, why: str) -> None:
    with pytest.raises(InvalidToken, match=why):
        verify(raw_token(HEADER, payload))


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "leeway", "why"),
    [
        ({"exp": 1_700_000_001}, 0, None),
        ({"exp": 1_700_000_000}, 0, "expired"),
        ({"exp": 1_699_999_999}, 0, "expired"),
        ({"exp": 1_700_000_000.000001}, 0, None),
        ({"exp": 1_700_000_000.0}, 0, "expired"),
        ({"exp": 1_699_999_996}, 5 * SECOND, None),
        ({"exp": 1_699_999_995}, 5 * SECOND, "expired"),
        ({"nbf": 1_700_000_000}, 0, None),
        ({"nbf": 1_700_000_001}, 0, "nbf"),
        ({"nbf": 1_700_000_005}, 5 * SECOND, None),
        ({"nbf": 1_700_000_006}, 5 * SECOND, "nbf"),
        ({"iat": 1_700_000_000}, 0, None),
        ({"iat": 1_700_000_001}, 0, "iat"),
        ({"iat": 1_700_000_005}, 5 * SECOND, None),
        ({"iat": 1_700_000_006}, 5 * SECOND, "iat"),
        ({"iat": 0}, 0, None),
        ({"exp": 253402300799}, 0, None),
        ({"exp": 253402300800}, 0, "`exp` is not a number"),
        ({"exp": 10**400}, 0, "`exp` is not a number|not JSON"),
        ({"exp": 1e300}, 0, "`exp` is not a number"),
        ({"nbf": -1}, 0, "`nbf` is not a number"),
        ({"exp": True}, 0, "`exp` is not a number"),
        ({"exp": "1800000000"}, 0, "`exp` is not a number"),
        ({"exp": None}, 0, "`exp` is not a number"),
        ({"iat": [1]}, 0, "`iat` is not a number"),
        ({"nbf": False}, 0, "`nbf` is not a number"),
    ],
)
def test_time_claims_must_be_numbers_and_their_limits_are_exact(
    claims: dict[str, object], leeway: int, why: str | None
) -> None:
    made = raw_token(HEADER, json.dumps({**CLAIMS, **claims}).encode())
    if why is None:
        assert verify(made, leeway=leeway)["sub"] == "agent"
    else:
        with pytest.raises(InvalidToken, match=why):
            verify(made, leeway=leeway)


def test_a_token_is_expired_from_the_microsecond_of_exp_on() -> None:
    end = 1_700_000_060 * SECOND
    assert verify(token(), now=end - 1) == CLAIMS
    for now in (end, end + 1):
        with pytest.raises(InvalidToken, match="expired"):
            verify(token(), now=now)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({}, None),
        ({"aud": ["https://rs.example"]}, None),
        ({"aud": ["https://rs.example", "https://other.example"]}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": "https://rs.example/"}, "aud"),
        ({"aud": "HTTPS://rs.example"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": {"https://rs.example": 1}}, "aud"),
        ({"iss": "https://as.example/"}, "iss"),
        ({"iss": ["https://as.example"]}, "iss"),
        ({"iss": None}, "iss"),
    ],
)
def test_issuer_and_audience_are_compared_exactly(claims: dict[str, object], why: str | None) -> None:
    wanted: dict[str, Any] = {"issuer": "https://as.example", "audience": "https://rs.example"}
    made = token({**CLAIMS, **claims})
    if why is None:
        assert verify(made, **wanted)["sub"] == "agent"
    else:
        with pytest.raises(InvalidToken, match=why):
            verify(made, **wanted)


@pytest.mark.parametrize(("name", "wanted"), [("iss", "issuer"), ("aud", "audience")])
def test_a_token_without_the_required_issuer_or_audience_is_refused(name: str, wanted: str) -> None:
    claims = {other: value for other, value in CLAIMS.items() if other != name}
    options: dict[str, Any] = {wanted: CLAIMS[name]}
    with pytest.raises(InvalidToken, match=f"`{name}`"):
        verify(token(claims), **options)


@pytest.mark.parametrize("name", ["exp", "jti", "iss", "aud"])
def test_a_token_without_a_required_claim_is_refused(name: str) -> None:
    claims = {other: value for other, value in CLAIMS.items() if other != name}
    wanted: dict[str, Any] = {"issuer": "https://as.example"} if name == "iss" else {}
    with pytest.raises(InvalidToken, match=name):
        verify(token(claims), required=(name,), **wanted)
    assert verify(token({**CLAIMS, "jti": "j"}), required=("exp", "jti"))["jti"] == "j"
    assert "exp" not in verify(token({"sub": "agent"}), required=())


def test_a_numeric_date_is_rounded_down_to_microseconds() -> None:
    assert jose.numeric_date({"t": 1.9999999}, "t") == 1_999_999
    assert jose.numeric_date({"t": 2}, "t") == 2_000_000
    for value in (math.nan, math.inf, -0.5):
        with pytest.raises(InvalidToken):
            jose.numeric_date({"t": value}, "t")


# --- key sets --------------------------------------------------------------------------------------------------------


def test_a_key_set_finds_the_key_that_a_header_names() -> None:
    jwks = JwkSet(tuple(key.public for key in KEYS.values()))
    for alg, key in KEYS.items():
        made = jose.sign_jwt(key, typ=None, claims=CLAIMS)
        assert jose.verify_jwt(made, key_for=jwks.key_for, typ={None}, now=NOW) == CLAIMS
        assert jwks.key_for({"alg": alg, "kid": key.public.kid}).thumbprint == key.public.thumbprint


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "ES256", "kid": "unknown"},
        {"alg": "ES384", "kid": KEY.public.kid},
        {"alg": "HS256", "kid": KEY.public.kid},
        {"alg": "none"},
        {"alg": "Ed25519"},  # two keys take that name
    ],
)
def test_a_key_set_finds_no_key_unless_exactly_one_key_matches(header: dict[str, object]) -> None:
    with pytest.raises(InvalidToken) as refusal:
        JwkSet(tuple(key.public for key in KEYS.values())).key_for(header)
    assert refusal.value.code == "unknown_kid"


def test_a_header_without_kid_selects_the_only_key_of_its_algorithm() -> None:
    assert JwkSet(tuple(key.public for key in KEYS.values())).key_for({"alg": "ES256"}).kid == KEY.public.kid


# --- anything --------------------------------------------------------------------------------------------------------

letters = st.text(alphabet="ABab01-_=. \né", max_size=12)


@given(st.text(max_size=80) | st.builds("{}.{}.{}".format, letters, letters, letters))
def test_verifying_any_text_raises_invalid_token(text: str) -> None:
    with pytest.raises(InvalidToken):
        verify(text)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_verifying_any_signed_bytes_raises_invalid_token(header: bytes, payload: bytes) -> None:
    with pytest.raises(InvalidToken):
        verify(raw_token(header, payload))
    with pytest.raises(InvalidToken):
        verify(raw_token(HEADER, payload), required=("exp",))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "cty", "jwk"]), json_values),
    st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub"]), json_values),
)
def test_verifying_any_signed_json_raises_nothing_but_invalid_token(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    made = raw_token({**HEADER, **header}, json.dumps({**CLAIMS, **claims}).encode())
    try:
        verified = verify(made, issuer="https://as.example", audience="https://rs.example")
    except InvalidToken:
        return
    assert verified["iss"] == "https://as.example"

"""JWT-SVIDs and bundles: the rules of the specification, at the limits and on both sides."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from spiffe import JwtBundle, JwtSvid, TrustDomain, X509Bundle
from spiffe import SpiffeId as TheirSpiffeId

from harness.client_certificates import of_unknown_version
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.protocol.jose import InvalidToken, b64u
from ostiaryd.certs.model.bundle import (
    ALGS,
    MAX_KEYS,
    MAX_SEQUENCE,
    JwtAuthority,
    TrustBundle,
    parse_bundle,
    parse_jwt_authority,
    render_bundle,
    render_jwt_keys,
)
from ostiaryd.certs.model.jwt_svid import (
    AHEAD,
    LIFETIME_S,
    MAX_AUDIENCE,
    MAX_AUDIENCES,
    check_audiences,
    sign_jwt_svid,
    verify_jwt_svid,
)
from ostiaryd.certs.model.spiffe_id import MAX_SPIFFE_ID, SpiffeId, check_trust_domain, parse_spiffe_id
from ostiaryd.certs.model.trust_domain import BackwardBundle, is_new
from ostiaryd.certs.model.trust_domain import TrustDomain as Federated
from tests.certs.svid_fixtures import ID, NOW, RSA, SECOND, document, jwk_of, jwt_jwk, root, token, x509_jwk


def authority(alg: str, kid: str = "k") -> JwtAuthority:
    parsed = parse_jwt_authority(jwk_of(alg, kid))
    assert parsed is not None
    return parsed


def verify(unverified: str, *, bundle: TrustBundle | None = None, now: int = NOW, audience: str = "api") -> SpiffeId:
    known = TrustBundle((), (authority("ES256"),)) if bundle is None else bundle
    return verify_jwt_svid(unverified, audience=audience, bundle_of=lambda _: known, now=now)[0]


# ---------------------------------------------------------------------------------------- Tokens


@pytest.mark.parametrize("alg", sorted(ALGS))
def test_every_algorithm_of_the_specification_verifies(alg: str) -> None:
    bundle = TrustBundle((), (authority(alg),))
    assert str(verify(token(alg), bundle=bundle)) == ID
    assert str(verify(token(alg, headers={"kid": None}), bundle=bundle)) == ID, "`kid` is optional"
    head, _, signature = token(alg).rpartition(".")
    broken = base64.urlsafe_b64decode(signature + "==")
    with pytest.raises(InvalidToken):
        verify(f"{head}.{b64u(broken[:-1] + bytes([broken[-1] ^ 1]))}", bundle=bundle)


def test_a_third_party_library_accepts_the_issued_tokens() -> None:
    key = jose.generate("ES256")
    signed, until = sign_jwt_svid(key, ID, ["api"], now=NOW)
    assert until == NOW + LIFETIME_S * SECOND
    assert jwt.get_unverified_header(signed) == {"alg": "ES256", "kid": key.public.kid, "typ": "JWT"}
    claims = jwt.decode(signed, options={"verify_signature": False})
    assert claims == {"sub": ID, "aud": ["api"], "iat": NOW // SECOND, "exp": NOW // SECOND + LIFETIME_S}
    now = int(datetime.now(UTC).timestamp()) * SECOND
    signed, _ = sign_jwt_svid(key, ID, ["api"], now=now)
    parsed = parse_jwt_authority({**key.public.jwk})
    assert parsed is not None
    theirs = JwtBundle.parse(TrustDomain("example.org"), render_jwt_keys([parsed]))
    assert str(JwtSvid.parse_and_validate(signed, theirs, {"api"}).spiffe_id) == ID


@pytest.mark.parametrize(
    ("claims", "at"),
    [
        ({}, NOW + 60 * SECOND - 1),
        ({"nbf": NOW // SECOND + AHEAD // SECOND}, NOW),
        ({"iat": NOW // SECOND + AHEAD // SECOND}, NOW),
        ({"aud": "api"}, NOW),
        ({"aud": ["other", "api"]}, NOW),
    ],
)
def test_times_and_audiences_up_to_the_limit_are_accepted(claims: dict[str, Any], at: int) -> None:
    assert str(verify(token(**claims), now=at)) == ID


@pytest.mark.parametrize(
    ("claims", "at"),
    [
        ({}, NOW + 60 * SECOND),
        ({"exp": None}, NOW),
        ({"exp": "soon"}, NOW),
        ({"nbf": NOW // SECOND + AHEAD // SECOND + 1}, NOW),
        ({"iat": NOW // SECOND + AHEAD // SECOND + 1}, NOW),
        ({"aud": None}, NOW),
        ({"aud": []}, NOW),
        ({"aud": "ap"}, NOW),
        ({"aud": ["other"]}, NOW),
        ({"aud": {"api": 1}}, NOW),
        ({"sub": None}, NOW),
        ({"sub": "spiffe://example.org"}, NOW),
        ({"sub": "https://example.org/agent/writer"}, NOW),
        ({"sub": "spiffe://example.org/agent/../writer"}, NOW),
    ],
)
def test_claims_beyond_the_limit_are_refused(claims: dict[str, Any], at: int) -> None:
    with pytest.raises(InvalidToken):
        verify(token(**claims), now=at)


@pytest.mark.parametrize("typ", ["JWT", "JOSE", None])
def test_the_token_types_of_the_specification_are_accepted(typ: str | None) -> None:
    assert str(verify(token(headers={"typ": typ}))) == ID


@pytest.mark.parametrize(
    "headers", [{"typ": "at+jwt"}, {"typ": "jwt"}, {"jku": "https://evil.example"}, {"crit": ["exp"]}, {"cty": "JWT"}]
)
def test_unknown_headers_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        verify(token(headers=headers))


def test_unsupported_algorithms_are_refused() -> None:
    claims = {"sub": ID, "aud": "api", "exp": NOW // SECOND + 60}
    secret = jwt.encode(claims, "secret" * 10, "HS256", headers={"kid": "k"})
    edwards = jwt.encode(claims, ed25519.Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": "k"})
    nothing = jwt.encode(claims, "", "none", headers={"kid": "k"})
    for unverified in (secret, edwards, nothing):
        with pytest.raises(InvalidToken, match="must be RS, ES or PS"):
            verify(unverified)


def test_a_token_without_a_key_of_its_algorithm_and_id_is_refused() -> None:
    with pytest.raises(InvalidToken):
        verify(token("ES384"), bundle=TrustBundle((), (authority("ES256"),)))
    with pytest.raises(InvalidToken):
        verify(token(), bundle=TrustBundle((), (authority("ES256", "other"),)))
    with pytest.raises(InvalidToken):
        verify(token(), bundle=TrustBundle((), ()))
    two = TrustBundle((), (authority("ES256", "k"), authority("ES256", "l")))
    assert str(verify(token(), bundle=two)) == ID
    with pytest.raises(InvalidToken):
        verify(token(headers={"kid": None}), bundle=two)


def test_a_token_is_verified_with_the_bundle_of_its_subject() -> None:
    wanted: list[SpiffeId] = []

    def bundle_of(subject: SpiffeId) -> TrustBundle:
        wanted.append(subject)
        return TrustBundle((), (authority("ES256"),))

    verify_jwt_svid(token(sub="spiffe://other.example/x"), audience="api", bundle_of=bundle_of, now=NOW)
    assert wanted == [SpiffeId("other.example", "/x")]


@pytest.mark.parametrize("audiences", [["a"], ["x" * MAX_AUDIENCE], [str(number) for number in range(MAX_AUDIENCES)]])
def test_audiences_up_to_the_limit_are_accepted(audiences: list[str]) -> None:
    check_audiences(audiences)


@pytest.mark.parametrize(
    ("audiences", "message"),
    [
        ([], "a JWT-SVID must have 1 to "),
        ([str(n) for n in range(MAX_AUDIENCES + 1)], "a JWT-SVID must have 1 to "),
        (["a", "a"], "an audience of the JWT-SVID is named twice"),
        ([""], "an audience must have 1 to "),
        ([" "], "an audience must have 1 to "),
        (["x" * (MAX_AUDIENCE + 1)], "an audience must have 1 to "),
        (["a\n"], "an audience must have 1 to "),
    ],
)
def test_audiences_beyond_the_limit_are_refused(audiences: list[str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        check_audiences(audiences)


# ---------------------------------------------------------------------------------------- SPIFFE IDs


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.org/agent/writer",
        "spiffe://a/b",
        "spiffe://1.2.3.4/x",
        "spiffe://under_score/A-Z.z_9",
        "spiffe://example.org",
        "spiffe://" + "x" * 255 + "/y",
        "spiffe://td/" + "x" * (MAX_SPIFFE_ID - 12),
    ],
)
def test_a_third_party_library_parses_the_same_spiffe_ids(text: str) -> None:
    assert str(parse_spiffe_id(text)) == text
    assert str(TheirSpiffeId(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///path",
        "Spiffe://example.org/x",
        "spiffe://Example.org/x",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/./b",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a%2fb",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://user@example.org/a",
        "spiffe://example.org:8080/a",
        "spiffe://[::1]/a",
        "spiffe://example.org/ü",
        "spiffe://" + "x" * 256 + "/y",
        "spiffe://td/" + "x" * (MAX_SPIFFE_ID - 11),
    ],
)
def test_malformed_spiffe_ids_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_spiffe_id(text)


def test_a_malformed_name_of_a_trust_domain_is_refused() -> None:
    assert check_trust_domain("example.org") == "example.org"
    for name in ("", "Example.org", "spiffe://example.org", "a/b", "x" * 256):
        with pytest.raises(Invalid):
            check_trust_domain(name)


# ---------------------------------------------------------------------------------------- Bundles


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), RSA, None]
)
def test_a_bundle_is_written_and_read_back_and_a_third_party_library_reads_it(key: Any) -> None:
    bundle = TrustBundle((root(key), root()), (authority("ES256"), authority("RS256", "r")), MAX_SEQUENCE, 300)
    rendered = render_bundle(bundle)
    again = parse_bundle(rendered)
    assert (again.x509, again.jwt_jwks, again[2:]) == (bundle.x509, bundle.jwt_jwks, bundle[2:])
    jwks = json.loads(rendered)["keys"]
    assert all("kid" not in jwk and len(jwk["x5c"]) == 1 for jwk in jwks if jwk["use"] == "x509-svid")
    assert all("kid" in jwk for jwk in jwks if jwk["use"] == "jwt-svid")
    assert {jwk["use"] for jwk in jwks} == {"x509-svid", "jwt-svid"}
    theirs = JwtBundle.parse(TrustDomain("example.org"), render_jwt_keys(bundle.jwt))
    assert set(theirs.jwt_authorities) == {"k", "r"}
    assert len(X509Bundle.parse_raw(TrustDomain("example.org"), b"".join(bundle.x509)).x509_authorities) == 2


def test_unknown_and_unusable_keys_are_ignored() -> None:
    der = root()
    used = parse_bundle(
        document(
            x509_jwk(der),
            x509_jwk(der),
            {"kty": "EC"},
            x509_jwk(der, use="wit-svid"),
            x509_jwk(der, x5c=[]),
            x509_jwk(der, x5c="text"),
            x509_jwk(der, x5c=["not base64"]),
            x509_jwk(der, x5c=["n\u00f6t base64"]),
            x509_jwk(root(is_authority=False)),
            x509_jwk(of_unknown_version(x509.load_der_x509_certificate(der))),
            x509_jwk(root(ec.generate_private_key(ec.SECP256K1()))),
            x509_jwk(root(rsa.generate_private_key(65537, 1024))),
            jwt_jwk(),
            jwt_jwk(kid=None),
            jwt_jwk(kid=""),
            jwt_jwk(kty="OKP"),
            jwt_jwk(crv="secp256k1"),
            jwt_jwk(x="AAAA"),
            "text",  # type: ignore[arg-type]
        )
    )
    assert (used.x509, [one.kid for one in used.jwt]) == ((der,), ["k"])
    assert parse_bundle(render_bundle(used)).x509 == (der,)


def test_only_the_first_certificate_of_a_key_counts() -> None:
    first, second = root(), root()
    jwk = x509_jwk(first)
    jwk["x5c"].append(base64.b64encode(second).decode())
    assert parse_bundle(document(jwk)).x509 == (first,)


def test_an_empty_bundle_is_read_as_a_bundle_without_keys() -> None:
    assert parse_bundle(b'{"keys": []}') == TrustBundle((), ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        document(spiffe_sequence=-1),
        document(spiffe_sequence=MAX_SEQUENCE + 1),
        document(spiffe_sequence=1.5),
        document(spiffe_sequence="1"),
        document(spiffe_sequence=True),
        document(spiffe_refresh_hint="soon"),
        document(jwt_jwk(d="secret")),
        document(*[{"kty": "EC"}] * (MAX_KEYS + 1)),
    ],
)
def test_a_malformed_bundle_is_refused(body: bytes) -> None:
    with pytest.raises((Malformed, Invalid)):
        parse_bundle(body)


def test_the_refresh_hint_is_bounded() -> None:
    assert [TrustBundle((), (), None, hint).refresh_s for hint in (None, 0, 9, 10, 600, 10**9)] == [
        300,
        300,
        10,
        10,
        600,
        86_400,
    ]


def federated(bundle: TrustBundle) -> Federated:
    return Federated(
        name="other.example",
        bundle_url="https://other.example",
        sequence=bundle.sequence,
        content=render_bundle(bundle),
        due_at=0,
        created_at=0,
    )


def test_a_bundle_never_goes_backwards() -> None:
    before, other = TrustBundle((root(),), (), 7), (root(),)
    assert is_new(Federated(name="other.example", bundle_url="", due_at=0, created_at=0), before)
    assert not is_new(federated(before), before)
    assert is_new(federated(before), TrustBundle(other, (), 8))
    assert is_new(federated(before), TrustBundle((), (), 8)), "an empty one revokes"
    assert is_new(federated(before), TrustBundle(other, (), None)), "without a sequence the newest counts"
    for sequence, problem in ((6, "a lower number"), (7, "other content"), (0, "a lower number")):
        with pytest.raises(BackwardBundle, match=f"with the sequence number {sequence} has {problem} than the stored"):
            is_new(federated(before), TrustBundle(other, (), sequence))
    assert issubclass(BackwardBundle, Refused)

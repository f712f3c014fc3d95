"""The encoding of certificates: byte for byte that of the builder of `cryptography`."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ostiaryd.certs.model.authority import (
    SECOND,
    SIGNING_USAGE,
    build_authority_certificate,
    hash_for,
    instant,
    last_second,
    subject_of,
)
from ostiaryd.certs.model.certificate import build_certificate, encode_extension, make_serial
from ostiaryd.certs.model.keys import KEY_TYPES, PrivateKey, encode_public_key, generate_key
from ostiaryd.certs.model.names import CertificateName, parse_name
from ostiaryd.ground.crypto.hsm import parse_ed25519_point

TYPES = [name for name in KEY_TYPES if name != "RSA-4096"]  # a key of 4,096 bits takes seconds
YEAR = 31_556_952 * SECOND
START = 56 * YEAR
LOCATION = x509.CRLDistributionPoints(
    [x509.DistributionPoint([x509.UniformResourceIdentifier("https://a.example/crl/3")], None, None, None)]
)
FEW = (parse_name("uri:spiffe://example.org/agent/bot"),)
ALL = tuple(map(parse_name, ("dns:a.example", "ip:10.0.0.1", "ip:2001:db8::1", "email:a@a.example", str(FEW[0]))))
MANY = tuple(parse_name(f"dns:host-{number}.example.com") for number in range(100))


@pytest.fixture(scope="module")
def keys() -> dict[str, PrivateKey]:
    return {key_type: generate_key(key_type) for key_type in TYPES}


@pytest.mark.parametrize("issuer_type", TYPES)
@pytest.mark.parametrize(
    ("subject", "names", "begins"),
    [
        ("ag_1", FEW, START),
        ("", FEW, START),
        ("ag_ü", ALL, 79 * YEAR),
        ("", MANY, 81 * YEAR),
    ],
)
def test_a_certificate_has_the_same_content_as_that_of_the_library_builder(
    keys: dict[str, PrivateKey], issuer_type: str, subject: str, names: tuple[CertificateName, ...], begins: int
) -> None:
    issuer, issuer_key = _authority(keys[issuer_type])
    ends = begins + YEAR
    for key_type, key in keys.items():
        serial = make_serial(begins, bytes(10))
        der = build_certificate(
            issuer=issuer,
            issuer_key=issuer_key,
            serial=serial,
            subject=subject,
            public_key=encode_public_key(key.public_key()),
            names=names,
            usages=("client", "server"),
            not_before=begins,
            not_after=ends,
            locations=encode_extension(LOCATION),
        )
        expected = (
            x509.CertificateBuilder()
            .subject_name(subject_of(subject) if subject else x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(int(serial, 16))
            .not_valid_before(instant(begins))
            .not_valid_after(last_second(ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(SIGNING_USAGE, critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([name.encode() for name in names]), critical=not subject)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .add_extension(LOCATION, critical=False)
            .sign(issuer_key, hash_for(issuer_key))
        )
        built = x509.load_der_x509_certificate(der)
        assert built.tbs_certificate_bytes == expected.tbs_certificate_bytes, key_type
        assert built.signature_algorithm_parameters is not None or issuer_type == "Ed25519"
        built.verify_directly_issued_by(issuer)


@pytest.mark.parametrize("serial", ["00" * 15 + "01", "00" * 15 + "7f", "00" * 15 + "80", "7f" + "ff" * 15, "ff" * 16])
def test_a_serial_number_is_positive(keys: dict[str, PrivateKey], serial: str) -> None:
    issuer, issuer_key = _authority(keys["P-256"])
    der = build_certificate(
        issuer=issuer,
        issuer_key=issuer_key,
        serial=serial,
        subject="",
        public_key=encode_public_key(keys["P-256"].public_key()),
        names=FEW,
        usages=("client",),
        not_before=START,
        not_after=START + YEAR,
    )
    assert x509.load_der_x509_certificate(der).serial_number == int(serial, 16)


def _authority(key: PrivateKey) -> tuple[x509.Certificate, PrivateKey]:
    assert isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey)
    der = build_authority_certificate(
        subject=subject_of("an authority"),
        key=key.public_key(),
        issuer=subject_of("an authority"),
        issuer_key=key,
        issuer_key_id=None,
        serial=1,
        not_before=START,
        not_after=START + 90 * YEAR,
        path_length=0,
    )
    return x509.load_der_x509_certificate(der), key


@pytest.mark.parametrize("prefix", ["", "0420", "032100"])
def test_a_point_of_ed25519_is_read_in_each_encoding_of_an_hsm(prefix: str) -> None:
    raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert parse_ed25519_point(bytes.fromhex(prefix) + raw).public_bytes_raw() == raw


@pytest.mark.parametrize("prefix", ["", "0439", "033a00"])
def test_a_point_of_ed448_is_refused(prefix: str) -> None:
    raw = ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(ValueError, match="not a point of Ed25519"):
        parse_ed25519_point(bytes.fromhex(prefix) + raw)

"""Client certificates in header fields (RFC 9440): what is read, and what is refused."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from cryptography import x509

from harness.client_certificates import TestAuthority, der, item, of_unknown_version, self_signed
from ostiary.protocol import jose
from ostiary.protocol.client_certificate import (
    MAX_CERTIFICATE,
    MAX_CHAIN,
    ClientCertificate,
    forwarded_certificate,
)
from ostiary.protocol.errors import Malformed

MADE = self_signed()
ITEM = item(MADE.certificate).encode()
# Certificate and fields of RFC 9440 appendix A, made by others.
RFC_9440 = (
    b":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVk"
    b"aWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnX"
    b"XfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSME"
    b"GDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4"
    b"YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmu"
    b"ydBVoU4hBVZ1yhk=:"
)


def read(*headers: tuple[bytes, bytes]) -> ClientCertificate | None:
    return forwarded_certificate(headers)


def test_the_example_of_the_rfc_is_read() -> None:
    read_one = read((b"client-cert", RFC_9440))
    assert read_one is not None
    names = x509.load_der_x509_certificate(read_one.der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.RFC822Name) == ["bdc@example.com"]
    assert read_one.chain == ()


def test_the_thumbprint_is_the_sha256_hash_of_the_der_encoding() -> None:
    read_one = read((b"host", b"x"), (b"client-cert", ITEM))
    assert read_one is not None
    assert read_one.thumbprint == jose.b64u(sha256(der(MADE.certificate)).digest())


@pytest.mark.parametrize("spelled", [b" " + ITEM, ITEM + b"  ", ITEM.replace(b"=", b"")])
def test_spaces_and_missing_padding_are_accepted_as_the_rfc_wants(spelled: bytes) -> None:
    read_one = read((b"client-cert", spelled))
    assert read_one is not None
    assert read_one.der == der(MADE.certificate)


def test_a_certificate_chain_is_read_from_one_field_or_several_fields() -> None:
    root = TestAuthority()
    below = TestAuthority("CN=below", below=root)
    ders = (der(below.certificate), der(root.certificate))
    one, other = (item(each.certificate).encode() for each in (below, root))
    for fields in ([one + b", " + other], [one, other]):
        read_one = read((b"client-cert", ITEM), *((b"client-cert-chain", field) for field in fields))
        assert read_one is not None
        assert read_one.chain == ders


def test_a_certificate_of_an_unknown_version_is_malformed() -> None:
    bad = b":" + b64encode(of_unknown_version(MADE.certificate)) + b":"
    for fields in ([(b"client-cert", bad)], [(b"client-cert", ITEM), (b"client-cert-chain", bad)]):
        with pytest.raises(Malformed, match="no certificate in DER"):
            read(*fields)


def test_a_certificate_chain_beyond_the_maximum_length_is_refused() -> None:
    assert read((b"client-cert", ITEM), (b"client-cert-chain", b",".join([ITEM] * MAX_CHAIN))) is not None
    with pytest.raises(Malformed, match=f"more than {MAX_CHAIN}"):
        read((b"client-cert", ITEM), (b"client-cert-chain", b",".join([ITEM] * (MAX_CHAIN + 1))))


def test_a_request_without_the_client_cert_field_has_no_certificate() -> None:
    assert read() is None
    assert read((b"x-client-cert", ITEM), (b"x-ssl-client-cert", ITEM)) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"::",
        ITEM[1:],
        ITEM[:-1],
        ITEM[1:-1],
        b'"' + ITEM[1:-1] + b'"',
        ITEM + b";a=1",
        ITEM + b", " + ITEM,
        ITEM[:40] + b" " + ITEM[40:],
        ITEM[:40] + b"\t" + ITEM[40:],
        ITEM.replace(b":", b"::"),
        b":AAAA:",
        b":A:",
        b":" + b64encode(der(MADE.certificate) + b"\0") + b":",
        b":" + b64encode(der(MADE.certificate)[:-1]) + b":",
        b":" + b64encode(MADE.pem.encode()) + b":",
        MADE.pem.replace("\n", " ").encode(),
        b"\xff" * 40,
    ],
)
def test_a_malformed_field_is_refused(value: bytes) -> None:
    for fields in ([(b"client-cert", value)], [(b"client-cert", ITEM), (b"client-cert-chain", value or b" ")]):
        if value == ITEM + b", " + ITEM and len(fields) == 2:
            continue  # a list, as a chain is
        with pytest.raises(Malformed):
            forwarded_certificate(fields)


def test_two_certificate_fields_and_a_chain_without_a_certificate_are_refused() -> None:
    with pytest.raises(Malformed, match="sent 2 times"):
        read((b"client-cert", ITEM), (b"client-cert", ITEM))
    with pytest.raises(Malformed, match="without `Client-Cert`"):
        read((b"client-cert-chain", ITEM))


def test_a_certificate_beyond_the_maximum_size_is_refused() -> None:
    longest = b":" + b"A" * (MAX_CERTIFICATE * 4 // 3 + 14) + b":"
    with pytest.raises(Malformed, match="contains no certificate"):
        read((b"client-cert", longest))
    with pytest.raises(Malformed, match=f"more than {MAX_CERTIFICATE} bytes"):
        read((b"client-cert", longest + b" "))

"""Certificate signing requests: the accepted forms, and the error for each malformed request."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from harness.registry_fixtures import ADMIN, newest_entry, register_agent
from ostiary.protocol.errors import Malformed, Refused
from ostiary.protocol.jose import parse_public_jwk, render_public_jwk
from ostiaryd.certs.model import BadKey, BadRequest, parse_csr, parse_name, read_csr
from ostiaryd.certs.model.authority import hash_for
from ostiaryd.certs.model.keys import (
    KEY_TYPES,
    check_key,
    check_public_key,
    encode_public_key,
    generate_key,
    parse_private_key,
    parse_public_key,
)
from ostiaryd.certs.model.requests import MAX_CSR_BYTES
from ostiaryd.certs.store import certificates
from ostiaryd.certs.wire_admin import issue_certificate
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from tests.support.certificate_fixtures import csr_builder, encode_slow_key, make_csr, new_key

KEY = new_key()
RSA_KEY = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_each_key_type_is_read_from_a_request(key_type: str) -> None:
    key = generate_key(key_type)
    csr = parse_csr(make_csr(key, ["dns:a.example"]))
    assert csr.key_type == key_type
    assert csr.public_key == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert [str(name) for name in csr.names] == ["dns:a.example"]


@pytest.mark.parametrize("key_type", ["P-256", "P-384", "Ed25519", "RSA-2048"])
@pytest.mark.parametrize(
    "names", [[], ["dns:a.example"], [f"dns:{'a' * 60}.{'b' * 60}.example"], ["dns:a.example"] * 30]
)
def test_a_request_has_the_key_the_subject_and_the_names_that_the_library_reads(
    key_type: str, names: list[str]
) -> None:
    for common_name in ("", "somebody"):
        der = make_csr(generate_key(key_type), names, common_name=common_name)
        own, theirs = parse_csr(der), x509.load_der_x509_csr(der)
        key = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert (own.public_key, own.subject) == (key, theirs.subject)
        assert [str(name) for name in own.names] == list(dict.fromkeys(names))


def test_a_subject_that_contains_a_key_does_not_replace_the_key_of_the_request() -> None:
    key, other = new_key(), encode_public_key(new_key().public_key())
    subject = x509.Name([x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, other, _ASN1Type.BitString)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hash_for(key))
    assert parse_csr(request.public_bytes(Encoding.DER)).public_key == encode_public_key(key.public_key())


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
def test_a_public_key_with_a_point_off_its_curve_is_refused(curve: str) -> None:
    key = encode_public_key(generate_key(curve).public_key())
    with pytest.raises(BadKey, match="cannot be read"):
        check_public_key(key[:-1] + bytes([key[-1] ^ 1]))
    with pytest.raises(BadKey, match="cannot be read"):
        check_public_key(key + b"\0")


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_the_identifiers_of_a_key_are_equal_to_those_of_the_library(key_type: str) -> None:
    key = generate_key(key_type).public_key()
    checked = check_public_key(encode_public_key(key))
    assert checked.key_type == key_type
    assert checked.jkt == parse_public_jwk(render_public_jwk(key)).thumbprint
    assert checked.key_id == x509.SubjectKeyIdentifier.from_public_key(key).digest


@pytest.mark.parametrize("key_type", ["P-256", "P-384"])
def test_a_key_with_a_compressed_point_has_the_thumbprint_of_the_uncompressed_key(key_type: str) -> None:
    key = generate_key(key_type).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = encode_public_key(key)[: -len(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))]
    algorithm = head[2 : 4 + head[3]]
    bits = b"\x03%c\0%b" % (len(point) + 1, point)
    compressed = b"\x30%c%b%b" % (len(algorithm) + len(bits), algorithm, bits)
    assert check_public_key(compressed).jkt == parse_public_jwk(render_public_jwk(key)).thumbprint


def test_a_stored_rsa_key_of_19630_bits_is_read() -> None:
    key = parse_private_key(encode_slow_key(Encoding.DER))
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 19_630


def test_names_of_every_kind_are_read_in_normal_form() -> None:
    names = ["dns:*.A.example", "ip:2001:DB8::1", "ip:10.0.0.1", "uri:spiffe://td/agent/bot", "email:Bob@Example.org"]
    assert [str(name) for name in parse_csr(make_csr(KEY, names)).names] == [
        "dns:*.a.example",
        "ip:2001:db8::1",
        "ip:10.0.0.1",
        "uri:spiffe://td/agent/bot",
        "email:Bob@example.org",
    ]


def test_names_at_their_limits_are_read() -> None:
    names = ["uri:a:%4F", "uri:https://a/", "uri:spiffe://td/a", f"email:{'a' * 64}@a.example", "email:a.b@a.example"]
    assert [str(name) for name in parse_csr(make_csr(KEY, names)).names] == names


@pytest.mark.parametrize("name", ["dns:\u212a.example", "email:a@\u212a.example"])
def test_a_letter_outside_of_ascii_in_a_host_name_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="not a DNS name"):
        parse_name(name)


@pytest.mark.parametrize("host", ["xn--bcher-kva.example", "*.xn--80ak6aa92e.example", "ab--cd.example"])
def test_international_labels_and_other_labels_with_two_hyphens_are_read(host: str) -> None:
    assert [str(name) for name in parse_csr(make_csr(KEY, [f"dns:{host}"])).names] == [f"dns:{host}"]


@pytest.mark.parametrize(
    ("common_name", "names"),
    [("bot", []), ("A.example", ["dns:a.example"]), ("10.0.0.1", ["ip:10.0.0.1"]), ("My Company Ltd.", [])],
)
def test_a_common_name_that_is_a_host_or_an_address_counts_as_a_name(common_name: str, names: list[str]) -> None:
    assert [str(name) for name in parse_csr(make_csr(KEY, common_name=common_name)).names] == names


def signed(builder: x509.CertificateSigningRequestBuilder) -> bytes:
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def with_bad_signature() -> bytes:
    return damaged(make_csr(KEY))


def damaged(der: bytes) -> bytes:
    return der[:-1] + bytes([der[-1] ^ 1])


def of_another_key() -> bytes:
    """The key in the request is replaced: its holder has not signed it."""
    other = new_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return make_csr(KEY).replace(own, other)


def with_critical_extension() -> bytes:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    return signed(csr_builder().add_extension(unknown, critical=True))


def for_an_authority() -> bytes:
    return signed(csr_builder().add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True))


def with_name_of_another_kind() -> bytes:
    name = x509.DirectoryName(x509.Name([]))
    return signed(csr_builder().add_extension(x509.SubjectAlternativeName([name]), critical=False))


def with_name(name: x509.GeneralName) -> Callable[[], bytes]:
    return lambda: signed(csr_builder().add_extension(x509.SubjectAlternativeName([name]), critical=False))


def with_many_names(count: int) -> bytes:
    return make_csr(KEY, [f"dns:h{number}.example" for number in range(count)])


def with_old_hash() -> bytes:
    """The signature says SHA-1, which no builder makes any more: the algorithm is replaced in the bytes."""
    der = make_csr(generate_key("RSA-2048"))
    sha256_with_rsa, sha1_with_rsa = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    assert der.count(sha256_with_rsa) == 1
    return der.replace(sha256_with_rsa, sha1_with_rsa)


def with_unknown_version() -> bytes:
    der = make_csr(KEY)
    place = der.index(b"\x02\x01\x00")  # version 1 (RFC 2986 section 4.1)
    return der[:place] + b"\x02\x01\x05" + der[place + 3 :]


def with_subject(tag: int, value: bytes) -> bytes:
    """Return a request whose common name `host.example` is replaced by bytes of that tag, signed again."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host.example")])
    body = x509.CertificateSigningRequestBuilder(name).sign(KEY, hashes.SHA256()).tbs_certrequest_bytes
    return signed_again(body.replace(b"\x0c\x0chost.example", bytes([tag, len(value)]) + value))


def with_two_lists(second: str) -> bytes:
    """Return a request with two attributes that each contain a list of extensions; the second has the OID `second`."""
    first = bytes.fromhex("06092a864886f70d01090e")
    body = x509.load_der_x509_csr(make_csr(KEY, ["dns:a.example"])).tbs_certrequest_bytes
    head, _, attribute = body.rpartition(b"\xa0")
    attribute = attribute[1:]
    assert attribute.count(first) == 1
    more = attribute.replace(first, bytes.fromhex(second)).replace(b"a.example", b"b.example")
    more = b"\x30%c%b" % (len(more) - 2, more[2:])
    attributes = b"\xa0%c%b%b" % (len(attribute) + len(more), attribute, more)
    version_to_key = head[2:] if head[1] < 0x80 else head[3:]
    content = version_to_key + attributes
    return signed_again(b"\x30\x81%c%b" % (len(content), content))


def with_key_for_pss() -> bytes:
    """The algorithm of the key is replaced: RSASSA-PSS without parameters (RFC 4055 section 1.2)."""
    body = x509.load_der_x509_csr(make_csr(RSA_KEY)).tbs_certrequest_bytes
    rsa_key, pss_key = bytes.fromhex("30820122300d06092a864886f70d0101010500"), "30820120300b06092a864886f70d01010a"
    assert body.count(rsa_key) == 1
    content = body[4:].replace(rsa_key, bytes.fromhex(pss_key))
    body = b"\x30\x82%b%b" % (len(content).to_bytes(2), content)
    signature = RSA_KEY.sign(body, padding.PKCS1v15(), hashes.SHA256())
    whole = body + bytes.fromhex("300d06092a864886f70d01010b050003820101") + b"\0" + signature
    return b"\x30\x82%b%b" % (len(whole).to_bytes(2), whole)


def with_tls_feature() -> bytes:
    """Return a request with a TLS feature (RFC 7633) that has no name."""
    feature = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.24"), b"\x30\x03\x02\x01\x63")
    return signed(csr_builder().add_extension(feature, critical=False))


def signed_again(body: bytes) -> bytes:
    """Return a request with this signed part."""
    signature = KEY.sign(body, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    whole = body + algorithm + bytes([3, len(signature) + 1, 0]) + signature
    length = bytes([0x81, len(whole)]) if len(whole) < 256 else b"\x82" + len(whole).to_bytes(2)
    return b"\x30" + length + whole


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a PKCS #10"),
    "not DER": (lambda: b"\x30\x82\xff\xff", "not a PKCS #10"),
    "trailing bytes": (lambda: make_csr(KEY) + b"\0", "not a PKCS #10"),
    "unknown version": (with_unknown_version, "not a PKCS #10"),
    "too long": (lambda: make_csr(KEY) + bytes(MAX_CSR_BYTES), f"over {MAX_CSR_BYTES} bytes"),
    "bad signature": (with_bad_signature, "signature of the request"),
    "bad signature of P-384": (lambda: damaged(make_csr(generate_key("P-384"))), "signature of the request"),
    "bad signature of Ed25519": (lambda: damaged(make_csr(generate_key("Ed25519"))), "signature of the request"),
    "key of another": (of_another_key, "signature of the request"),
    "old hash": (with_old_hash, "uses sha1"),
    "critical extension": (with_critical_extension, "1.2.3.4 is not understood"),
    "an authority": (for_an_authority, "certificate of an authority"),
    "another kind of name": (with_name_of_another_kind, "DirectoryName"),
    "a name with a space": (with_name(x509.DNSName("a b.example")), "not a DNS name"),
    "a name with a zero": (with_name(x509.DNSName("a.example\x00.evil")), "not a DNS name"),
    "an empty label": (with_name(x509.DNSName("a..example")), "not a DNS name"),
    "a wildcard inside": (with_name(x509.DNSName("a.*.example")), "not a DNS name"),
    "a bare wildcard": (with_name(x509.DNSName("*")), "not a DNS name"),
    "an A-label of nothing": (with_name(x509.DNSName("xn--.example")), "not a DNS name"),
    "an A-label of a control character": (with_name(x509.DNSName("xn--a.example")), "not a DNS name"),
    "an A-label in ASCII": (with_name(x509.DNSName("xn--abc-.example")), "not a DNS name"),
    "an A-label that is no Punycode": (with_name(x509.DNSName("xn--99999999999.example")), "not a DNS name"),
    "an address as a host": (with_name(x509.DNSName("10.0.0.1")), "not a DNS name"),
    "an address with a hexadecimal number": (with_name(x509.DNSName("1.0x7f")), "not a DNS name"),
    "an address in upper case": (with_name(x509.DNSName("0X7F000001")), "not a DNS name"),
    "an address of a wildcard": (with_name(x509.DNSName("*.0x")), "not a DNS name"),
    "an address as the common name": (lambda: make_csr(KEY, common_name="127.0.0x1"), "not a DNS name"),
    "a network": (with_name(x509.UniformResourceIdentifier("no uri")), "not an absolute URI"),
    "a URI with a wrong escape": (with_name(x509.UniformResourceIdentifier("a:%4g")), "not an absolute URI"),
    "a URI without its host": (with_name(x509.UniformResourceIdentifier("https:///a")), "not an absolute URI"),
    "a SPIFFE ID that goes up": (with_name(x509.UniformResourceIdentifier("spiffe://td/a/../b")), "is malformed"),
    "a SPIFFE ID with an escape": (with_name(x509.UniformResourceIdentifier("spiffe://td/a%2fb")), "is malformed"),
    "a SPIFFE ID with a port": (with_name(x509.UniformResourceIdentifier("spiffe://td:80/a")), "trust domain"),
    "the SPIFFE ID of a trust domain": (with_name(x509.UniformResourceIdentifier("spiffe://td")), "has no path"),
    "a mailbox with two dots": (with_name(x509.RFC822Name("a..b@a.example")), "not a mail address"),
    "a mailbox of 65 characters": (with_name(x509.RFC822Name(f"{'a' * 65}@a.example")), "not a mail address"),
    "the Kelvin sign": (lambda: make_csr(KEY, common_name="\u212a.example"), "not a DNS name"),
    "a subject that is no UTF-8": (lambda: with_subject(0x0C, b"\xff\xfe.example.."), "subject"),
    "a subject of bits": (lambda: with_subject(0x03, b"\0host.exampl"), "subject"),
    "a subject that is a number": (lambda: with_subject(0x02, b"\1" * 12), "subject"),
    "an unknown TLS feature": (with_tls_feature, "extensions"),
    "a second list of extensions": (lambda: with_two_lists("06092a864886f70d01090e"), "more than one list"),
    "a second list of Microsoft": (lambda: with_two_lists("060a2b06010401823702010e"), "more than one list"),
    "101 names": (lambda: with_many_names(101), "101 names"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_malformed_request_is_refused_with_its_reason(wrong: str) -> None:
    make, message = WRONG[wrong]
    with pytest.raises(BadRequest, match=message) as refused:
        parse_csr(make())
    assert refused.value.code == "bad_csr"


@pytest.mark.parametrize(("tag", "read"), [(0x14, False), (0x1E, True)], ids=["T61String", "BMPString"])
def test_a_subject_in_bmpstring_is_read_and_in_t61string_is_refused(tag: int, read: bool) -> None:
    der = with_subject(tag, "Müller".encode("latin-1" if tag == 0x14 else "utf-16-be").ljust(12, b"."))
    if read:
        assert parse_csr(der).subject.rfc4514_string() == "CN=Müller"
        return
    with pytest.raises(BadRequest, match="subject") as refused:
        parse_csr(der)
    assert "UTF-8" in refused.value.hint


def test_a_key_that_is_limited_to_pss_is_refused() -> None:
    with pytest.raises(BadKey, match="RSASSA-PSS"):
        parse_csr(with_key_for_pss())


def test_a_request_in_pem_of_an_unknown_version_is_refused() -> None:
    text = base64.encodebytes(with_unknown_version()).decode()
    der = read_csr(f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n")
    with pytest.raises(BadRequest, match=r"not a PKCS #10 request"):
        parse_csr(der)


def test_a_text_that_is_not_a_request_in_pem_is_malformed() -> None:
    pem = csr_builder().sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    begin, *lines, end = pem.splitlines()
    first, *others = lines
    for wrong in (
        "",
        begin,
        "\n".join([begin, *lines]),
        "\n".join([*lines, end]),
        "\n".join([begin, *lines, end.replace("CERT", "NEW CERT")]),
        "\n".join([begin.replace("CERT", "OLD CERT"), *lines, end]),
        "\n".join([begin, end]).replace("\n", "\n=\n"),
        "\n".join([begin, "!" + first, *others, end]),
        "\n".join([begin, first + "\0", *others, end]),
        "\n".join([begin, first[:-1], *others, end]),
        "\n".join([begin, first + "=", *others, end]),
        "\n".join([begin, "ü" + first, *others, end]),
        "\n".join([begin, "Proc-Type: 4,ENCRYPTED", "", *lines, end]),
    ):
        with pytest.raises(Malformed, match="not a certificate request in PEM"):
            read_csr(wrong)


def test_a_request_in_pem_has_one_block_with_any_text_around() -> None:
    pem = csr_builder().sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    der = x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)
    earlier = pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")  # RFC 7468 section 7
    for good in (pem, f"a request\n{pem}\nand its end", pem.replace("\n", "\r\n"), earlier):
        assert read_csr(good) == der
    for wrong in (pem + pem, pem + key, key + pem):
        with pytest.raises(Malformed, match="`csr` has 2 blocks of PEM") as refused:
            read_csr(wrong)
        assert refused.value.hint == "send the certificate request alone, never a key"


def test_100_names_are_read() -> None:
    assert len(parse_csr(with_many_names(100)).names) == 100


def test_a_request_has_at_most_16_kib() -> None:
    def filled(count: int) -> bytes:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(count))
        body = csr_builder().add_extension(extension, critical=False).sign(KEY, hashes.SHA256()).tbs_certrequest_bytes
        return signed_again(body)

    def of_size(size: int) -> bytes:
        """Signatures differ by a few bytes: sign until the request has that size."""
        count = 15_000 + size - len(filled(15_000))
        return next(der for der in iter(lambda: filled(count), None) if len(der) == size)

    parse_csr(of_size(MAX_CSR_BYTES))
    with pytest.raises(BadRequest, match="is over 16384 bytes"):
        parse_csr(of_size(MAX_CSR_BYTES + 1))


def rsa_key(p: int, q: int, e: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, p * q).public_key()


def primes_of(bits: int) -> tuple[int, int]:
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    return numbers.p, numbers.q


def next_prime(number: int) -> int:
    number += 1 + number % 2
    while pow(2, number - 1, number) != 1:
        number += 2
    return number


def close_factors() -> rsa.RSAPublicKey:
    p, _ = primes_of(2048)
    return rsa_key(p, next_prime(p))


def small_factor() -> rsa.RSAPublicKey:
    return rsa_key(751, ((1 << 2048) // 751 - 1) | 1)


def roca() -> rsa.RSAPublicKey:
    """A modulus of the form of the defect: each factor is k * M + 65537^a mod M (Nemec et al., 2017)."""
    product = 2
    for prime in (one for one in range(3, 702) if all(one % divisor for divisor in range(2, int(one**0.5) + 1))):
        product *= prime

    def factor(exponent: int) -> int:
        candidate = pow(65537, exponent, product) + ((1 << 1024) - (1 << 1020)) // product * product
        while pow(2, candidate - 1, candidate) != 1:
            candidate += product
        return candidate

    return rsa_key(factor(12345), factor(67890))


def small_order() -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))


BAD_KEYS: dict[str, tuple[Callable[[], object], str]] = {
    "1024 bits": (lambda: rsa.generate_private_key(65537, 1024).public_key(), "RSA-1024"),
    "exponent 3": (lambda: rsa.generate_private_key(3, 2048).public_key(), "exponent"),
    "close factors": (close_factors, "close to each other"),
    "a small factor": (small_factor, "small factor"),
    "ROCA": (roca, "CVE-2017-15361"),
    "a point of small order": (small_order, "small order"),
    "another curve": (lambda: ec.generate_private_key(ec.SECP521R1()).public_key(), "secp521r1"),
    "Ed448": (lambda: ed448.Ed448PrivateKey.generate().public_key(), "not certified"),
    "DSA": (lambda: dsa.generate_private_key(2048).public_key(), "not certified"),
}


@pytest.mark.parametrize("bad", BAD_KEYS)
def test_a_weak_or_known_bad_key_is_refused(bad: str) -> None:
    make, message = BAD_KEYS[bad]
    key = make()
    with pytest.raises(BadKey, match=message) as refused:
        check_key(parse_public_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))  # type: ignore[attr-defined]
    assert refused.value.code == "bad_public_key"


def test_a_generated_rsa_key_passes_the_checks() -> None:
    for _ in range(3):
        assert check_key(generate_key("RSA-2048").public_key()) == "RSA-2048"


def test_a_request_with_a_weak_key_is_refused_for_its_key() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(Refused, match="RSA-1024"):
        parse_csr(csr_builder().sign(weak, hash_for(generate_key("P-256"))).public_bytes(Encoding.DER))


async def test_each_malformed_request_leaves_an_entry_and_no_certificate(world: World) -> None:
    await register_agent(world)
    weak = csr_builder().sign(rsa.generate_private_key(65537, 1024), hashes.SHA256()).public_bytes(Encoding.DER)
    wrong = {what: (make(), "bad_csr") for what, (make, _) in WRONG.items()} | {"a weak key": (weak, "bad_public_key")}
    for what, (der, code) in wrong.items():
        text = base64.encodebytes(der).decode()
        csr = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
        body = json.dumps({"csr": csr, "agent": "bot"}).encode()
        headers = [(b"content-type", b"application/json")]
        with pytest.raises(Refused) as refused:
            await issue_certificate(Call(world, "POST", "/api/v1/certificates", {}, "", headers, body, "rq_1", ADMIN))
        assert refused.value.code in (code, "malformed"), what
        entry = newest_entry(world)
        assert (entry.action, entry.outcome, entry.reasons[0].code) == ("cert.issue", "refused", refused.value.code), (
            what
        )
    assert not certificates.page(world.db.read(), Page(10, ""))

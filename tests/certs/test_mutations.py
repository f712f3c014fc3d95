"""Messages in DER that differ from real messages in a few places: each is read as it is, or refused."""

from __future__ import annotations

import base64
import json
from contextlib import AbstractContextManager, nullcontext, suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import example, given

from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.errors import Malformed, Refused
from ostiaryd.certs.model import parse_csr
from ostiaryd.certs.model.authority import build_authority_certificate, read_begin, read_end, read_permitted, subject_of
from ostiaryd.certs.model.bundle import parse_bundle, render_bundle
from ostiaryd.certs.model.keys import generate_key
from ostiaryd.certs.model.revocation import parse_ocsp_request
from ostiaryd.secrets.flows.pki_issuers import check_authority, public_key_of
from ostiaryd.secrets.model.pki import is_issued_by
from tests.support.certificate_fixtures import make_csr, new_key
from tests.support.der_mutations import encode, list_elements, mutations, replace

NAMES = ["dns:*.a.example", "ip:10.0.0.1", "uri:spiffe://td/agent/bot", "email:bob@example.org"]
REQUESTS = [make_csr(generate_key(key_type), NAMES, common_name="a.example") for key_type in ("P-256", "Ed25519")]
ROOT_KEY = new_key()
ROOT = build_authority_certificate(
    subject=subject_of("Root"),
    key=ROOT_KEY.public_key(),
    issuer=subject_of("Root"),
    issuer_key=ROOT_KEY,
    issuer_key_id=None,
    serial=1,
    not_before=0,
    not_after=4 * 10**15,
    path_length=2,
    permitted=("dns:example.com",),
    trust_domain="td",
)
QUESTIONS = [
    ocsp.OCSPRequestBuilder()
    .add_certificate_by_hash(bytes(size), bytes(size), 1 << 120, algorithm)
    .add_extension(x509.OCSPNonce(b"n" * 16), critical=False)
    .build()
    .public_bytes(Encoding.DER)
    for size, algorithm in ((20, hashes.SHA1()), (32, hashes.SHA256()))
]


def may_refuse(der: bytes, *unchanged: bytes, kind: type[Refused] = Refused) -> AbstractContextManager[None]:
    """Accept the refusal of a changed message; an unchanged message must be read."""
    return nullcontext() if der in unchanged else suppress(kind)


@given(mutations(*REQUESTS))
@example(REQUESTS[0])
def test_a_changed_signing_request_is_refused(der: bytes) -> None:
    with may_refuse(der, *REQUESTS):
        parse_csr(der)
        assert der in REQUESTS


@given(mutations(*QUESTIONS))
@example(QUESTIONS[0])
def test_a_changed_ocsp_request_is_malformed_or_about_one_certificate(der: bytes) -> None:
    with may_refuse(der, *QUESTIONS, kind=Malformed):
        parsed = parse_ocsp_request(der)
        assert int(parsed.serial, 16) == ocsp.load_der_ocsp_request(der).serial_number
        assert parsed.nonce is None or 1 <= len(parsed.nonce) <= 128


@pytest.mark.parametrize("is_critical", [False, True])
def test_a_critical_extension_of_a_certificate_in_an_ocsp_request_is_refused(is_critical: bool) -> None:
    flag = encode(0x01, b"\xff") if is_critical else b""
    extension = encode(0x30, encode(0x06, b"\x2a\x03\x04") + flag + encode(0x04, b"\x01\x01\xff"))
    for question in QUESTIONS:
        certificate = list(list_elements(question))[4]
        of_certificate = question[certificate.begin : certificate.end]
        changed = replace(question, certificate, of_certificate + encode(0xA0, encode(0x30, extension)))
        if is_critical:
            with pytest.raises(Malformed, match="critical"):
                parse_ocsp_request(changed)
        else:
            assert parse_ocsp_request(changed) == parse_ocsp_request(question)


@given(mutations(ROOT))
@example(ROOT)
def test_a_changed_certificate_of_an_authority_is_read_or_refused(der: bytes) -> None:
    with may_refuse(der, ROOT):
        certificate = load_certificate(der)
        check_authority(certificate)
        read_begin(certificate)
        read_end(certificate)
        read_permitted(certificate)
        public_key_of(certificate)
        assert is_issued_by(certificate, certificate) is (der == ROOT)


@given(mutations(ROOT))
@example(ROOT)
def test_a_bundle_with_a_changed_authority_is_read_and_rendered_or_refused(der: bytes) -> None:
    jwk = {"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(der).decode()]}
    with may_refuse(der, ROOT):
        bundle = parse_bundle(json.dumps({"keys": [jwk]}).encode())
        assert bundle.x509 == (der,) or (der != ROOT and bundle.x509 == ())
        assert parse_bundle(render_bundle(bundle)) == bundle

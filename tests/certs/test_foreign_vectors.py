"""Requests, certificates and paths that others made: vectors of cryptography, with NIST's interoperability suite.

Each is read or refused with an error of ours, and each path of the suite is judged as its name says.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography import x509

from harness.client_certificates import der
from ostiary import ambient
from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.certs.model import BadKey, BadRequest, parse_csr
from ostiaryd.certs.model.revocation import parse_ocsp_request
from ostiaryd.trust.model.certificates import InvalidCertificate, SubjectKind, check_anchor, check_match, check_path

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

_SPEC = find_spec("cryptography_vectors")
assert _SPEC is not None
assert _SPEC.origin is not None
VECTORS = Path(_SPEC.origin).parent / "x509"

REQUESTS: dict[str, list[str] | type[Refused]] = {
    "bad-version": BadRequest,
    "basic_constraints": BadRequest,
    "challenge-invalid": BadRequest,
    "challenge-multi-valued": BadRequest,
    "challenge-unstructured": [],
    "challenge": [],
    "dsa_sha1": BadKey,
    "ec_sha256": ["dns:cryptography.io"],
    "ec_sha256_old_header": ["dns:cryptography.io"],
    "freeipa-bad-critical": BadRequest,
    "invalid_signature": BadKey,
    "long-form-attribute": BadRequest,
    "rsa_md4": BadRequest,
    "rsa_sha1": BadRequest,
    "rsa_sha256": ["dns:cryptography.io"],
    "san_rsa_sha1": BadRequest,
    "two_basic_constraints": BadRequest,
    "unsupported_extension": BadRequest,
    "unsupported_extension_critical": BadRequest,
    "zero-element-attribute": BadRequest,
}
"""The names of each request that is accepted, the refusal of each other one."""

OF_LISTS = re.compile(
    "CRL|Revoked|SelfIssued(New|Old)With|SeparateCertificateandCRLKeys|SerialNumber|cRL|distributionPoint|onlyContains"
    "|onlySomeReasons"
)
"""Paths of the suite that are wrong only by a revocation list, which the check of a path does not read."""
STRICTER = re.compile("DSA|requireExplicitPolicy|PolicyMapping|inhibitAnyPolicy")
"""Right paths of the suite that are refused all the same: keys of DSA, and authorities that require certain policies,
since no policy is acceptable here.
"""


def read_der(path: Path) -> bytes:
    text = path.read_bytes()
    if path.suffix != ".pem":
        return text
    match = re.search(rb"-----BEGIN[^\n]*-----(.*?)-----END", text, re.DOTALL)
    assert match is not None
    return base64.b64decode(match[1])


def test_each_third_party_request_is_accepted_or_refused_as_expected() -> None:
    paths = sorted((VECTORS / "requests").iterdir())
    assert {path.stem for path in paths} == set(REQUESTS)
    for path in paths:
        expected = REQUESTS[path.stem]
        if isinstance(expected, list):
            assert [str(name) for name in parse_csr(read_der(path)).names] == expected
        else:
            with pytest.raises(expected):
                parse_csr(read_der(path))


def test_each_third_party_ocsp_request_is_read_or_refused_as_expected() -> None:
    malformed = set[str]()
    for path in sorted((VECTORS / "ocsp").glob("*req*.der")):
        try:
            parse_ocsp_request(path.read_bytes())
        except Malformed:
            malformed.add(path.stem)
    assert malformed == {"req-duplicate-ext", "req-invalid-hash-alg", "req-invalid-version", "req-multi-sha1"}


def foreign_certificates() -> list[Path]:
    paths = [*VECTORS.glob("*.pem"), *VECTORS.glob("*.der"), *VECTORS.glob("custom/*.*"), *PKITS.glob("*.crt")]
    return [path for path in paths if not path.name.startswith("crl_")]


def test_each_third_party_certificate_is_read_or_refused_without_an_internal_error() -> None:
    now, malformed = ambient.now(), 0
    paths = foreign_certificates()
    for path in paths:
        content = read_der(path)
        for shown in (content, content[:-1], content[: len(content) // 2], content + b"\0"):
            try:
                certificate = load_certificate(shown)
            except Malformed:
                malformed += shown is content
                continue
            assert shown is content, f"{path.name} is read although its length is wrong"
            for check in (
                lambda one=certificate: check_anchor(one, now=now),
                lambda one=certificate: check_match(one, SubjectKind.DNS, "cryptography.io"),
                lambda one=certificate: check_match(one, SubjectKind.DN, "CN=a client"),
                lambda one=certificate: check_path(one, ClientCertificate(der(one), ()), [anchor()], now=now),
            ):
                with suppress(Invalid):
                    check()
    assert (len(paths), malformed) == (532, 33)


PKITS = VECTORS / "PKITS_data" / "certs"


@cache
def suite() -> dict[str, x509.Certificate]:
    """The certificates of the suite that can be read."""
    certificates = dict[str, x509.Certificate]()
    for path in sorted(PKITS.glob("*.crt")):
        try:
            certificates[path.stem] = load_certificate(path.read_bytes())
        except Malformed:
            assert "DSAParameter" in path.stem  # a key whose parameters stand in the certificate of its issuer
    return certificates


def anchor() -> x509.Certificate:
    return suite()["TrustAnchorRootCertificate"]


@cache
def authorities() -> dict[str, list[x509.Certificate]]:
    """The certificates of authorities by their subject, whose case and spaces do not count."""
    found = defaultdict(list)
    for name, certificate in suite().items():
        if not name.startswith(("Valid", "Invalid")) and certificate != anchor():
            found[_folded(certificate.subject)].append(certificate)
    return found


def _folded(name: x509.Name) -> str:
    return ",".join(" ".join(str(attribute.value).casefold().split()) for attribute in name)


def chain_of(leaf: x509.Certificate) -> Iterable[x509.Certificate]:
    """Every certificate that may stand above a certificate, below the anchor."""
    chain, waiting = list[x509.Certificate](), [leaf]
    while waiting:
        above = [one for one in authorities().get(_folded(waiting.pop().issuer), []) if one not in chain]
        chain += above
        waiting += above
    return chain


def test_each_path_of_the_interoperability_suite_has_the_expected_result() -> None:
    now, wrong, judged = ambient.now(), list[str](), 0
    for name, leaf in suite().items():
        if not name.startswith(("Valid", "Invalid")) or (name.startswith("Invalid") and OF_LISTS.search(name)):
            continue
        shown = ClientCertificate(der(leaf), tuple(map(der, chain_of(leaf))))
        try:
            check_path(leaf, shown, [anchor()], now=now)
        except InvalidCertificate:
            is_accepted = False
        else:
            is_accepted = True
        judged += 1
        if is_accepted != name.startswith("Valid") and (is_accepted or not STRICTER.search(name)):
            wrong.append(name)
    assert wrong == []
    assert judged == 155

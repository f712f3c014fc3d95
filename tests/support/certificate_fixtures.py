"""Keys, certificate signing requests and certificates, as clients make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ostiaryd.certs import flows
from ostiaryd.certs.model import (
    CertificateRequest,
    IssuedCertificate,
    RevocationReason,
    parse_csr,
    parse_name,
)
from ostiaryd.certs.model.authority import hash_for
from ostiaryd.certs.model.keys import PrivateKey
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import load

PERMIT_ALL = """@id("all") permit (principal is Agent, action == Action::"issue_certificate", resource is Agent);
permit (principal is Agent, action == Action::"issue_token", resource is Resource);"""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_slow_key(encoding: Encoding) -> bytes:
    """Return an RSA key of 19,630 bits in PKCS #8, for whose check OpenSSL takes minutes."""
    p, q, e = 2**9941 - 1, 2**9689 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())


def csr_builder(names: Sequence[str] = (), *, common_name: str = "") -> x509.CertificateSigningRequestBuilder:
    """Return the builder of a request for names such as `dns:api.example.com`."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        general = [parse_name(name).encode() for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder


def make_csr(key: PrivateKey | None = None, names: Sequence[str] = (), *, common_name: str = "") -> bytes:
    """Return a request in DER."""
    key = key or new_key()
    return csr_builder(names, common_name=common_name).sign(key, hash_for(key)).public_bytes(Encoding.DER)


async def issue(
    world: World, *, key: PrivateKey | None = None, names: Sequence[str] = (), profile: str = "agent", **more: Any
) -> IssuedCertificate:
    """Issue a certificate in an act of its own."""
    csr = parse_csr(make_csr(key, names))
    request = CertificateRequest(profile=profile, public_key=csr.public_key, names=csr.names, **more)
    return await act(world, "cert.issue", lambda act: flows.issue(act, request, config=world.config))


async def revoke(world: World, serial: str, reason: RevocationReason = RevocationReason.UNSPECIFIED) -> None:
    """Revoke a certificate in an act of its own."""
    await act(world, "cert.revoke", lambda act: flows.revoke(act, serial, reason))


async def put_policies(world: World, text: str = PERMIT_ALL) -> None:
    """Activate a policy set."""
    loaded = load({"a.cedar": text})
    await act(world, "policy.put", lambda act: policies.put(act, loaded, by=None))


def read(der: bytes) -> x509.Certificate:
    """Return a certificate."""
    return x509.load_der_x509_certificate(der)

"""A certificate authority for tests, and the certificates of clients and servers that it signs."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ostiary.protocol.client_certificate import ClientCertificate

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
Key = Any
LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))


def new_key(kind: str = "P-256") -> Key:
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-192":
            return ec.generate_private_key(ec.SECP192R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("RSA-")))


@dataclass(frozen=True)
class Made:
    """A certificate with its key, and the authorities between it and the root."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def shown(self) -> ClientCertificate:
        return ClientCertificate(der(self.certificate), tuple(map(der, self.chain)))

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields of RFC 9440 with which a proxy forwards it."""
        chain = [("client-cert-chain", ", ".join(map(item, self.chain)))] if self.chain else []
        return [("client-cert", item(self.certificate)), *chain]

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write the chain and the key, and return their paths."""
        folder.mkdir(exist_ok=True)
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        texts = [one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *self.chain)]
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for path, text in zip(paths, (b"".join(texts), key), strict=True):
            (part := path.with_suffix(path.suffix + ".part")).write_bytes(text)
            part.replace(path)
        return paths


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def item(certificate: x509.Certificate) -> str:
    return f":{b64encode(der(certificate)).decode()}:"


def sign(
    subject: str,
    key: Key,
    *,
    issuer: x509.Name | None = None,
    by: Key = None,
    names: Sequence[x509.GeneralName] = (),
    is_authority: bool = False,
    usages: Sequence[x509.ObjectIdentifier] = (),
    begins: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(days=1),
    at: datetime | None = None,
) -> x509.Certificate:
    """Return a certificate; without an issuer, a self-signed one."""
    name, now = x509.Name.from_rfc4514_string(subject), at or datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    by = by or key
    hashed = None if isinstance(by, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(by, hashed)


class TestAuthority:
    """A root, or an authority below one."""

    __test__ = False

    def __init__(
        self,
        subject: str = "CN=authority of a test",
        *,
        kind: str = "P-256",
        below: TestAuthority | None = None,
        at: datetime | None = None,
        ends: timedelta = timedelta(days=30),
    ) -> None:
        self.key, self.above, self.at = new_key(kind), below, at
        issuer, by = (None, None) if below is None else (below.certificate.subject, below.key)
        options: dict[str, Any] = {"issuer": issuer, "by": by, "at": at, "ends": ends}
        self.certificate: x509.Certificate = sign(subject, self.key, is_authority=True, **options)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, subject: str = "CN=a client", *, kind: str = "P-256", key: Key = None, **options: Any) -> Made:
        """Issue a certificate; options as for `sign`."""
        key = key or new_key(kind)
        made = sign(subject, key, issuer=self.certificate.subject, by=self.key, **{"at": self.at} | options)
        return Made(made, key, () if self.above is None else (self.certificate,))

    def save(self, path: Path) -> Path:
        path.write_text(self.pem)
        return path


def of_unknown_version(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER whose version is changed to 8, which X.509 does not have."""
    return der(certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)


def with_repeated_extension(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER with two basicConstraints (against RFC 5280 section 4.2)."""
    return der(certificate).replace(b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x13", 1)


def self_signed(subject: str = "CN=a client of its own", *, kind: str = "P-256", **options: Any) -> Made:
    key = new_key(kind)
    return Made(sign(subject, key, **options), key)


def context_of(authority: Path, made: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """The TLS context of a client that trusts an authority, with a certificate or without."""
    context = ssl.create_default_context(cafile=str(authority))
    if made is not None:
        context.load_cert_chain(*made)
    return context

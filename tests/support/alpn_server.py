"""A TLS server that answers tls-alpn-01 challenges (RFC 8737): one certificate for each server name."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PROOF = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def alpn_certificate(
    names: Sequence[x509.GeneralName], proof: bytes, *, critical: bool = True, oid: x509.ObjectIdentifier = PROOF
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate with the content of its `acmeIdentifier` extension, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(oid, proof), critical)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def general_name(host: str) -> x509.GeneralName:
    """Return a host as a name of a certificate."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def digest(proof: str) -> bytes:
    """Return the content of the extension for a key authorization: an OCTET STRING with its SHA-256."""
    return b"\x04\x20" + sha256(proof.encode()).digest()


@contextmanager
def alpn_server(folder: Path, proofs: Mapping[str, str]) -> Iterator[int]:
    """Serve the key authorizations of hosts on a port until the block ends."""
    by_name: dict[str, ssl.SSLContext] = {}

    def context_for(host: str) -> ssl.SSLContext:
        made, key = alpn_certificate([general_name(host)], digest(proofs[host]))
        file = folder / "alpn.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(made.public_bytes(Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["acme-tls/1"])
        return context

    def choose(tls: Any, server_name: str | None, _: ssl.SSLContext) -> None:
        host = next(host for host in proofs if server_name in (host, getattr(_address(host), "reverse_pointer", host)))
        tls.context = by_name.setdefault(host, context_for(host))

    first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    first.set_alpn_protocols(["acme-tls/1"])
    first.sni_callback = choose
    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            raw, _ = listener.accept()
            with raw, suppress(OSError), first.wrap_socket(raw, server_side=True) as tls:
                tls.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


def _address(host: str) -> Any:
    try:
        return ip_address(host)
    except ValueError:
        return None

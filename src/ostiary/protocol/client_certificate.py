"""Client certificates of TLS connections, and the header fields in which a reverse proxy forwards them (RFC 9440).

The functions here do not verify a certificate. Stricter than RFC 8941: the items of both fields have no parameters.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256

from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose.encoding import b64u

CLIENT_CERT, CLIENT_CERT_CHAIN = b"client-cert", b"client-cert-chain"
MAX_CERTIFICATE = 16 << 10
"""Maximum number of bytes of a certificate in DER."""
MAX_CHAIN = 8
"""Maximum number of certificates between the client's certificate and the trust anchor."""
_ITEM = re.compile(rb" *:([A-Za-z0-9+/]*={0,2}): *")
"""A byte sequence (RFC 8941 section 3.3.5) with spaces around it."""


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate whose key a client has proved to hold, and the further certificates that the client sent (DER)."""

    der: bytes
    chain: tuple[bytes, ...] = ()

    @cached_property
    def thumbprint(self) -> str:
        """Return the digest by which a token names the certificate: `x5t#S256` (RFC 8705 section 3.1)."""
        return b64u(sha256(self.der).digest())


def forwarded_certificate(headers: Iterable[tuple[bytes, bytes]]) -> ClientCertificate | None:
    """Return the certificate in the fields `Client-Cert` and `Client-Cert-Chain`; None if the request has neither
    field.

    Call this function only for requests of proxies that the configuration names, because any client can send the
    fields. Raises Malformed for malformed or repeated fields.
    """
    certificates: list[bytes] = []
    chains: list[bytes] = []
    for name, value in headers:
        if name == CLIENT_CERT:
            certificates.append(value)
        elif name == CLIENT_CERT_CHAIN:
            chains.append(value)
    if not certificates:
        if chains:
            raise Malformed(
                "`Client-Cert-Chain` was sent without `Client-Cert`",
                hint="set both headers at the proxy (RFC 9440 section 2.3)",
            )
        return None
    if len(certificates) > 1:
        raise Malformed(f"the header `client-cert` was sent {len(certificates)} times", hint="send the header once")
    return _parse(certificates[0], b",".join(chains))


@lru_cache(maxsize=1024)
def _parse(certificate: bytes, chain: bytes) -> ClientCertificate:
    members = chain.split(b",") if chain else []
    if len(members) > MAX_CHAIN:
        raise Malformed(f"`Client-Cert-Chain` has more than {MAX_CHAIN} certificates")
    ders = tuple(_parse_item(member, of="Client-Cert-Chain") for member in members)
    return ClientCertificate(_parse_item(certificate, of="Client-Cert"), ders)


def _parse_item(text: bytes, *, of: str) -> bytes:
    if len(text) > MAX_CERTIFICATE * 4 // 3 + 16:
        raise Malformed(f"a certificate in `{of}` has more than {MAX_CERTIFICATE} bytes")
    match = _ITEM.fullmatch(text)
    if match is None:
        raise Malformed(f"`{of}` is not a byte sequence", hint="send the certificate in DER as `:base64:` (RFC 9440)")
    digits = match[1].rstrip(b"=")
    try:
        der = b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
        load_certificate(der)
    except (binascii.Error, Malformed):
        raise Malformed(
            f"`{of}` contains no certificate in DER",
            hint="send the DER in base64 between colons (RFC 9440 section 2.1)",
        ) from None
    return der

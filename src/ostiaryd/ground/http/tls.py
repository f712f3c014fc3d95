"""TLS of the server: versions 1.2 and 1.3 (RFC 9325), with a certificate that is read again when its files change.

A listener may ask for client certificates (RFC 8705). The handshake accepts a certificate that is admitted, or whose
path leads to an admitted certificate. The handshake ignores the validity period: a request with an expired certificate
is refused later, so that the ledger records the refusal. `ostiaryd.trust` then decides which client the certificate
authenticates.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509

from ostiary.protocol.client_certificate import MAX_CERTIFICATE, MAX_CHAIN, ClientCertificate
from ostiary.protocol.errors import Invalid, Unavailable

log = logging.getLogger("ostiary")

LOOK_EVERY_S = 1.0
"""Minimum time between two checks of the files while connections arrive, in seconds."""
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2: only ciphers with forward secrecy and authenticated encryption (RFC 9325 section 4.2)."""
_State = tuple[tuple[int, int, int], ...]
_NO_CHECK_TIME = 0x200000
"""Value of X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name."""
_DER = 2
"""Value of ENCODING_DER in the module `_ssl`."""


class Admitted(NamedTuple):
    """The client certificates that a listener admits. `list_digests` is called for each new connection, and `load`
    (certificates in DER) when the digests have changed. Both may raise Unavailable; then the earlier certificates stay
    in use.
    """

    list_digests: Callable[[], tuple[str, ...]]
    load: Callable[[], list[bytes]]


def expiry(certificate: Path) -> datetime:
    """Return the end of validity of the certificate in a PEM file. Raises OSError for an unreadable file, ValueError
    for other content.
    """
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


class Certificate:
    """A certificate chain and its key in PEM files. With `admitted`, the listener asks clients for certificates."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        admitted: Admitted | None = None,
        password: Callable[[], str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read both files. `password` returns the password of the key. Raises Invalid if a file cannot be read, or the
        key does not belong to the certificate.
        """
        self._password = password or _no_password
        self._files, self._now, self._admitted = (certificate, key), now, admitted
        self._digests: tuple[str, ...] = ()
        try:
            self._state = self._look()
            self._context = self._read()
        except (OSError, ValueError) as error:
            raise Invalid(
                f"no certificate for TLS in {certificate} and {key}: {error}",
                hint="--tls-cert takes the chain, --tls-key its key without a password, both in PEM",
            ) from None
        self._looked = now()

    def context(self) -> ssl.SSLContext:
        """Return the TLS context for a new connection, made from the present files. If they cannot be used, the
        previous context stays in use.
        """
        now = self._now()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            try:
                state = self._look()
                if state != self._state:
                    self._context, self._state = self._read(), state
                    log.info("the certificate of %s was read again", self._files[0])
            except (OSError, ValueError) as error:  # a file may be incomplete; it is read again at its next change
                log.warning("the new certificate in %s cannot be used, the old one stays: %s", self._files[0], error)
        if self._admitted is not None:
            self._follow(self._admitted)
        return self._context

    def _follow(self, admitted: Admitted) -> None:
        """Make a new context if the admitted client certificates have changed, because OpenSSL cannot remove
        certificates from a context.
        """
        try:
            if (digests := admitted.list_digests()) != self._digests:
                self._context, self._digests = self._read(), digests
        except (OSError, ValueError, Unavailable) as error:
            log.warning("the admitted client certificates cannot be read, the old ones stay: %s", error)

    def _look(self) -> _State:
        """Return the modification state of the files, to detect changes."""
        states = [os.stat(path) for path in self._files]
        return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in states)

    def _read(self) -> ssl.SSLContext:
        """Return a TLS context made from the certificate and its key. Raises OSError for an unreadable file, ValueError
        (or its subclass ssl.SSLError) for an unusable certificate or key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password=self._password)
        if self._admitted is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            # A session from a ticket lacks the certificates between the client's certificate and the trust anchor. TLS
            # 1.3 then resumes no session; TLS 1.2 resumes sessions from the memory of this context, which have them.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            # Without TRUSTED_FIRST, OpenSSL first uses the chain that the client sent. A registered certificate with
            # the same name as the issuer of another client then does not disturb that client.
            context.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
            if admitted := self._admitted.load():
                context.load_verify_locations(cadata=b"".join(admitted))
        return context


def asks_for_certificates(transport: Any) -> bool:
    """Return whether the listener of a connection asks for client certificates."""
    session = transport.get_extra_info("ssl_object")
    return session is not None and session.context.verify_mode is not ssl.CERT_NONE


def shown_certificate(transport: Any) -> ClientCertificate | None:
    """Return the certificate that the client of a TLS connection showed; None if it showed none, or if it
    is too large.
    """
    session = transport.get_extra_info("ssl_object")
    if (der := session.getpeercert(binary_form=True)) is None or len(der) > MAX_CERTIFICATE:
        return None
    if hasattr(session, "get_unverified_chain"):  # Python 3.13
        sent = session.get_unverified_chain()
    else:
        sent = [one.public_bytes(_DER) for one in session._sslobj.get_unverified_chain() or ()]
    return ClientCertificate(der, tuple(sent[1 : MAX_CHAIN + 1]))


def _no_password() -> str:
    """Refuse a key with a password, because the password cannot be entered when the files are read again. Raises
    ValueError for such a key.
    """
    raise ValueError("the key has a password")

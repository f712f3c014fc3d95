"""TLS of the server: versions 1.2 and 1.3 (RFC 9325), with a certificate that is read again when its files change.

A listener may ask for client certificates (RFC 8705). The handshake accepts a certificate that is admitted, or that
leads to an admitted one. The handshake ignores the validity period: the request that uses an expired certificate is
refused instead, and leaves an entry. `ostiaryd.trust` then decides which client the certificate authenticates.
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
"""Seconds between checks of the files while connections arrive."""
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""ciphers of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2)"""
_State = tuple[tuple[int, int, int], ...]
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python does not name"""
_DER = 2
"""ENCODING_DER of `_ssl`"""


class Admitted(NamedTuple):
    """The certificates that a listener admits: `list_digests` is read for each new connection, and `load` (DER) after a
    change of it. Both may raise Unavailable; then the certificates from before count.
    """

    list_digests: Callable[[], tuple[str, ...]]
    load: Callable[[], list[bytes]]


def expiry(certificate: Path) -> datetime:
    """Return when the certificate in a PEM file ends. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


class Certificate:
    """A chain of certificates and its key, in PEM files; with `admitted`, clients are asked for certificates."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        admitted: Admitted | None = None,
        password: Callable[[], str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read both. `password` returns that of the key. Raises Invalid for files that cannot be read, or do not belong
        together.
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
        """Return the TLS context for new connections: of the present files, if they can be used."""
        now = self._now()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            try:
                state = self._look()
                if state != self._state:
                    self._context, self._state = self._read(), state
                    log.info("the certificate of %s was read again", self._files[0])
            except (OSError, ValueError) as error:  # it may be half written: it is read when it changes again
                log.warning("the new certificate in %s cannot be used, the old one stays: %s", self._files[0], error)
        if self._admitted is not None:
            self._follow(self._admitted)
        return self._context

    def _follow(self, admitted: Admitted) -> None:
        """Use a new context if other client certificates are admitted than before: OpenSSL forgets none."""
        try:
            if (digests := admitted.list_digests()) != self._digests:
                self._context, self._digests = self._read(), digests
        except (OSError, ValueError, Unavailable) as error:
            log.warning("the admitted client certificates cannot be read, the old ones stay: %s", error)

    def _look(self) -> _State:
        """Return the state of the files, to detect changes."""
        states = [os.stat(path) for path in self._files]
        return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in states)

    def _read(self) -> ssl.SSLContext:
        """Read the certificate and its key. Raises OSError, ValueError (of which ssl.SSLError is one)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password=self._password)
        if self._admitted is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            # Without TRUSTED_FIRST the client's own chain counts first, so that a registered certificate with the name
            # of another client's issuer is not in the way of that client.
            context.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
            if admitted := self._admitted.load():
                context.load_verify_locations(cadata=b"".join(admitted))
        return context


def asks_for_certificates(transport: Any) -> bool:
    """Return whether the listener of a connection asks for client certificates."""
    session = transport.get_extra_info("ssl_object")
    return session is not None and session.context.verify_mode is not ssl.CERT_NONE


def shown_certificate(transport: Any) -> ClientCertificate | None:
    """Return the certificate that the client of a TLS connection has shown; None without one, or if it is too large."""
    session = transport.get_extra_info("ssl_object")
    if (der := session.getpeercert(binary_form=True)) is None or len(der) > MAX_CERTIFICATE:
        return None
    if hasattr(session, "get_unverified_chain"):  # Python 3.13
        sent = session.get_unverified_chain()
    else:
        sent = [one.public_bytes(_DER) for one in session._sslobj.get_unverified_chain() or ()]
    return ClientCertificate(der, tuple(sent[1 : MAX_CHAIN + 1]))


def _no_password() -> str:
    """Refuse a key with a password, since a reload cannot ask for one. Raises ValueError."""
    raise ValueError("the key has a password")

"""TLS of the server: versions 1.2 and 1.3 (RFC 9325), with a certificate that is read again when its files change."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509

from ostiary.protocol.errors import Invalid

log = logging.getLogger("ostiary")

LOOK_EVERY_S = 1.0
"""Seconds between checks of the files, while connections arrive."""
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""ciphers of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2)"""
_State = tuple[tuple[int, int, int], ...]


def expiry(certificate: Path) -> datetime:
    """Return when the certificate in a PEM file ends. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


class Certificate:
    """A chain of certificates and its key, in PEM files."""

    def __init__(self, certificate: Path, key: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        """Read both. Raises Invalid for files that cannot be read, or do not belong together."""
        self._files, self._now = (certificate, key), now
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
        return self._context

    def _look(self) -> _State:
        """Return the state of the files, to notice changes."""
        states = [os.stat(path) for path in self._files]
        return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in states)

    def _read(self) -> ssl.SSLContext:
        """Read the certificate and its key. Raises OSError, ValueError (of which ssl.SSLError is one)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password=_no_password)
        return context


def _no_password() -> str:
    """Refuse a key with a password, since a reload cannot ask for one. Raises ValueError."""
    raise ValueError("the key has a password")

"""The client certificate of an agent (mutual TLS, RFC 8705): two PEM files, which are read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import httpx2

from ostiary.protocol.errors import Invalid

log = logging.getLogger("ostiary.agent")


class CertificateFiles:
    """The PEM files of a certificate with its chain, and of its key. `context`: the TLS context with this certificate;
    it trusts the certificate authorities in `SSL_CERT_FILE`, or those of the system.
    """

    def __init__(self, certificate: Path | str, key: Path | str) -> None:
        """Read the files. Raises Invalid if a file cannot be read, or if certificate and key do not belong together."""
        self._files = (Path(certificate), Path(key))
        try:
            self._state, self.context = self._look(), self._read()
        except (OSError, ValueError) as error:
            raise Invalid(
                f"cannot use the client certificate {certificate} with the key {key}: {error}",
                hint="name PEM files of a certificate and its key, without a password",
            ) from None

    def renew(self) -> bool:
        """Read the files if they have changed. Return whether `context` was replaced.

        If certificate and key do not belong together, because only one file was replaced so far, the earlier
        certificate stays in use.
        """
        try:
            if (state := self._look()) == self._state:
                return False
            self.context, self._state = self._read(), state
        except (OSError, ValueError) as error:
            log.warning("the new client certificate in %s cannot be used yet: %s", self._files[0], error)
            return False
        return True

    def _look(self) -> list[tuple[int, int, int]]:
        states = [os.stat(path) for path in self._files]
        return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in states]

    def _read(self) -> ssl.SSLContext:
        """Read certificate and key, and return the TLS context. Raises OSError for an unreadable file, ssl.SSLError for
        a key that does not fit, ValueError for a key with a password.
        """
        context = httpx2.create_ssl_context()
        context.load_cert_chain(*self._files, password=_refuse_password)
        return context


def _refuse_password() -> str:
    raise ValueError("the key has a password")

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
    """The files of a certificate with its chain, and of its key. Trusted servers are those of `SSL_CERT_FILE`, or of
    the system.
    """

    def __init__(self, certificate: Path | str, key: Path | str) -> None:
        """Read the files. Raises Invalid."""
        self._files = (Path(certificate), Path(key))
        try:
            self._state, self.context = self._look(), self._read()
        except (OSError, ValueError) as error:
            raise Invalid(f"no client certificate in {certificate} and {key}: {error}") from None

    def renew(self) -> bool:
        """Read the files if they have changed; return whether `context` is another one then.

        Files that do not belong together, as between two replacements, leave the certificate from before in use.
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
        """Read certificate and key. Raises OSError, ValueError (of which ssl.SSLError is one)."""
        context = httpx2.create_ssl_context()
        context.load_cert_chain(*self._files, password=_refuse_password)
        return context


def _refuse_password() -> str:
    raise ValueError("the key has a password")

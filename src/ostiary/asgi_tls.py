"""Client certificates for guards under uvicorn: the TLS extension of ASGI, which uvicorn does not have yet.

    uvicorn module:app --http ostiary.asgi_tls:TlsProtocol --ssl-cert-reqs 1 --ssl-ca-certs clients.pem ...

A guard (`ostiary.asgi`, `ostiary.fastapi`, `ostiary.mcp`) then compares the certificate of the connection with that to
which a token is bound (RFC 8705 section 3). `--ssl-cert-reqs 1` admits clients without a certificate too.
"""

from __future__ import annotations

import ssl
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TlsProtocol(HttpToolsProtocol):
    """A connection of uvicorn that adds the client's certificate to the scope, as `scope["extensions"]["tls"]`."""

    _tls: dict[str, Any] | None = None

    def connection_made(self, transport: Any) -> None:
        """Read the client's certificate, which cannot change during the connection: there is no renegotiation."""
        super().connection_made(transport)
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            der = session.getpeercert(binary_form=True)
            self._tls = {"client_cert_chain": [] if der is None else [ssl.DER_cert_to_PEM_cert(der)]}

    def on_headers_complete(self) -> None:
        """Add the certificate to the scope of the request."""
        if self._tls is not None:
            extensions = self.scope.setdefault("extensions", {}) or {}
            self.scope["extensions"] = cast(Any, {**extensions, "tls": self._tls})
        super().on_headers_complete()

"""The requests that a local proxy accepts.

Other programs and users of the machine, and web pages in its browsers, can reach the port as well. Therefore three
checks apply. The `Host` of a request must be that of the proxy: in a DNS rebinding attack, it is the host of the page.
The request must not come from a web page. Its path must begin with the capability, a secret that only permitted users
of the proxy know.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ostiary.keys import Credential
from ostiary.protocol.errors import Invalid, Refused
from ostiary.protocol.jose import b64u

Headers = list[tuple[bytes, bytes]]
"""Names and values of headers; names are in lower case."""

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te")
) | {b"trailer", b"transfer-encoding", b"upgrade"}
"""Headers of a single connection, which are not forwarded (RFC 9110 section 7.6.1)."""
OURS = frozenset((b"host", b"authorization", b"dpop", b"origin", b"referer", b"expect"))
"""Request headers that are not forwarded, because they are for the proxy only, or because the proxy sets them
itself.
"""
HIDDEN = frozenset((b"www-authenticate", b"dpop-nonce", b"alt-svc", b"strict-transport-security", b"location"))
"""Response headers that are not forwarded, because they are for the proxy only, or because the proxy sets them
itself.
"""
_DOTS = re.compile(r"(?:\.|%2e){1,2}(?:(?:;|%3b).*)?", re.IGNORECASE | re.DOTALL)
"""Pattern of dot segments. Servers in Java ignore the part of a segment after a semicolon."""
_SEGMENT_END = re.compile(r"/|\\|%2f|%5c", re.IGNORECASE)
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)


class Rejected(Refused):
    """The refusal of a request, which gets the response `status` and is not forwarded."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status


@dataclass(frozen=True, slots=True)
class Listen:
    """The listening address of a proxy: a host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    socket: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Parse `HOST:PORT` or `unix:PATH`. Raises Invalid for other text."""
        if text.startswith("unix:"):
            return cls(socket=Path(text[5:]))
        match = _HOST.fullmatch(text)
        if match is None or match["port"] is None or int(match["port"]) > 65535:
            raise Invalid(f"{text!a} is not HOST:PORT", hint="write an address such as 127.0.0.1:8701, or unix:PATH")
        return cls(match["host"].strip("[]"), int(match["port"]))

    @property
    def is_local(self) -> bool:
        """Return whether only programs of this machine can reach the address."""
        return self.socket is not None or _is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Entrance:
    """The checks on the requests of one proxy. `capability` is the first segment of each path; if empty, no
    capability is needed.
    """

    listen: Listen
    capability: str

    @property
    def base(self) -> str:
        """Return the URL that clients use in place of the URL of the protected server."""
        host = f"[{self.listen.host}]" if ":" in self.listen.host else self.listen.host
        origin = "http://localhost" if self.listen.socket is not None else f"http://{host}:{self.listen.port}"
        return f"{origin}/{self.capability}".rstrip("/")

    def check(self, method: str, target: str, headers: Headers) -> str:
        """Check a request. Return the path and query at the upstream server, without the capability. Raises Rejected
        for a request of another host or origin, or with a wrong capability, path or header.
        """
        if method == "CONNECT" or not target.startswith("/"):
            raise Rejected(
                400,
                "no_forward_proxy",
                "the request target is not a path; this proxy forwards to one server only",
                hint="use the URL of this proxy as the URL of the server, not as an HTTP proxy",
            )
        if self.listen.socket is None:
            self._check_host(headers)
        self._check_origin(headers)
        path, _, query = target.partition("?")
        rest = self._below(path)
        if not target.isascii() or "#" in target:
            raise Rejected(
                400,
                "invalid_path",
                "the path has a character that must be escaped",
                hint="percent-encode the character",
            )
        if has_dot_segments(rest):
            raise Rejected(
                400,
                "invalid_path",
                "the path has a segment of dots",
                hint="send the path without `.` and `..` segments",
            )
        if _STRAY_PERCENT.search(rest):
            raise Rejected(
                400,
                "invalid_path",
                "the path has a `%` without two hexadecimal digits",
                hint="write the character `%` as %25",
            )
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            raise Rejected(400, "malformed", "the request has both `Content-Length` and `Transfer-Encoding`")
        if any(name == b"upgrade" for name, _ in headers):
            raise Rejected(501, "no_upgrade", "WebSocket and other upgrades do not pass this proxy", hint="use HTTP")
        return f"{rest}?{query}" if query else rest

    def _check_host(self, headers: Headers) -> None:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        host, port = (match["host"].strip("[]"), int(match["port"] or 80)) if match is not None else ("", 0)
        is_ours = host.lower() in ("localhost", self.listen.host) or (
            _is_loopback(host) if self.listen.is_local else _is_address(host)
        )
        if not is_ours or port != self.listen.port:
            raise Rejected(421, "wrong_host", "the `Host` is not that of this proxy", hint=f"use {self._origin}")

    def _check_origin(self, headers: Headers) -> None:
        """Check that the request does not come from a web page: browsers send `Origin` or `Sec-Fetch-Site` with such a
        request. Raises Rejected otherwise.
        """
        for name, value in headers:
            is_foreign = (name == b"origin" and value.decode("latin-1") != self._origin) or (
                name == b"sec-fetch-site" and value not in (b"none", b"same-origin")
            )
            if is_foreign:
                raise Rejected(403, "foreign_origin", "web pages may not use this proxy")

    @property
    def _origin(self) -> str:
        return "{0.scheme}://{0.netloc}".format(urlsplit(self.base))

    def _below(self, path: str) -> str:
        if not self.capability:
            return path if path != "/" else ""
        first, slash, rest = path[1:].partition("/")
        if not hmac.compare_digest(first.encode("latin-1", "replace"), self.capability.encode()):
            raise Rejected(
                404, "not_found", "not found", hint="use the URL that the proxy printed, with its random path"
            )
        return f"{slash}{rest}"


def has_dot_segments(path: str) -> bool:
    """Return whether a path has a segment such as `..`, which some servers resolve to another path."""
    return any(_DOTS.fullmatch(segment) for segment in _SEGMENT_END.split(path))


def capability_of(credential: Credential, upstream: str) -> str:
    """Return the capability, a secret that clients of a proxy for the server `upstream` must send as the first segment
    of the path. The capability is equal at each start of the proxy with the same credential and `upstream`.

    The capability is derived from the private key or the client secret of the credential. Therefore no file is needed,
    and only the holder of the credential can compute the capability.
    """
    secret = credential.secret if credential.secret is not None else credential.key.jwk()["d"]
    return b64u(hmac.digest(secret.encode(), f"ostiary proxy|{upstream}".encode(), sha256)[:18])


def filter_request_headers(headers: Headers) -> Headers:
    """Return those headers of a client's request that the proxy forwards to the upstream server."""
    return _without(headers, HOP_BY_HOP | OURS, prefixes=(b"sec-fetch-", b"proxy-"))


def filter_response_headers(headers: Headers) -> Headers:
    """Return those headers of the upstream server's response that the proxy forwards to a client."""
    return _without(headers, HOP_BY_HOP | HIDDEN, prefixes=(b"access-control-", b"proxy-"))


def _without(headers: Headers, names: frozenset[bytes], *, prefixes: tuple[bytes, ...]) -> Headers:
    """Return the headers without `names`, without the headers that `Connection` lists, and without names with a prefix
    of `prefixes`.
    """
    named = [value for name, value in headers if name == b"connection"]
    listed = {word.strip().lower() for value in named for word in value.split(b",")}
    return [
        (name, value)
        for name, value in headers
        if name not in names and name not in listed and not name.startswith(prefixes)
    ]


def has_body(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether the headers of a request announce a body (RFC 9112 section 6)."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

"""Strict parsing of request heads: a head that two servers could understand differently is refused.

The library h11 is as lenient as RFC 9112 permits: a line may end with LF alone, a header may continue on the next line,
and `Content-Length` may be repeated with equal values. A proxy that decides about a request must refuse these heads.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ostiary.protocol.destination import parse_host
from ostiary.protocol.errors import Invalid
from ostiary.proxy.connections import MAX_HEAD
from ostiary.proxy.entrance import Headers, Rejected

_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_HEAD_END = re.compile(rb"\n\r?\n")
_FOLDED = re.compile(rb"\n[ \t]")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]{1,16384}) HTTP/1\.[01]")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = re.compile(rb"[A-Za-z0-9._~-]")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#]+)(?::([0-9]{1,5}))?")


class Authority(NamedTuple):
    """A normalized host name or address, and a port number."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the authority as in a URL: the host, and the port after a colon."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_head(head: bytes) -> None:
    """Check that every server understands a request head in the same way. `head`: its bytes, with the empty line at the
    end. Raises Rejected otherwise.
    """
    if len(head) > MAX_HEAD:
        raise Rejected(431, "head_too_large", f"the head of the request has over {MAX_HEAD >> 10} KiB")
    if b"\0" in head:
        raise _malformed("the head of the request has a null character")
    if _BARE.search(head):
        raise _malformed("a line does not end with CRLF")
    lines = head[:-4].split(b"\r\n")
    if not _LINE.fullmatch(lines[0]):
        raise _malformed("the request line is not `METHOD TARGET HTTP/1.1` with a TARGET of at most 16,384 characters")
    if any(line[:1] in (b" ", b"\t") for line in lines[1:]):
        raise _malformed("a header continues in the next line")
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    for name in (b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization"):
        if names.count(name) > 1:
            raise _malformed(f"the header {name.decode()} was sent twice")
    if {b"content-length", b"transfer-encoding"} <= {*names}:
        raise _malformed("the request has both Content-Length and Transfer-Encoding")
    if b"transfer-encoding" in names and lines[0].endswith(b"1.0"):
        raise _malformed("HTTP/1.0 has no Transfer-Encoding")


def check_answer_head(data: bytes) -> None:
    """Check the head of an answer at the beginning of `data`, if the head is complete. Raises Rejected for a head of
    more than MAX_HEAD bytes, and for a header that continues in the next line (RFC 9112 section 5.2), because the line
    end could divide a secret.
    """
    if (end := _HEAD_END.search(data)) is None:
        return
    if end.start() > MAX_HEAD:
        raise Rejected(502, "upstream_failed", f"the head of the server's answer has over {MAX_HEAD >> 10} KiB")
    if _FOLDED.search(data, 0, end.start() + 1):
        raise Rejected(502, "upstream_failed", "a header of the server's answer continues in the next line")


def normalize_path(path: bytes) -> bytes:
    """Return a path in the form that policies and the server see: characters that need no percent-encoding are not
    encoded, and hexadecimal digits are upper case (RFC 3986 section 6.2.2). Raises Rejected for a `%` without two
    hexadecimal digits.
    """

    def normalize(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise Rejected(
                400,
                "invalid_path",
                "the path has a `%` without two hexadecimal digits",
                hint="write the character `%` as %25",
            )
        letter = bytes.fromhex(match[1].decode())
        return letter if _UNRESERVED.fullmatch(letter) else match[0].upper()

    return _ESCAPE.sub(normalize, path)


def check_framing(headers: Headers) -> None:
    """Check the headers that determine the length of the body. Raises Rejected if the check fails."""
    for name, value in headers:
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            raise _malformed("the transfer encoding is not `chunked`")
        if name == b"content-length" and not re.fullmatch(rb"[0-9]{1,15}", value):
            raise _malformed("Content-Length is not a number")


def parse_authority(text: str, *, default_port: int | None) -> Authority:
    """Return host and port of a request target or a `Host` header. `default_port`: the port for a text without one;
    None if the port is required. Raises Rejected if the text is not HOST:PORT.
    """
    match = _AUTHORITY.fullmatch(text)
    port = default_port if match is None or match[2] is None else int(match[2])
    if match is None or port is None or not 0 < port < 65536:
        raise _malformed("the host of the request is not HOST:PORT")
    try:
        return Authority(parse_host(match[1].strip("[]")), port)
    except Invalid as refusal:
        raise Rejected(400, "malformed", refusal.message, hint=refusal.hint) from None


def _malformed(why: str) -> Rejected:
    return Rejected(400, "malformed", why, hint="send the request in the form of RFC 9112")

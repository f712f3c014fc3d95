"""The normal form of an http(s) target (RFC 3986 sections 6.2.2 and 6.2.3, without query and fragment), and a URI with
more parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlencode

from ostiary.protocol.errors import Malformed

MAX_URI = 2048

_URI = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<path>[^?#]*)", re.IGNORECASE)
_TEXT = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")  # RFC 3986 section 2
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::(?P<port>[0-9]{0,5}))?")
_ESCAPE = re.compile(r"%..")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORT = {"http": 80, "https": 443}


@lru_cache(maxsize=1024)
def normalise_uri(uri: str) -> str:
    """Return the normal form of a URI, without query and fragment: scheme and host in lower case, no default port,
    escapes only where needed, no dot segments, no empty path.

    Raises Malformed unless the text is an absolute http(s) URI without user information.
    """
    if len(uri) > MAX_URI:
        raise Malformed(f"the URI is longer than {MAX_URI} characters")
    parts = _URI.match(uri)
    if parts is None or not _TEXT.fullmatch(uri):
        raise Malformed("the text is not an absolute http or https URI")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise Malformed("the URI has no plain HOST or HOST:PORT: a user, or a malformed address or port")
    scheme = parts["scheme"].lower()
    host = _normalise_escapes(_normalise_escapes(authority["host"]).lower())
    port = int(authority["port"] or _DEFAULT_PORT[scheme])
    if port > 65535:
        raise Malformed("the port of the URI is beyond 65535")
    suffix = "" if port == _DEFAULT_PORT[scheme] else f":{port}"
    return f"{scheme}://{host}{suffix}{_remove_dots(_normalise_escapes(parts['path']))}"


def add_query(uri: str, parameters: Mapping[str, str]) -> str:
    """Return a URI with these parameters at the end of its query (RFC 6749 sections 3.1 and 3.1.2), without a
    fragment.
    """
    whole = uri.partition("#")[0]
    joint = "?" if "?" not in whole else "" if whole.endswith(("?", "&")) else "&"
    return f"{whole}{joint}{urlencode(parameters)}"


def _normalise_escapes(text: str) -> str:
    """Return the text with hexadecimal digits in upper case and unreserved characters unescaped (sections
    6.2.2.1 and 6.2.2.2).
    """
    return _ESCAPE.sub(_normalise_escape, text) if "%" in text else text


def _normalise_escape(match: re.Match[str]) -> str:
    character = chr(int(match[0][1:], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _remove_dots(path: str) -> str:
    """Return a path without dot segments (section 5.2.4); the path is empty or begins with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)

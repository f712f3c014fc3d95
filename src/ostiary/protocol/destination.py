"""Destinations of secrets: the origin that owns a secret, and the place in a request where an egress proxy puts it.

A program never has the secret. The program sends the placeholder `OSTIARY:NAME`, where `NAME` is the name of the
destination, or a request without a placeholder. The proxy replaces the placeholder by the secret, and puts the secret
into the field that the destination states.
"""

from __future__ import annotations

import base64
import re
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol.errors import Invalid

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
HTTP_PORT, HTTPS_PORT = 80, 443
PROXY_URI = "http://localhost/egress/"
"""Beginning of the URI of an egress proxy; the name of its agent follows."""
MIN_SECRET = 8
"""Minimum length of a secret in characters: a shorter text occurs in answers by chance, and would be masked there."""
MAX_SECRET = 4096
MAX_TEMPLATE = 256
PLAIN, BASE64 = "{secret}", "{base64}"
"""The parts of a template that are replaced by the secret: unchanged, or in base64, as the scheme `Basic` needs it."""
_FORM = "write the origin as https://HOST[:PORT]"
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_FRAMING = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect", "keep-alive")
)
"""Headers that determine the end of a request or its server. A secret must not be put into them, because it would
change the request.
"""


class Place(StrEnum):
    """The place of a secret in a request. `placeholder`: only where the program sends `OSTIARY:NAME`."""

    HEADER = "header"
    QUERY = "query"
    BODY = "body"
    PLACEHOLDER = "placeholder"


class Destination(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The origin that owns a secret, and the place of the secret in requests to it.

    `origin`: `https://HOST[:PORT]`, or `http://` for this machine, in lower case and without the usual port. `field`:
    the name of the header, of the query parameter, or of the member of the body, as `place` says; empty for the place
    `placeholder`. `private`: whether the host is allowed to have private addresses.
    """

    name: str
    origin: str
    place: Place
    field: str = ""
    template: str = PLAIN
    private: bool = False

    def check(self) -> None:
        """Check that every member of the destination is valid. Raises Invalid otherwise."""
        if not NAME.fullmatch(self.name):
            raise Invalid(
                "`name` must have 1 to 63 lower-case letters, digits and inner hyphens",
                hint="use a name such as github-token",
            )
        if parse_origin(self.origin) != self.origin:
            raise Invalid("`origin` is not in its usual form", hint=f"write {parse_origin(self.origin)}")
        if self.place is Place.PLACEHOLDER and self.field:
            raise Invalid("`field` must be empty for the place `placeholder`", hint="leave out `field`")
        if self.place is not Place.PLACEHOLDER and not self.field:
            raise Invalid(
                f"`field` is empty for the place `{self.place}`",
                hint="name the header, the parameter of the query or the member of the body",
            )
        if self.field and not _FIELD.fullmatch(self.field):
            raise Invalid("`field` has a character that a name of a header cannot have")
        if self.place is Place.HEADER and self.field.lower() in _FRAMING:
            raise Invalid(
                f"`field` must not be {self.field}, which determines the server or the end of the request",
                hint="use a header such as Authorization",
            )
        parts = len(re.findall(r"\{secret\}|\{base64\}", self.template))
        if parts != 1 or not (0 < len(self.template) <= MAX_TEMPLATE) or not is_visible(self.template):
            raise Invalid(
                f"`template` must be 1 to {MAX_TEMPLATE} visible characters with `{PLAIN}` or `{BASE64}` once",
                hint="use a template such as: Bearer {secret}",
            )
        if self.place is Place.PLACEHOLDER and self.template != PLAIN:
            raise Invalid(
                "a destination with the place `placeholder` must not have a `template`",
                hint=f"leave `template` at {PLAIN}",
            )

    def render(self, secret: str) -> str:
        """Return the value to put into the request: the template of the destination with the secret in it."""
        return self.template.replace(PLAIN, secret).replace(BASE64, base64.b64encode(secret.encode()).decode())


def parse_origin(url: str) -> str:
    """Return the origin `scheme://host[:port]` in lower case, without the port of the scheme. Raises Invalid for other
    URLs, and for http to another machine.

    The scheme is https; http is for this machine alone. A host is a name in ASCII, or an address in its one usual form:
    `2130706433`, `127.1` and `0x7f.1`, which resolvers read as addresses, are refused.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Invalid("the origin is not a valid URL", hint=_FORM) from None
    if parts.scheme not in ("http", "https"):
        raise Invalid("the scheme of the origin must be https", hint=_FORM)
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in url:
        raise Invalid("the origin must not have a path, a query, a fragment or a user", hint=_FORM)
    if not url.isascii():
        raise Invalid("the origin is not in ASCII", hint="write an international name in its form `xn--`")
    host = parse_host(host)
    if parts.scheme == "http" and not is_loopback_host(host):
        raise Invalid(
            "an origin off this machine must be https", hint="use https: without TLS, others could read the secret"
        )
    usual = HTTP_PORT if parts.scheme == "http" else HTTPS_PORT
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in (None, usual) else f":{port}")


def parse_host(host: str) -> str:
    """Return a host in lower case and without a final dot: a name, or an address in its usual form. Raises Invalid for
    other text.
    """
    host = host.lower().removesuffix(".")
    if is_address_like(host):
        try:
            address = ip_address(host)
        except ValueError:
            raise Invalid(
                "the host is not an IP address in its usual form",
                hint="write the address as 203.0.113.7 or [2001:db8::1]",
            ) from None
        if getattr(address, "scope_id", None):
            raise Invalid("the address has a zone", hint="write the address without `%`")
        return str(address)
    if not host.isascii():
        raise Invalid("the host is not in ASCII", hint="write an international name in its form `xn--`")
    if not _HOST.fullmatch(host):
        raise Invalid(f"the host {host[:64]!a} is not a name", hint="write a name such as api.example.com")
    return host


def is_address_like(host: str) -> bool:
    """Return whether a host in lower case is an IP address, or a text that resolvers read as an IPv4 address, such as
    `2130706433`, `127.1` and `1.0x7f`.
    """
    return ":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def is_loopback_host(host: str) -> bool:
    """Return whether a host, as `parse_host` returns it, is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_visible(text: str) -> bool:
    """Return whether a text has only visible ASCII, and spaces between other characters: it cannot end a line or a
    header.
    """
    return text.isascii() and text.isprintable() and text == text.strip()


def check_secret(value: object) -> str:
    """Return `value` if it can be put into a request. Raises Invalid for any other value, which the error does not
    quote.
    """
    if not isinstance(value, str) or not MIN_SECRET <= len(value) <= MAX_SECRET or not is_visible(value):
        raise Invalid(
            f"the secret is not a text of {MIN_SECRET} to {MAX_SECRET} visible ASCII characters",
            hint="store a value of this form, which a proxy can put into requests and remove from answers",
            code="unusable_secret",
        )
    return value

"""Names in certificates (RFC 5280 section 4.2.1.6), with their kind, in a normal form: `dns:api.example.com`,
`ip:10.0.0.1`.

A pattern states names that a profile allows: `dns:api.example.com` only that name; `dns:*.example.com` any name below
`example.com`; `dns:*` any name; `ip:10.0.0.0/8` any address of a network; `uri:spiffe://example.org/*` any URI with
that prefix; `email:*@example.com` any mailbox at a host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from cryptography import x509

from ostiary.protocol.destination import is_address_like
from ostiary.protocol.errors import Invalid
from ostiaryd.certs.model.spiffe_id import SPIFFE, parse_spiffe_id

MAX_NAMES = 100
MAX_URI = 2048
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:(?!//(?:[/?#]|\Z))(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
"""An absolute URI (RFC 3986 section 4.3) with a fragment, if any. After `//`, there is a host."""
_WORD = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"(?=.{{1,64}}\Z){_WORD}(?:\.{_WORD})*")
"""The local part of a mail address without quotes (RFC 5321 section 4.1.2, Dot-string)."""


class NameKind(StrEnum):
    """The kinds of names that certificates of this server can have, such as DNS names."""

    DNS = "dns"
    IP = "ip"
    URI = "uri"
    EMAIL = "email"


_KINDS = frozenset(kind.value for kind in NameKind)


class CertificateName(NamedTuple):
    """A name in a certificate: its kind, and its value in normal form."""

    kind: NameKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def is_wildcard(self) -> bool:
        """Return whether the name is a wildcard such as `*.example.com`, which stands for each host with one more
        label.
        """
        return self.kind is NameKind.DNS and self.value.startswith("*.")

    @property
    def is_spiffe_id(self) -> bool:
        """Return whether the name is a SPIFFE ID."""
        return self.kind is NameKind.URI and self.value.startswith(SPIFFE)

    def encode(self) -> x509.GeneralName:
        """Return the name as an X.509 GeneralName."""
        match self.kind:
            case NameKind.DNS:
                return x509.DNSName(self.value)
            case NameKind.IP:
                return x509.IPAddress(ip_address(self.value))
            case NameKind.URI:
                return x509.UniformResourceIdentifier(self.value)
            case NameKind.EMAIL:
                return x509.RFC822Name(self.value)


@lru_cache(maxsize=1024)  # the default names of a profile are parsed for each of its certificates
def parse_name(text: str) -> CertificateName:
    """Return the name that `text`, `<kind>:<value>`, states, in its normal form. Raises Invalid for other text."""
    kind, colon, value = text.partition(":")
    if not colon or kind not in _KINDS:
        raise Invalid(
            f"the name {text[:100]!a} does not begin with a known kind",
            hint="write dns:HOST, ip:ADDRESS, uri:URI or email:ADDRESS",
        )
    return make_name(NameKind(kind), value)


def make_name(kind: NameKind, value: str) -> CertificateName:
    """Return the name of a kind and a value, in its normal form. Raises Invalid for a malformed value."""
    match kind:
        case NameKind.DNS:
            return CertificateName(kind, _normalise_host(value, wildcard=True))
        case NameKind.IP:
            try:
                name = CertificateName(kind, str(ip_address(value)))
            except ValueError:
                raise Invalid(f"{value[:64]!a} is not an IP address") from None
            if "%" in value:
                raise Invalid(f"the address {value[:64]!a} has a zone (`%`)", hint="leave the zone out")
            return name
        case NameKind.URI:
            _check_uri(value)
            if value.startswith(SPIFFE) and not parse_spiffe_id(value).path:
                raise Invalid(f"the SPIFFE ID {value[:100]!a} has no path", hint="write spiffe://DOMAIN/PATH")
            return CertificateName(kind, value)
        case NameKind.EMAIL:
            local, at, host = value.rpartition("@")
            if not at or not _LOCAL.fullmatch(local):
                raise Invalid(f"{value[:100]!a} is not a mail address")
            return CertificateName(kind, f"{local}@{_normalise_host(host, wildcard=False)}")


def _check_uri(text: str) -> None:
    if len(text) > MAX_URI or not _URI.fullmatch(text):
        raise Invalid(f"{text[:100]!a} is not an absolute URI of at most {MAX_URI} characters")


def lower_ascii(text: str) -> str:
    """Return an ASCII text in lower case, and any other text unchanged: the lower case of the Kelvin sign is an ASCII
    letter.
    """
    return text.lower() if text.isascii() else text


def _normalise_host(text: str, *, wildcard: bool) -> str:
    """Return a host in lower case. Raises Invalid for other text."""
    host = lower_ascii(text)
    bare = host.removeprefix("*.") if wildcard else host
    labels = bare.split(".")
    if len(host) > 253 or not all(map(_is_label, labels)) or is_address_like(bare):
        raise Invalid(
            f"{host[:100]!a} is not a DNS name",
            hint="write international names as A-labels (xn--...), without a final dot",
        )
    return host


@lru_cache(maxsize=4096)
def _is_label(label: str) -> bool:
    """Return whether a text is a label of a host. A label with the prefix of an A-label must be one: the Punycode of a
    label that is not ASCII (RFC 5890 section 2.3.2.1, RFC 3492).
    """
    if not _LABEL.fullmatch(label):
        return False
    if not label.startswith("xn--"):
        return True
    try:
        text = label.removeprefix("xn--").encode().decode("punycode")
    except UnicodeError:
        return False
    return text.isprintable() and not text.isascii() and f"xn--{text.encode('punycode').decode()}" == label


def read_names(extension: Iterable[x509.GeneralName]) -> tuple[CertificateName, ...]:
    """Return the names of the subjectAltName extension of a request, each once, in their normal form. Raises Invalid
    for an unsupported or malformed name.
    """
    return check_count(tuple(dict.fromkeys(make_name(*decode_general_name(one)) for one in extension)))


def decode_general_name(general: x509.GeneralName) -> CertificateName:
    """Return the name that an X.509 GeneralName states. Its value is not checked: the rules for new names do not apply
    to a certificate that exists. Raises Invalid for a name of an unsupported kind.
    """
    match general:
        case x509.DNSName():
            return CertificateName(NameKind.DNS, general.value)
        case x509.IPAddress():
            return CertificateName(NameKind.IP, str(general.value))
        case x509.UniformResourceIdentifier():
            return CertificateName(NameKind.URI, general.value)
        case x509.RFC822Name():
            return CertificateName(NameKind.EMAIL, general.value)
    raise Invalid(f"names of the kind {type(general).__name__} are not certified", hint="use DNS, IP, URI or e-mail")


def check_count(names: tuple[CertificateName, ...]) -> tuple[CertificateName, ...]:
    """Return the names if there are at most `MAX_NAMES`. Raises Invalid for more names."""
    if len(names) > MAX_NAMES:
        raise Invalid(f"the request has {len(names)} names; at most {MAX_NAMES} are allowed")
    return names


def check_uris(names: Iterable[CertificateName]) -> None:
    """Check that a SPIFFE ID is the only URI of a certificate with these names. Raises Invalid otherwise."""
    uris = {name for name in names if name.kind is NameKind.URI}
    if len(uris) > 1 and any(uri.is_spiffe_id for uri in uris):
        raise Invalid(
            "a certificate with a SPIFFE ID must not have another URI (X509-SVID section 2)",
            hint="request one certificate for each URI",
        )


def check_pattern(pattern: str) -> str:
    """Return `pattern` if it is a valid pattern of names. Raises Invalid otherwise."""
    kind, _, value = pattern.partition(":")
    if value == "*" and kind in _KINDS:
        return pattern
    if kind == NameKind.IP:
        try:
            ip_network(value)
        except ValueError:
            raise Invalid(
                f"the pattern {pattern[:100]!a} is not a network", hint="write a network as ip:10.0.0.0/8"
            ) from None
        return pattern
    if kind == NameKind.EMAIL and value.startswith("*@"):
        parse_name(f"email:any{value[1:]}")
        return pattern
    if kind == NameKind.URI and value.endswith("*"):
        _check_uri(f"{value[:-1]}x")
    else:
        parse_name(pattern)
    return pattern


def is_allowed(name: CertificateName, patterns: Sequence[str]) -> bool:
    """Return whether at least one of the patterns allows a certificate to contain the name."""
    return any(_matches(name, *pattern.split(":", 1)) for pattern in patterns)


def _matches(name: CertificateName, kind: str, value: str) -> bool:
    if kind != name.kind:
        return False
    if value == "*":
        return True
    match name.kind:
        case NameKind.DNS:
            return name.value == value or (value.startswith("*.") and name.value.endswith(value[1:]))
        case NameKind.IP:
            return ip_address(name.value) in ip_network(value)
        case NameKind.URI:
            return name.value.startswith(value[:-1]) if value.endswith("*") else name.value == value
        case NameKind.EMAIL:
            return name.value.endswith(value[1:]) if value.startswith("*@") else name.value == value

"""Threat lists: addresses, hosts, links and digests of known malicious files, checked before each call.

A list contains marks in place of values: 8 bytes of the digest of the normal form of each value. A guard can therefore
check 100,000 values in little memory, no argument leaves the guard for the check, and a guard does not reveal the
values of a list. In 100,000 marks, a false match occurs once in 10^14 lookups.

    domain    bad.example         and every name below it
    link      https://host/path   with and without the query; http and https are equal
    address   203.0.113.7, 2001:db8::1, and networks of them: 203.0.113.0/24
    mail      eve@bad.example
    digest    of a file: MD5, SHA-1, SHA-256, SHA-512

Text that can be decoded (percent, base64, compatible letters) is checked in each decoded form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Literal, NamedTuple

from ostiary.protocol.errors import Invalid
from ostiary.provenance.noticing.finding import Noticed
from ostiary.provenance.origins.links import is_odd, link, mail, plainest, readings

DETECTOR = "threat_list"
MARK_BYTES = 8
MAX_LOOKS = 20_000
"""Maximum number of names, links and digests of one call that are looked up, which takes about 40 ms. A call
with more raises a finding.
"""
MAX_LABELS = 16
_NAME = re.compile(r"(?<![\w.-])(?:[\w-]{1,63}\.)+[\w-]{1,63}")
_V6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]{0,15}(?![\w:])")
_NUMBER = re.compile(r"(?<=//)(?:0[xX][0-9A-Fa-f]{1,8}|\d{8,10})(?=[:/?#]|\Z)")
_LINK = re.compile(r"https?://[^\s\"'`<>|{}\\^]+", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/?#@]*@")
_MAIL = re.compile(r"[^\s\"'`<>()\[\]{},;:|@\\]{1,64}@[\w.-]{1,253}")
_DIGEST = re.compile(r"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{32}){1,4}(?:[0-9A-Fa-f]{8})?(?![0-9A-Za-z])")
_DIGEST_SIZES = (32, 40, 64, 128)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_TELLING = re.compile(r"[.:@]|[0-9A-Fa-f]{32}|[A-Za-z0-9+/_-]{12}|[^ -~\s]|[%&\\\[({]")
"""matches every text that can contain an indicator, and few others"""
Address = IPv4Address | IPv6Address
Kind = Literal["domain", "link", "address", "mail", "digest"]
_WORDS: Mapping[Kind, str] = {
    "domain": "a host",
    "link": "a link",
    "address": "an address",
    "mail": "a mail address",
    "digest": "a file",
}


class ThreatList(NamedTuple):
    """A threat list. `marks`: the hashed indicators of the list, such as addresses and host names; `networks`: the
    (IP version, prefix length) pairs of its networks; `points`: the points of a finding.
    """

    name: str
    points: int
    marks: frozenset[bytes]
    networks: frozenset[tuple[int, int]] = frozenset()


Threats = Mapping[str, ThreatList]
"""threat lists by id"""


def parse_marks(packed: bytes) -> frozenset[bytes]:
    """Return the marks (hashed indicators) of a threat list from their concatenation. Raises Invalid if the length is
    not a multiple of MARK_BYTES.
    """
    if len(packed) % MARK_BYTES:
        raise Invalid(f"the marks of a threat list have {len(packed)} bytes, not a multiple of {MARK_BYTES}")
    return frozenset(packed[at : at + MARK_BYTES] for at in range(0, len(packed), MARK_BYTES))


# ---------------------------------------------------------------------------------------- Looking


def find(arguments: Mapping[str, object], threats: Threats) -> list[Noticed]:
    """Return one finding for each list that contains a value of the arguments; each finding names the first
    such argument. If the arguments have too many values to look up all, return one further finding that says so.
    """
    if not threats:
        return []
    met: dict[str, Noticed] = {}
    for looks, (name, kind, mark) in enumerate(_named(arguments, _prefixes(threats))):
        if looks == MAX_LOOKS:
            half = (max(one.points for one in threats.values()) + 1) // 2
            says = f"the arguments name more than {MAX_LOOKS} addresses; not all were checked against threat lists"
            return [*met.values(), Noticed(detector=DETECTOR, points=half, says=says)]
        for id, one in threats.items():
            if mark in one.marks and id not in met:
                says = f"the argument {name[:64]!a} names {_WORDS[kind]} of the threat list `{one.name}`"
                met[id] = Noticed(detector=DETECTOR, points=one.points, says=says)
    return list(met.values())


def find_list(text: str, threats: Threats) -> ThreatList | None:
    """Return the threat list that contains an indicator in the short text; of several lists, the one with most points.
    None if no list contains an indicator.
    """
    marks = {mark for _, mark in _indicators(text, _prefixes(threats))} if threats else set()
    return max((one for one in threats.values() if not one.marks.isdisjoint(marks)), key=_points, default=None)


def find_network_list(network: str, threats: Threats) -> ThreatList | None:
    """Return the threat list that contains an entire network such as `198.51.100.0/24`; of several lists, the one with
    most points. None if no list contains the network, or if `network` is empty.
    """
    if not threats or not network:
        return None
    whole = ip_network(network)
    lengths = [
        length for version, length in _prefixes(threats) if version == whole.version and length <= whole.prefixlen
    ]
    marks = {_mark("address", str(whole.supernet(new_prefix=length))) for length in lengths}
    return max((one for one in threats.values() if not one.marks.isdisjoint(marks)), key=_points, default=None)


def _points(one: ThreatList) -> int:
    return one.points


def _prefixes(threats: Threats) -> frozenset[tuple[int, int]]:
    return frozenset().union(*(one.networks for one in threats.values()))


Prefixes = frozenset[tuple[int, int]]


def _named(arguments: Mapping[str, object], prefixes: Prefixes) -> Iterator[tuple[str, Kind, bytes]]:
    for name, value in arguments.items():
        for text in _texts(value):
            for kind, mark in _indicators(text, prefixes):
                yield name, kind, mark


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for name, one in value.items():
                yield from _texts(name)
                yield from _texts(one)
        case list() | tuple():
            for one in value:
                yield from _texts(one)


def _indicators(text: str, prefixes: Prefixes) -> Iterator[tuple[Kind, bytes]]:
    """Yield the indicators in a text and in its decoded forms, each as its kind and its mark."""
    if _TELLING.search(text) is None:
        return
    for reading in readings(text) if is_odd(text) else (text,):
        for match in _NAME.finditer(reading):
            yield from _of_host(match[0], prefixes)
        if ":" in reading:
            for match in (*_V6.finditer(reading), *_NUMBER.finditer(reading)):
                yield from _of_host(match[0], prefixes)
            for match in _LINK.finditer(reading):
                whole = _link(match[0])
                yield "link", _mark("link", whole)
                if "?" in whole:
                    yield "link", _mark("link", whole.partition("?")[0])
        if "@" in reading:
            for match in _MAIL.finditer(reading):
                yield "mail", _mark("mail", mail(match[0]))
        for match in _DIGEST.finditer(reading):
            yield "digest", _mark("digest", match[0].lower())


def _of_host(host: str, prefixes: Prefixes) -> Iterator[tuple[Kind, bytes]]:
    if (address := _address(host)) is not None:
        yield "address", _mark("address", str(address))
        for version, length in prefixes:
            if version == address.version:
                yield "address", _mark("address", str(ip_network((address, length), strict=False)))
        return
    labels = _ascii(host).split(".")[-MAX_LABELS:]
    for first in range(len(labels) - 1):
        yield "domain", _mark("domain", ".".join(labels[first:]))


# ---------------------------------------------------------------------------------------- Spelling


def indicator(kind: Kind, value: str) -> tuple[bytes, tuple[int, int] | None]:
    """Return the mark (hash) of an indicator and, for a network, the IP version and the length of the prefix. Raises
    Invalid for text that is no indicator of this kind.

    Networks that are too wide, and host names of one label, are refused.
    """
    match kind:
        case "address":
            return _network(value)
        case "domain":
            spelling = _ascii(value)
            labels = spelling.split(".")
            if not 2 <= len(labels) <= MAX_LABELS or not all(map(_LABEL.fullmatch, labels)) or _address(spelling):
                raise Invalid(f"not a host name of 2 to {MAX_LABELS} labels, such as bad.example")
        case "link":
            spelling = _link(value)
            if not _LINK.fullmatch(value):
                raise Invalid("not an http or https link")
        case "mail":
            spelling = mail(value)
            if not _MAIL.fullmatch(value):
                raise Invalid("not a mail address")
        case "digest":
            spelling = value.lower()
            if not _DIGEST.fullmatch(value) or len(value) not in _DIGEST_SIZES:
                raise Invalid("not a digest of a file")
    return _mark(kind, spelling), None


WIDEST = {4: 8, 6: 19}
"""length in bits of the shortest prefix that a list may contain, by IP version"""


def _network(value: str) -> tuple[bytes, tuple[int, int] | None]:
    try:
        network = ip_network(value.strip("[]"), strict=False)
    except ValueError:
        raise Invalid("the text is neither an IP address nor a network") from None
    if network.prefixlen < WIDEST[network.version]:
        raise Invalid(
            f"a network of /{network.prefixlen} is too wide: the prefix needs at least {WIDEST[network.version]} bits"
        )
    if network.is_loopback or network.is_unspecified or network.is_link_local or network.is_multicast:
        raise Invalid("the address is not global (loopback, link-local, multicast)")
    if network.num_addresses == 1:
        return _mark("address", str(network.network_address)), None
    if network.is_private:
        raise Invalid("the network is private")
    return _mark("address", str(network)), (network.version, network.prefixlen)


def _mark(kind: Kind, spelling: str) -> bytes:
    return blake2s(f"{kind} {spelling}".encode(), digest_size=MARK_BYTES).digest()


def _ascii(host: str) -> str:
    """Return a host name in lower case; an international name in its ASCII form (RFC 5890)."""
    text = host.casefold().rstrip(".")
    if text.isascii():
        return text
    try:
        return plainest(text).encode("idna").decode("ascii")
    except UnicodeError:
        return text


def _link(text: str) -> str:
    """Return a link in normal form without scheme, user, fragment and port 80."""
    return link(_USER.sub("", text)).partition("://")[2].partition("#")[0].removesuffix(":80")


def _address(host: str) -> Address | None:
    """Return the IP address that a text spells in any notation (`0xcb.0.113.7`, `3405803783`); None for other text."""
    try:
        if ":" in host:
            address = IPv6Address(host)
            return address.ipv4_mapped or address
        parts = [int(part, 8 if part[0] == "0" and part.isdigit() else 0) for part in host.split(".")]
        *high, low = parts
        if len(parts) > 4 or any(part > 255 for part in high):
            return None
        value = sum(part << (24 - 8 * at) for at, part in enumerate(high)) + low
        return IPv4Address(value) if low < 1 << (32 - 8 * len(high)) else None
    except (ValueError, IndexError):
        return None

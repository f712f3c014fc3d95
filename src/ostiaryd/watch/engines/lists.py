"""Threat lists: bundles of STIX 2.1, and plain lists with one value per line. Items that the server cannot check are
counted and left out.

Parsing a long list takes half a second, so a confined process without secrets parses it (`answer`).

STIX 2.1 (OASIS, section 4.7 "Indicator", section 9 "STIX Patterning"): the pattern of each valid indicator is read if
it lists alternative values: comparisons with `=`, `IN` and, for addresses, `ISSUBSET`, joined by OR. A part of a
conjunction alone indicates nothing, so a pattern with AND, FOLLOWEDBY, NOT, LIKE, MATCHES or a qualifier is skipped as
a whole.

Plain: one value per line; in a hosts file the second word of the line; `#` and `;` begin a comment.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from ostiary.protocol.decoding import json_decoder, msgpack_decoder
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.provenance.noticing.threats import Kind, indicator
from ostiaryd.watch.model.threats import Form

MAX_MARKS = 100_000
"""Maximum number of values in all threat lists together. A guard needs about 10 MB of memory for that number."""
MAX_LIST_BYTES = 8 << 20
MAX_PATTERN = 4000
_KINDS: dict[str, Kind] = {
    "domain-name:value": "domain",
    "hostname:value": "domain",
    "url:value": "link",
    "ipv4-addr:value": "address",
    "ipv6-addr:value": "address",
    "email-addr:value": "mail",
    **dict.fromkeys(
        (f"file:hashes.{name}" for name in ("MD5", "'MD5'", "'SHA-1'", "'SHA-256'", "'SHA-512'", "SHA256")), "digest"
    ),
}
_STRING = r"'(?:[^'\\]|\\.)*'"
_TERM = re.compile(
    rf"\s*(?P<path>[a-z0-9-]+:[a-z_]+(?:\.(?:[A-Za-z0-9]+|'[A-Za-z0-9-]+'))?)\s*"
    rf"(?:=\s*(?P<value>{_STRING})|(?P<subset>ISSUBSET)\s*(?P<network>{_STRING})"
    rf"|IN\s*\(\s*(?P<values>{_STRING}(?:\s*,\s*{_STRING})*)\s*\))\s*"
)
_OR = re.compile(r"\s*OR\s*")
_ONE = re.compile(_STRING)
_OWN_HOSTS = frozenset({"localhost", "localhost.localdomain", "broadcasthost", "ip6-localhost", "ip6-loopback"})


class Listed(msgspec.Struct, frozen=True):
    """A parsed threat list: the hashes of its values (`marks`), the prefix lengths of its address ranges (`networks`),
    the number of items that cannot be checked (`skipped`), and `until`, the earliest end of validity of its items in
    microseconds (None for no end).
    """

    marks: frozenset[bytes]
    networks: frozenset[tuple[int, int]]
    skipped: int
    until: int | None = None


class _Object(msgspec.Struct):
    type: str
    pattern: str = ""
    pattern_type: str = ""
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    revoked: bool = False


class _Bundle(msgspec.Struct):
    type: Literal["bundle"]
    objects: list[_Object] = []


class Unread(msgspec.Struct, frozen=True):
    """A threat list as it was fetched, with which the confined process parses it. `spared`: hosts of this server, which
    are left out of the list.
    """

    form: Form
    body: bytes
    now: int
    spared: frozenset[str]


_bundle = json_decoder(_Bundle)
_encode, _unread = msgspec.msgpack.Encoder().encode, msgpack_decoder(Unread)
_read = msgpack_decoder(Listed | str)
for _name in ("idna", "punycode", "utf-8-sig"):  # import now: the confined process cannot read files later
    codecs.lookup(_name)


def answer(body: bytes) -> bytes:
    """Parse a threat list inside the confined process. Return the encoded parsed list, or the encoded message of the
    refusal.
    """
    unread = _unread(body)
    try:
        return _encode(parse_list(unread.form, unread.body, now=unread.now, spared=unread.spared))
    except Refused as refusal:
        return _encode(refusal.message)


def ask(unread: Unread) -> bytes:
    """Return the encoded request to parse a threat list, for the confined process."""
    return _encode(unread)


def parse_answer(body: bytes) -> Listed:
    """Return the parsed list from the confined process's answer. Raises Invalid if the process refused the list."""
    result: Listed | str = _read(body)
    if isinstance(result, str):
        raise Invalid(result)
    return result


def parse_list(form: Form, unverified_body: bytes, *, now: int, spared: frozenset[str]) -> Listed:
    """Return the parsed threat list in `unverified_body`, whose format is `form`. Raises Malformed for a list that
    cannot be read, Invalid for a list without a usable value or with too many values.

    `now` is in microseconds: STIX indicators that are not valid at that time are left out. `spared` are hosts of this
    server: values that would match them are left out too.
    """
    if len(unverified_body) > MAX_LIST_BYTES:
        raise Malformed(f"the list is longer than {MAX_LIST_BYTES} bytes")
    named, until = _items(form, unverified_body, now)
    marks: set[bytes] = set()
    networks: set[tuple[int, int]] = set()
    skipped = 0
    for one in named:
        try:
            if one is None or _is_above(one[1].casefold().rstrip("."), spared):
                raise Invalid("the item contains no value")
            mark, network = indicator(*one)
        except Invalid:
            skipped += 1
            continue
        marks.add(mark)
        if network is not None:
            networks.add(network)
        if len(marks) > MAX_MARKS:
            raise Invalid(f"the list has more than {MAX_MARKS} values", hint="use a shorter list")
    if not marks:
        raise Invalid(f"the list contains no value that can be checked ({skipped} lines or patterns skipped)")
    return Listed(frozenset(marks), frozenset(networks), skipped, until)


def _items(form: Form, body: bytes, now: int) -> tuple[Iterator[tuple[Kind, str] | None], int | None]:
    """Return the values of a list with their kinds, None for each item without a value that can be checked, and the
    earliest end of validity of the items in microseconds (None for no end).
    """
    match form:
        case "stix":
            valid, until = _valid(body, now)
            return (one for pattern in valid for one in _pattern(pattern)), until
        case "plain":
            return (_value(words) for line in _lines(body) if (words := _words(line))), None


def _is_above(value: str, spared: frozenset[str]) -> bool:
    """Return whether the value is a host of `spared`, or a parent domain of a host of `spared`."""
    return any(host == value or host.endswith(f".{value}") for host in spared)


def _valid(body: bytes, now: int) -> tuple[list[str], int | None]:
    """Return the STIX patterns of indicators that are valid at `now`, and the earliest end of their validity (None for
    no end), in microseconds. Raises Malformed if the list is not a STIX bundle.
    """
    try:
        bundle = _bundle(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"the list is not a STIX bundle: {error}"[:200]) from None
    patterns, ends = [], []
    for one in bundle.objects:
        if one.type != "indicator" or one.revoked or one.pattern_type != "stix":
            continue
        since, until = (_micros(at) for at in (one.valid_from, one.valid_until))
        if (since is not None and now < since) or (until is not None and now >= until):
            continue
        patterns.append(one.pattern)
        if until is not None:
            ends.append(until)
    return patterns, min(ends, default=None)


def _micros(at: datetime | None) -> int | None:
    """Return a time in microseconds since the epoch; None for None. Raises Malformed for a time without a time zone."""
    if at is None:
        return None
    if at.tzinfo is None:
        raise Malformed("a time of the bundle has no time zone")
    return round(at.timestamp() * 1_000_000)


def _pattern(pattern: str) -> list[tuple[Kind, str] | None]:
    """Return the values that a STIX pattern lists as alternatives, each with its kind; `[None]` if the pattern has any
    other form.
    """
    try:
        return list(_alternatives(pattern))
    except Invalid:
        return [None]


def _alternatives(pattern: str) -> Iterator[tuple[Kind, str]]:
    """Yield the values of a pattern of the form `[a = 'x' OR b IN ('y', 'z')] OR [..]`. Raises Invalid for any
    other form.
    """
    if len(pattern) > MAX_PATTERN:
        raise Invalid("the STIX pattern is too long")
    rest = pattern.strip()
    while True:
        if not rest.startswith("["):
            raise Invalid("an observation of the STIX pattern does not begin with `[`")
        at = 1
        while True:
            if (term := _TERM.match(rest, at)) is None or (kind := _KINDS.get(term["path"])) is None:
                raise Invalid("the STIX pattern has a comparison that is not supported")
            if term["subset"] and kind != "address":
                raise Invalid("`ISSUBSET` is only supported for addresses")
            for value in _ONE.findall(term["value"] or term["network"] or term["values"]):
                yield kind, re.sub(r"\\(.)", r"\1", value[1:-1])
            at = term.end()
            if (again := _OR.match(rest, at)) is None:
                break
            at = again.end()
        if not rest.startswith("]", at):
            raise Invalid("an observation of the STIX pattern does not end with `]`")
        rest = rest[at + 1 :].lstrip()
        if not rest:
            return
        if (again := _OR.match(rest)) is None:
            raise Invalid("the STIX pattern combines observations in another way than by OR")
        rest = rest[again.end() :]


def _lines(body: bytes) -> list[str]:
    """Return the lines of a plain list. Raises Malformed if the list is not UTF-8."""
    try:
        return body.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise Malformed("the list is not UTF-8: its server must send plain text") from None


def _words(line: str) -> list[str]:
    """Return the words of a line without its comment; empty for a comment line."""
    words = re.split(r"\s[#;]", line.strip(), maxsplit=1)[0].split()
    return [] if not words or words[0].startswith(("#", ";", "//")) else words


def _value(words: list[str]) -> tuple[Kind, str] | None:
    """Return the value in a line of a plain list, with its kind; None if the line contains no value."""
    value = words[1] if len(words) == 2 and words[0] in ("0.0.0.0", "127.0.0.1", "::", "::1") else words[0]
    if len(words) > 2 or value.casefold() in _OWN_HOSTS:
        return None
    if "://" in value:
        return "link", value
    if "@" in value:
        return "mail", value
    if re.fullmatch(r"[0-9A-Fa-f]{32,128}", value):
        return "digest", value
    if ":" in value or re.fullmatch(r"[0-9.]+(/\d+)?", value):
        return "address", value
    return "domain", value.removeprefix("*.")

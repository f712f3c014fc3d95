"""Forms of a secret: the encodings in which a secret is recognised, and the decoded forms of a text that may hide a
secret.

A secret is recognised unchanged, reversed, in capital or small letters, percent-encoded, in hexadecimal, as a list of
decimal numbers, in UTF-16 (also in base64), escaped for JSON or HTML, in base32 at each alignment, and in base64 and
base64url at each alignment, which may also be escaped. Text that a program sends is also read with its escapes
resolved, and without spaces, line ends and characters outside of ASCII. Not recognised: a secret that is compressed,
encrypted, encoded twice in another way, written in other letters, or divided by other text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from itertools import product
from string import ascii_letters, digits
from typing import Any
from unicodedata import normalize
from urllib.parse import quote, unquote_to_bytes

from ostiary.protocol.errors import Forbidden

MAX_ESCAPED = 3
"""maximum number of times that the escapes of a text are resolved"""
MAX_SEARCHED = 256 << 10
"""maximum length of the texts of a call that are searched, in bytes"""
_NUMBERS = ("%{:02x}", "%{:02X}", "\\u{:04x}", "\\u{:04X}", "\\x{:02x}", "\\x{:02X}", "&#{};", "&#x{:x};", "&#x{:X};")
"""The forms of a character's number in URLs, JSON, JavaScript and HTML."""
_INVISIBLE = bytes(range(0x21)) + b"\x7f"
_BACKSLASHED = re.compile(rb"\\(?:(?:u00|U0{6}|x|(u\{)0*)([0-7][0-9A-Fa-f])(?(1)\})|([\"'\\/]))")


class SecretSent(Forbidden):
    """A call contains a secret that the agent must not have."""

    code = "secret_sent"


TOO_LONG = "too_long_to_search"
SEARCH_REFUSALS = frozenset({SecretSent.code, TOO_LONG})
"""codes of refusals that mean: the text contains a secret, or is too long to be searched"""


def forms_of(value: str) -> frozenset[bytes]:
    """Return the encoded forms in which a value is recognised."""
    raw = value.encode()
    wide = (value.encode("utf-16-le"), value.encode("utf-16-be"))
    texts = {
        value[::-1],
        value.upper(),
        value.lower(),
        value.replace("=", "=3D"),
        *_numbered(value),
        *_base32_forms(raw),
    }
    texts |= {write(raw.hex(*mark)) for mark in ("", " ", ":") for write in (str.lower, str.upper)}
    texts |= {mark.join(map(str, raw)) for mark in ("", ",", ", ")}
    for text in (value, *_base64_forms(raw), *_base64_forms(wide[0])):
        texts |= {text, *_percent_forms(text), *_json_forms(text), *_html_forms(text)}
        texts |= {*_numbered(text, kept=ascii_letters + digits)}
    return frozenset([*(text.encode() for text in texts), *wide])


def readings_of(text: bytes) -> set[bytes]:
    """Return a text, and the text with its escapes resolved (of URLs, JSON and HTML), each with and without invisible
    characters and those outside of ASCII.
    """
    readings = {text}
    for _ in range(MAX_ESCAPED):
        readings.add(text := _resolve_escapes(text))
    return readings | set(map(visible_in, readings))


def texts_in(arguments: Mapping[str, Any]) -> str:
    """Return the values in the arguments of a call, in order, then the names of their members, in lines without null
    characters.
    """
    values, names, left = list[str](), list[str](), list[object]([arguments])
    while left:
        match left.pop():
            case Mapping() as members:
                names += map(str, members)
                left += reversed([*members.values()])
            case list() | tuple() as items:
                left += reversed(items)
            case str() as text:
                values.append(text)
            case int() | float() as number:
                values.append(str(number))
    return "\n".join(values + names).replace("\0", "").encode("utf-8", "replace").decode()


def check_searchable(text: str, *, limit: int = MAX_SEARCHED) -> bytes:
    """Return the bytes of a text that is to be searched. Raises SecretSent if there are more than `limit` bytes."""
    data = text.encode()
    if len(data) > limit:
        raise SecretSent(
            f"the arguments have over {limit} bytes, and cannot be searched for secrets that the agent used",
            hint="send less in one call or batch",
            code=TOO_LONG,
        )
    return data


def visible_in(text: bytes) -> bytes:
    """Return the visible ASCII characters of a text, with letters and digits of other forms, without accents (NFKD)."""
    if not text.isascii():
        text = normalize("NFKD", text.decode("utf-8", "ignore")).encode("ascii", "ignore")
    return text.translate(None, _INVISIBLE)


def _resolve_escapes(text: bytes) -> bytes:
    if b"%" in text:
        text = unquote_to_bytes(text)
    if b"\\" in text:
        text = _BACKSLASHED.sub(lambda match: match[3] or bytes.fromhex(match[2].decode()), text)
    return unescape(text.decode("latin-1")).encode("latin-1", "replace") if b"&" in text else text


def _percent_forms(value: str) -> Iterator[str]:
    """Yield the percent-encodings of a value; encoders differ in the characters that they do not encode."""
    texts = {quote(value, safe=kept) for kept in ("", "/", "*", "!'()*", "!#$&'()*+,/:;=?@")}
    texts |= {text.replace("~", "%7E") for text in texts}
    texts |= {text.replace("%20", "+") for text in texts}
    for text in texts:
        head, *rest = text.split("%")
        yield text
        yield head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _json_forms(value: str) -> Iterator[str]:
    """Yield a value as a JSON string; encoders differ in the characters that they escape by number."""
    for numbered in ("", "<>&", "<>&'=", "<>&'\"", "<>&'\"+`", "<>&'\"=-;`\\"):
        for number in ("\\u{:04x}", "\\u{:04X}"):
            text = _escape(value, {"\\": "\\\\", '"': '\\"', **dict.fromkeys(numbered, number)})
            yield from (text, text.replace("/", "\\/"))


def _html_forms(value: str) -> Iterator[str]:
    """Yield a value as text or attribute of HTML; encoders differ in quotes and in the characters that they escape."""
    others: Sequence[dict[str, str]] = ({}, {"+": "&#43;"}, {"/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;"})
    for double, single, other in product(
        ('"', "&quot;", "&#34;"), ("'", "&#39;", "&#x27;", "&#039;", "&apos;"), others
    ):
        yield _escape(value, {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': double, "'": single, **other})


def _numbered(text: str, kept: str = "") -> Iterator[str]:
    """Yield a text with numbers in place of all characters that are not in `kept`."""
    for number in _NUMBERS:
        yield _escape(text, dict.fromkeys({*text}.difference(kept), number))


def _escape(text: str, escapes: Mapping[str, str]) -> str:
    return text.translate({ord(one): escape.format(ord(one)) for one, escape in escapes.items()})


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Yield, for each alignment, the base64 characters that depend only on the value and not on the bytes around."""
    for before in range(3):
        whole = bytes(before) + raw
        first, last = -(-before * 8 // 6), len(whole) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(whole)[first:last].decode()


def _base32_forms(raw: bytes) -> Iterator[str]:
    """Yield, for each alignment, the base32 characters that depend only on the value, in both cases: names of hosts
    have no case.
    """
    for before in range(5):
        whole = bytes(before) + raw
        text = base64.b32encode(whole)[-(-before * 8 // 5) : len(whole) * 8 // 5].decode()
        yield from (text, text.lower())

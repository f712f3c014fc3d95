"""Forms of a secret, and the readings of a text in which these forms are searched.

A program can escape some characters of a secret, break its lines, and put tags between them: a list of all written
forms would have no end. Therefore the text is read: the readings resolve the escapes of URLs, JSON, JavaScript, C and
HTML character by character, decode quoted-printable, remove tags, white space and characters outside of ASCII, and turn
capital letters into small letters. Each place of a reading leads back to the bytes as received. A secret is recognised
if a reading contains the secret, the secret reversed, or the secret in base64 or base64url at each alignment (also of
UTF-16, and in base64 again), in base32, in hexadecimal, or as a list of decimal or hexadecimal numbers. Not recognised:
a secret that is compressed, encrypted, encoded twice in another way, written in other letters, or divided by other
text.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from html.entities import html5
from itertools import islice
from typing import Any, NamedTuple
from unicodedata import normalize

from ostiary.protocol.destination import MIN_SECRET
from ostiary.protocol.errors import Forbidden

MAX_ESCAPED = 5
"""maximum number of times that the escapes of a text are resolved"""
MAX_SEARCHED = 256 << 10
"""maximum length of the texts of a call that are searched, in bytes"""
MAX_TAG = 256
"""maximum length of a tag that is removed, in bytes"""
MIN_BINARY, MAX_CONTROLS = 1024, 0.05
"""minimum length of binary data, in bytes, and maximum share of control characters in a text (compressed data: 0.1)"""
_NAMED = {f"&{name}".encode(): char.encode("ascii", "ignore") for name, char in html5.items()}
"""The character references of HTML, and the ASCII characters that they mean."""
_UNENDED = [name for name in sorted(_NAMED, reverse=True) if _NAMED[name] and not name.endswith(b";")]
_BLANKS = {bytes((0x5C, letter)) for letter in b"abefnrtv \t\r\n"} | {b"\\\r\n"}
"""Escapes of white space and of control characters."""
_NUMBER = re.compile(rb"(?:%u?|\\[uUx]\{?|&#[xX])([0-9A-Fa-f]+)[};]?")
_INVISIBLE = bytes(range(0x21)) + b"\x7f"
_REMOVED = _INVISIBLE + bytes(range(0x80, 0x100))
_VISIBLE = re.compile(rb"[\x21-\x7e]")
_CONTROLS = bytes({*range(0x20)} - {*b"\t\n\r\x1b"})
_SMALL = bytes(range(256)).lower()


class _Units(NamedTuple):
    """Parts of a text that mean another character, or none. `sign`: shows that a text may have such
    parts. `begun`: the beginning of a part at the end of a text. `is_removed`: true if no part means a character.
    """

    sign: re.Pattern[bytes]
    whole: re.Pattern[bytes]
    begun: re.Pattern[bytes]
    is_removed: bool = False

    def size(self, unit: re.Match[bytes]) -> int:
        """Return the number of characters for which a part of the text stands, such as 1 for the escape `%41`."""
        return 0 if self.is_removed else len(_read_unit(unit))


_ESCAPES = _Units(
    re.compile(rb"[%\\&]"),
    re.compile(
        rb"""%(?: [0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} )
        | \\(?: u[0-9A-Fa-f]{4} | U[0-9A-Fa-f]{8} | x[0-9A-Fa-f]{2} | [ux]\{[0-9A-Fa-f]{1,8}\}
            | [0-3][0-7]{2} | [0-7]{1,2} | \r\n | [^uUx0-7] )
        | &\#(?: [0-9]{1,8} | [xX][0-9A-Fa-f]{1,8} );?
        | &[A-Za-z][A-Za-z0-9]{1,31}; | """
        + b"|".join(_UNENDED),
        re.VERBOSE | re.DOTALL,
    ),
    re.compile(
        rb"""(?: %(?: [0-9A-Fa-f]? | u[0-9A-Fa-f]{0,3} )
        | \\(?: u[0-9A-Fa-f]{0,3} | U[0-9A-Fa-f]{0,7} | x[0-9A-Fa-f]? | [ux]\{[0-9A-Fa-f]{0,8} | [0-3]?[0-7]? | \r )
        | &(?: [A-Za-z0-9]{0,32} | \#[0-9]{0,8} | \#[xX][0-9A-Fa-f]{0,8} ) )\Z""",
        re.VERBOSE,
    ),
)
_QUOTED = _Units(
    re.compile(rb"=[0-9A-Fa-f \t\r\n]"),
    re.compile(rb"=(?:[0-9A-Fa-f]{2}|[ \t]{0,8}\r?\n)"),
    re.compile(rb"=(?:[0-9A-Fa-f]?|[ \t]{0,8}\r?)\Z"),
)
_TAGS = _Units(
    re.compile(rb"[<\x1b]"),
    re.compile(rb"<[^<>]{0,%d}>|\x1b(?:\[[0-?]{0,32}[ -/]{0,4}[@-~]|[ -/][0-~])" % MAX_TAG),
    re.compile(rb"(?:<[^<>]{0,%d}|\x1b(?:\[[0-?]{0,32}[ -/]{0,4}|[ -/])?)\Z" % MAX_TAG),
    is_removed=True,
)
"""tags of HTML and XML, and the control sequences and character sets of terminals (ECMA-48, ECMA-35)"""
_BLOCK = 128
"""number of bytes of a text whose visible characters are counted together"""


class SecretSent(Forbidden):
    """A call contains a secret that the agent must not have, or is too long to search (code `too_long_to_search`)."""

    code = "secret_sent"


TOO_LONG = "too_long_to_search"
SEARCH_REFUSALS = frozenset({SecretSent.code, TOO_LONG})
"""codes of refusals that mean: the text contains a secret, or is too long to be searched"""


class Reading:
    """A text that is searched for secrets: received bytes, or a form of them with escapes resolved. `span` maps a part
    of the text to its place in the received bytes.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return start and end of a part of the text in the bytes as received."""
        return start, end


class _ResolvedReading(Reading):
    """A text that was made from `source` by resolving `units`."""

    def __init__(self, text: bytes, source: Reading, units: _Units) -> None:
        super().__init__(text)
        self._source, self._units = source, units
        self._starts: list[int] | None = None
        self._ends = list[tuple[int, int, int]]()

    def span(self, start: int, end: int) -> tuple[int, int]:
        return self._source.span(self._place(start)[0], self._place(end - 1)[1])

    def _place(self, at: int) -> tuple[int, int]:
        """Return start and end of the character at `at` in the source."""
        if self._starts is None:
            self._starts = self._find_units()
        if not (unit := bisect_right(self._starts, at)):
            return at, at + 1
        behind, start, end = self._ends[unit - 1]
        return (start, end) if at < behind else (end + at - behind, end + at - behind + 1)

    def _find_units(self) -> list[int]:
        """Return the start of the meaning of each unit in the text. Fill `_ends` with the end of the meaning in the
        text, and start and end of the unit in the source.
        """
        starts, behind, last = list[int](), 0, 0
        for match in self._units.whole.finditer(self._source.text):
            start = behind + match.start() - last
            behind, last = start + self._units.size(match), match.end()
            starts.append(start)
            self._ends.append((behind, match.start(), last))
        return starts


class _FoldedReading(Reading):
    """The visible ASCII characters of `source`, in small letters."""

    def __init__(self, text: bytes, source: Reading) -> None:
        super().__init__(text)
        self._source = source
        self._counts = list[int]()
        """number of characters of the text before the end of each block of the source"""

    def span(self, start: int, end: int) -> tuple[int, int]:
        return self._source.span(self._place(start), self._place(end - 1) + 1)

    def _place(self, at: int) -> int:
        """Return the place in the source of the character at `at`."""
        text, size = self._source.text, 0
        if not self._counts:
            for start in range(0, len(text), _BLOCK):
                size += len(_fold(text[start : start + _BLOCK]))
                self._counts.append(size)
        block = bisect_right(self._counts, at)
        left = at - (self._counts[block - 1] if block else 0)
        places = _VISIBLE.finditer(text, block * _BLOCK)
        return next(islice(places, left, None)).start()


def forms_of(value: str) -> frozenset[bytes]:
    """Return the forms of a secret value that are searched for in readings of a text: the value itself, reversed, and
    in the usual encodings, such as hexadecimal, base32 and base64.
    """
    raw = value.encode()
    texts = {value, value[::-1], raw.hex(), raw.hex(":"), raw.hex("-"), ",".join(f"0x{byte:02x}" for byte in raw)}
    texts |= {"".join(map(str, raw)), ",".join(map(str, raw)), *_base32_forms(raw)}
    texts |= {*_base64_forms(raw), *_base64_forms(value.encode("utf-16-le"))}
    texts |= {twice for once in {*_base64_forms(raw)} for twice in _base64_forms(once.encode())}
    # a value with a backslash, for example, has no escape of JSON in HTML, and the reading resolves the backslash too
    resolved = {_fold(one.text) for one in _unescape(Reading(raw), MAX_ESCAPED, is_whole=True)}
    return frozenset([*(_fold(text.encode()) for text in texts), *(one for one in resolved if len(one) >= MIN_SECRET)])


def readings_of(data: bytes, *, is_whole: bool = True) -> Iterator[Reading]:
    """Yield the readings of a text, each once: the text as it is, and with its tags, quoted-printable and escapes
    resolved, in visible ASCII and lower case. Binary data has one reading, in which nothing is resolved.

    `is_whole`: false if the text may go on; then a resolved reading ends before a unit that the text may complete.
    """
    texts = set[bytes]()
    is_binary = len(data) >= MIN_BINARY and len(data.translate(None, _CONTROLS)) < (1 - MAX_CONTROLS) * len(data)
    for reading in [Reading(data)] if is_binary else _resolve(data, is_whole=is_whole):
        if (text := _fold(reading.text)) not in texts:
            texts.add(text)
            yield _FoldedReading(text, reading)


def texts_of(data: bytes) -> set[bytes]:
    """Return the texts of all readings of a text that a program sends, also with letters and digits of other forms,
    such as full-width letters, turned into ASCII.
    """
    readings = [reading.text for reading in _resolve(data, is_whole=True)]
    return {_fold(text) for text in readings} | {_fold(visible_in(text)) for text in readings if not text.isascii()}


def begun_escape(data: bytes) -> int:
    """Return the number of bytes at the end of a text that are the beginning of an incomplete escape; 0 if there is
    none.
    """
    match = _ESCAPES.begun.search(data, max(len(data) - MAX_TAG, 0))
    return 0 if match is None else len(match[0])


def texts_in(arguments: Mapping[str, Any]) -> str:
    """Return the values in the arguments of a call, in order, then the names of their members, each in a line of its
    own, and without null characters.
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
            f"the arguments are over {limit} bytes, and cannot be searched for secrets that a proxy used for the agent",
            hint="send less in one call or batch",
            code=TOO_LONG,
        )
    return data


def visible_in(text: bytes) -> bytes:
    """Return the visible ASCII characters of a text, with letters and digits of other forms turned into ASCII, and
    without accents (NFKD).
    """
    if not text.isascii():
        text = normalize("NFKD", text.decode("utf-8", "ignore")).encode("ascii", "ignore")
    return text.translate(None, _INVISIBLE)


def _fold(text: bytes) -> bytes:
    """Return the visible ASCII characters of a text in small letters."""
    return text.translate(_SMALL, _REMOVED)


def _resolve(data: bytes, *, is_whole: bool) -> Iterator[Reading]:
    """Yield a text, and the text with its parts resolved: tags, quoted-printable, and escapes up to MAX_ESCAPED times.
    Tags may also be written with escapes or in quoted-printable.
    """
    raw = Reading(data)
    yield raw
    if (escaped := _read(raw, _ESCAPES, is_whole)) is not raw:
        yield from _unescape(escaped, MAX_ESCAPED - 1, is_whole=is_whole)
    quoted = _read(raw, _QUOTED, is_whole)
    if quoted is not raw:
        yield from _unescape(quoted, MAX_ESCAPED, is_whole=is_whole)
    for source in dict.fromkeys((raw, quoted, escaped)):
        if (reading := _read(source, _TAGS, is_whole)) is not source:
            yield from _unescape(reading, MAX_ESCAPED, is_whole=is_whole)


def _unescape(reading: Reading, times: int, *, is_whole: bool) -> Iterator[Reading]:
    """Yield a text, and the text with its escapes resolved up to `times` times."""
    yield reading
    for _ in range(times):
        source, reading = reading, _read(reading, _ESCAPES, is_whole)
        if reading is source:
            return
        yield reading


def _read(source: Reading, units: _Units, is_whole: bool) -> Reading:
    """Return the text with its units read; the same reading if it has none."""
    text = source.text
    if not is_whole and (begun := units.begun.search(text, max(len(text) - 2 * MAX_TAG, 0))):
        text = text[: begun.start()]
    elif not units.sign.search(text):
        return source
    text = units.whole.sub(b"" if units.is_removed else _read_unit, text)
    return source if text == source.text else _ResolvedReading(text, source, units)


def _read_unit(match: re.Match[bytes]) -> bytes:
    return _meaning(match[0])


@lru_cache(maxsize=4096)
def _meaning(unit: bytes) -> bytes:
    """Return the ASCII character that a unit means; nothing for white space or another character; the unit itself if
    it has no meaning.
    """
    if (named := _NAMED.get(unit)) is not None:
        return named
    if unit[:1] == b"&" and unit[1:2] != b"#":
        return unit
    if unit in _BLANKS or not unit.strip(b"= \t\r\n"):
        return b""
    if match := _NUMBER.fullmatch(unit):
        number = int(match[1], 16)
    elif unit[:1] == b"=":
        number = int(unit[1:], 16)
    elif unit[:1] == b"&":
        number = int(unit.strip(b"&#;"))
    else:
        number = int(unit[1:], 8) if unit[1] in b"01234567" else unit[1]
    return bytes([number]) if number < 0x80 else b""


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Yield, for each alignment, the base64 characters that depend only on the value and not on the bytes around."""
    for before in range(3):
        whole = bytes(before) + raw
        first, last = -(-before * 8 // 6), len(whole) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(whole)[first:last].decode()


def _base32_forms(raw: bytes) -> Iterator[str]:
    """Yield, for each alignment, the base32 characters that depend only on the value."""
    for before in range(5):
        whole = bytes(before) + raw
        yield base64.b32encode(whole)[-(-before * 8 // 5) : len(whole) * 8 // 5].decode()

"""Fields of tool output that the system writes: numbers, dates, names of one or two words, and identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

from ostiary.authorization.catalogue import Kind
from ostiary.provenance.origins.identifiers import identifiers
from ostiary.provenance.origins.judging import names_in
from ostiary.provenance.origins.layouts import Layout, certain, fields
from ostiary.provenance.origins.links import readings
from ostiary.provenance.origins.memory import ALL_KINDS, BIT, Memory, Origin
from ostiary.provenance.origins.moments import moments
from ostiary.provenance.origins.scribe import Scribe
from ostiary.provenance.origins.words import words

MAX_DEPTH = 32
MAX_FIELD = 64
MAX_LISTED = 64
"""maximum number of identifiers of one output that a person can confirm without having named them"""
WRITTEN = frozenset(
    (
        "bio",
        "body",
        "comment",
        "content",
        "contents",
        "description",
        "message",
        "note",
        "notes",
        "reply",
        "review",
        "snippet",
        "subject",
        "summary",
        "text",
        "title",
    )
)
"""Names of fields whose values third parties write, however short the value is."""
MAX_DIGITS = 6
"""maximum number of digits of a known field; a number with more may be a telephone or account number"""
MIN_ENCODED = 12
"""length in characters from which a word may be encoded text (`links`)"""
_NUMBER = re.compile(r"-?\d{1,6}(?:\.\d{1,4})?")
_MOMENT = re.compile(r"[\d:T .Z+-]+")
_NAME = re.compile(r"[\w'’&+#-]++(?: [\w'’&+#-]++)?")
_LETTER = re.compile(r"[^\W\d_]")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""RFC 9562 section 4"""
MAX_IDENTIFIER = 36
_OPAQUE = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z])[A-Za-z\d][\w-]{2,23}[A-Za-z\d]", re.ASCII)
"""An opaque identifier: letters and digits, at most 25 characters, because addresses of cryptocurrencies have
26 or more.
"""
MAX_LINE = 256
"""maximum length in characters of a line that can describe a record"""
_BLANK = re.compile(r"\n[ \t]*\r?\n")
_FIELD = re.compile(r"[^\n:]{1,64}:(?:\s|$)")
_MARKED = re.compile(
    r"(?<![\w@/.+-])(?=[A-Za-z_.-]*\d|[A-Za-z]+[._]\w)[A-Za-z\d](?:[\w.-]{0,34}\w)?(?![\w@/+]|[:.-]\w)", re.ASCII
)
"""a word with a digit, or with a dot or an underscore inside"""
_ACCOUNT = re.compile(r"[A-Za-z]{2}\d{2}[A-Za-z\d]{11,}")
"""The form of an IBAN (ISO 13616), with any checksum."""
Found = tuple[Origin, int, str]
"""(origin of a text, the kinds of arguments for which the text counts as bits (see BIT), the text)"""


def of_field(name: str, text: str) -> Found:
    """Return the text of a field with its origin: known if only the system writes such a field, otherwise untrusted."""
    if name.lower() not in WRITTEN:
        if _is_field(text):
            return Origin.KNOWN, ALL_KINDS, text
        if _is_identifier(text):
            return Origin.KNOWN, BIT[Kind.OBJECT], text
    return Origin.OUTSIDE, ALL_KINDS, text


def _is_identifier(text: str) -> bool:
    """Return whether the text of a field is an opaque identifier, which can name an object but cannot reach or
    pay a recipient.
    """
    if len(text) > MAX_IDENTIFIER:
        return False
    if _UUID.fullmatch(text):
        return True
    if not _OPAQUE.fullmatch(text) or _ACCOUNT.fullmatch(text) or next(identifiers(text), None) is not None:
        return False
    return len(readings(text)) == 1


def _is_field(text: str) -> bool:
    """Return whether a text is a system field: too short to be a text of a third party, and no address or
    account number.
    """
    if len(text) > MAX_FIELD:
        return False
    if _NUMBER.fullmatch(text):
        return True
    is_word = text.isalnum()
    if not is_word and not _NAME.fullmatch(text) and not _MOMENT.fullmatch(text):
        return False
    if len(text) > MAX_DIGITS and sum(map(str.isdigit, text)) > MAX_DIGITS:
        return bool(_MOMENT.fullmatch(text) and moments(words(text, is_source=True)))
    if is_word:
        return len(readings(text)) == 1
    return all(len(word) < MIN_ENCODED for word in text.split()) and bool(_NAME.fullmatch(text))


def has_only_names(value: object, depth: int = MAX_DEPTH) -> bool:
    """Return whether all values and members of an output are names: at most two words with a letter, few digits, and no
    encoded text. A key or a number of an account is no name.
    """
    if isinstance(value, list | tuple | dict):
        items = chain(value, value.values()) if isinstance(value, dict) else value
        return depth > 0 and all(has_only_names(one, depth - 1) for one in items)
    text = value if isinstance(value, str) else ""
    if len(text) > MAX_FIELD or not _LETTER.search(text) or not _NAME.fullmatch(text):
        return False
    return sum(map(str.isdigit, text)) <= MAX_DIGITS and len(readings(text)) == 1


def list_identifiers(layout: Layout) -> Iterator[str]:
    """Yield the opaque identifiers and the numbers in fields of a layout that no value can have forged."""
    unforged = fields(layout.value) if layout.is_escaped else () if layout.is_inline else certain(layout.value, WRITTEN)
    for name, text in unforged:
        if name.lower() not in WRITTEN and (_NUMBER.fullmatch(text) or _is_identifier(text)):
            yield text


def list_described(memory: Memory, scribe: Scribe, text: str) -> Iterator[str]:
    """Examine the first MAX_LISTED short lines with identifiers, and yield the identifiers of each line that has a word
    of the person, perhaps with another ending: `Book club (id 903)`. A block between blank lines of which every line
    is a field (`name: value`) counts as one line.
    """
    short = (line for line in _lines(text) if len(line) <= MAX_LINE)
    for marked, line in islice(((marks, line) for line in short if (marks := _MARKED.findall(line))), MAX_LISTED):
        if any(_is_said(memory, scribe, name) for name in names_in(line)):
            yield from marked


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, and adjacent lines of fields (`name: value`) together."""
    for block in _BLANK.split(text):
        lines = block.splitlines()
        yield from [block] if all(map(_FIELD.match, lines)) else lines


def _is_said(memory: Memory, scribe: Scribe, name: str) -> bool:
    """Return whether the person wrote a word or a mail address, perhaps with another ending."""
    if scribe.word(name) in memory.stated_words or memory.has_stem(name, scribe.word):
        return True
    return not name.isascii() and memory.find(scribe.phrase(name)) is Origin.PERSON

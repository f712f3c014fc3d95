"""Slots: the fields of values in records. They reveal a value that is in the place of another, which the person named.

The person named order 17, and tools returned orders 17 and 18. Both are values of one field, so a call with 18 has
a *substitute*. The meaning of words does not matter: a field is a path in the output of one tool.

    field     the tool, and the path of a value in its output; all elements of a list share one path, and so do all
              records of a map
    named     a field with a value that the person named, or a field of a record that the person named
    rival     a value of a field that the person did not name

A value is a substitute if it is a rival in a named field, and the person did not name it in any field. Amounts have one
more rule: if the person's words contain a number, or a document endorsed for amounts does, each amount from a record is
a substitute. A number in the words does not count if the call uses it to name an object of a record.

In the memory, each fact is one word of six bytes (`SLOT`): two for the field and four for the value. For 2,000 pairs of
values, the probability of a collision is one in two million.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from zlib import crc32

from ostiary.authorization.catalogue import Kind
from ostiary.provenance.origins.links import spellings
from ostiary.provenance.origins.memory import NUMBER, SLOT, Memory, Origin, Part, holds
from ostiary.provenance.origins.scribe import LARGEST, WIDTH, Scribe, hashed
from ostiary.provenance.origins.words import decimal, read_amount, words

MAX_SCALARS = 4096
"""maximum number of scalars of one output that are read"""
MAX_RIVALS, MAX_NAMED = 256, 128
"""maximum numbers of facts that one output adds: about rivals, and about named fields and values"""
MAX_VALUE = 64
"""maximum length of a value in characters; a longer text is prose, and so is a text with more than MAX_SPACES spaces"""
MAX_SPACES = 5
MAX_DEPTH = 32
_ANY = bytes(4)
_VALUE = b"\0\0"
"""prefix of a fact about a named value, in place of a field (see also `NUMBER`)"""
_SUM = b"\0\2" + _ANY
"""the fact that an endorsed document states an amount"""
_PERSON, _ENDORSED = Origin.PERSON, Origin.ENDORSED
"""origins of values that the person named; their own record does not count"""
_LETTER = re.compile(r"[^\W\d_]")
_DIGITS = "0123456789+-"
_SCALARS = (str, int, float)
Stated = Callable[[str], Origin]
Scalar = tuple[str, str, bool]
"""the path of the field, the text of the scalar, and true if the scalar belongs to a record that the person named"""


def slots(
    memory: Memory,
    uid: str,
    output: object,
    scribe: Scribe,
    stated: Stated,
    *,
    is_named: bool,
    is_record: bool,
) -> list[Part]:
    """Return the facts about fields that the output of a call of the tool `uid` adds to the memory, as parts: the
    values that the person named, their fields, and the other values of fields. `stated`: returns the origin of a text
    that the person stated, owns or endorsed; `is_named`: true if the person named the content; `is_record`: true if the
    content has no untrusted author.
    """
    fields: dict[str, bytes] = {}
    marks: dict[bytes, None] = {}
    rivals: dict[bytes, None] = {}
    scalars: list[Scalar] = []
    _Reader(stated, scalars, is_record=is_record).read(output, "", is_named, MAX_DEPTH)
    for path, text, named in dict.fromkeys(scalars):
        if (field := fields.get(path)) is None:
            field = fields[path] = _field(memory, uid, path)
        value = _value(scribe, text)
        origin = stated(text)
        if named or origin is _PERSON or origin is _ENDORSED:
            marks[field + _ANY] = marks[_VALUE + value] = None
        else:
            rivals[field + value] = None
    old = _facts(memory)
    new = [one for one in rivals if one not in old]
    first = [one for one in new if (mark := one[:2] + _ANY) in marks or mark in old]
    by_origin = (
        (Origin.RECORD, [one for one in marks if one not in old][:MAX_NAMED]),
        (Origin.KNOWN, list(dict.fromkeys([*first, *new]))[:MAX_RIVALS]),
    )
    return [Part(origin, SLOT, b"".join(facts)) for origin, facts in by_origin if facts]


def amount_parts(memory: Memory) -> list[Part]:
    """Return the parts to add to `memory` after reading a document that is endorsed for amounts and states an amount:
    one part, or none if `memory` already records such a document.
    """
    return [] if _holds(memory, _SUM) else [Part(Origin.RECORD, SLOT, _SUM)]


def is_substitute(memory: Memory, kind: Kind, text: str, names: Iterable[str] = ()) -> bool:
    """Return whether the value `text`, which comes from a record, is in the place of another value that the
    person named. `names`: values by which the same call names objects.
    """
    if not memory.slots:
        return False
    if kind is Kind.AMOUNT:
        number = read_amount(text)
        if number is None:
            return False
        return _is_other_amount(memory, names) or _is_rival(memory, _digest(hashed(memory.key, number)))
    number = decimal(text) if text[:1] in _DIGITS else None
    phrase = words(text, is_source=False) if number is None else [number]
    if len(phrase) == 1:
        return any(_is_rival(memory, _digest(hashed(memory.key, one))) for one in spellings(phrase[0]))
    return _is_rival(memory, _digest(memory.hashed(phrase)))


def _field(memory: Memory, uid: str, path: str) -> bytes:
    made = hashed(memory.key, f"field {uid} {path}")
    return bytes((made[0] or 1, made[1]))  # zero is kept for other facts


def _value(scribe: Scribe, text: str) -> bytes:
    is_plain = text[:1] not in _DIGITS or text.isdigit()
    number = None if is_plain else decimal(text)
    return _digest(scribe.phrase(text) if number is None else scribe.word(number))


class _Reader:
    """Reader of the scalars of one output."""

    def __init__(self, stated: Stated, collected: list[Scalar], *, is_record: bool) -> None:
        self._stated, self._collected, self._is_record = stated, collected, is_record

    def read(self, value: object, path: str, is_named: bool, depth: int) -> None:
        """Collect each scalar in `value`. If `value` is a list of records, a record counts as named by the person if it
        has a value that the person stated, and that no other record of the list has.
        """
        collected = self._collected
        if len(collected) >= MAX_SCALARS:
            return
        if isinstance(value, _SCALARS):
            if text := _scalar(value):
                collected.append((path, text, is_named))
        elif depth and isinstance(value, dict):
            if (records := rows(value)) is not value:
                self.read(records, path, is_named, depth)
                return
            for name, one in value.items():
                inner = f"{path}/{name}"
                if isinstance(one, _SCALARS) and len(collected) < MAX_SCALARS:  # without a call for each field
                    if text := _scalar(one):
                        collected.append((inner, text, is_named))
                else:
                    self.read(one, inner, is_named, depth - 1)
        elif depth and isinstance(value, list | tuple):
            names = [_names(one, self._stated) if self._is_record and isinstance(one, dict) else [] for one in value]
            among = Counter(chain.from_iterable(names))
            for one, each in zip(value, names, strict=True):
                named = any(among[text] == 1 for text in each) if each else False
                self.read(one, path, is_named if len(value) == 1 else named, depth - 1)


def _scalar(value: str | float) -> str:
    """Return the text of a scalar; empty for prose, for true and false, and for a number that is not compared."""
    if isinstance(value, str):
        text = value.strip()
        return text if len(text) <= MAX_VALUE and text.count(" ") <= MAX_SPACES else ""
    if isinstance(value, bool) or abs(value) >= LARGEST:
        return ""
    text = repr(int(value) if isinstance(value, float) and value.is_integer() else value)
    return text if len(text) <= MAX_VALUE else ""


def rows(value: object) -> object:
    """Return the records of a map (an object with two or more members that all have the same field names) as a list,
    each record with its key as a field. Return any other value unchanged.
    """
    if not isinstance(value, dict) or len(value) < 2:
        return value
    first = next(iter(value.values()))
    if not isinstance(first, dict) or not first:
        return value
    if not all(isinstance(one, dict) and one.keys() == first.keys() for one in value.values()):
        return value
    return [{"": key, **one} for key, one in value.items()]


def _names(record: Mapping[str, object], stated: Stated) -> list[str]:
    """Return the values by which the person named a record among others: texts with a letter, at most MAX_VALUE
    characters, that the person stated or endorsed.
    """
    return [
        value
        for value in record.values()
        if isinstance(value, str)
        and len(value) <= MAX_VALUE
        and ((origin := stated(value)) is _PERSON or origin is _ENDORSED)
        and _LETTER.search(value)
    ]


def _digest(phrase: bytes) -> bytes:
    """Return four bytes for a phrase, which is given as keyed hashes of its words."""
    return crc32(phrase).to_bytes(4, "big")


def _facts(memory: Memory) -> set[bytes]:
    return {part.words[at : at + WIDTH] for part in memory.slots for at in range(0, len(part.words), WIDTH)}


def _holds(memory: Memory, fact: bytes) -> bool:
    return any(holds(part.words, fact) for part in memory.slots)


def _is_rival(memory: Memory, value: bytes) -> bool:
    if _holds(memory, _VALUE + value):
        return False
    for part in memory.slots:
        if part.origin != Origin.KNOWN:
            continue
        at = part.words.find(value)
        while at >= 0:
            if at % WIDTH == 2 and _holds(memory, part.words[at - 2 : at] + _ANY):
                return True
            at = part.words.find(value, at + 1)
    return False


def leaves_number(memory: Memory, used: Iterable[str]) -> bool:
    """Return whether the person stated a number that is none of the numbers `used`, which are in plain digits."""
    stated = _stated_numbers(memory)
    return bool(stated) and not stated <= {_digest(hashed(memory.key, number)) for number in used}


def _stated_numbers(memory: Memory) -> set[bytes]:
    """Return the digests of the numbers in the person's words."""
    facts = next((part.words for part in memory.slots if part.origin == Origin.PERSON), b"")
    return {facts[at + 2 : at + WIDTH] for at in range(0, len(facts), WIDTH) if facts[at : at + 2] == NUMBER}


def _is_other_amount(memory: Memory, names: Iterable[str]) -> bool:
    if _holds(memory, _SUM):
        return True
    numbers = _stated_numbers(memory)
    things = {_digest(hashed(memory.key, number)) for text in names if (number := decimal(text)) is not None}
    return any(one not in things or not _holds(memory, _VALUE + one) for one in numbers)

"""What a text does to an amount: percentages, and numbers behind a plus, a minus or a by; and which amount it was.

A memory holds no values, so a sum cannot be made forwards. Of an amount that an agent computed it is asked which one it
was made of: of 200.29, where somebody said "19.5 % + a fee of 5.29", that is 1000. What is looked up then is bounded.
Amounts are whole cents, half a cent goes either way.

For the memory a term is sealed under the key of the task: like a word it tells nothing to who has not the key, and
unlike a word it can be read by who has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from ostiary.core.origins.scribe import END, MAX_TEXT, WIDTH, hashed
from ostiary.core.origins.words import decimal

MAX_TERMS = 4
"""of one text, and of all that count for one amount"""
MAX_SAID = 64
"""of one text that are looked at"""
MAX_BASES = 32
"""amounts that are looked up for one"""
MAX_EACH = 8
"""that one way of computing may have started from; where a small share leaves more, only rounder ones count"""
MAX_VALUE = 1 << 40
_WHOLE = 1_000_000
"""100 % in ten-thousandths of a per cent"""
_NUMBER = r"\d+(?:[.,'’]\d+)*"
_TERM = re.compile(
    rf"""(?<![\w.,'’-])(?P<share>{_NUMBER})[ ]?(?:%|per[ ]?cent\b)
    | (?:(?<![\w-])by[ ](?:[^\W\d]+[ ])?|(?:(?<![\w-])(?P<mark>plus|minus)[ ]|(?P<sign>\+)[ ]?)(?:[^\W\d]+[ ]){{0,3}}?)
      [$€£¥₹]?(?P<number>{_NUMBER})(?![\w%@-]|[.,'’/]\d|[ ]?[%(\d]|[ ]per[ ]?cent\b)""",
    re.VERBOSE | re.IGNORECASE,
)
"""in words: `+ a fee of 5.29` and `by EUR 100`, but no `by bank transfer within 14 days`"""


class Does(IntEnum):
    """What a term does; its value is in ten-thousandths of a per cent, or in cents."""

    SHARE = 0
    PLUS = 1
    MINUS = 2
    BY = 3
    """either"""


class Term(NamedTuple):
    does: Does
    value: int

    @property
    def number(self) -> str:
        """As it is spelled, for comparison."""
        return spelled(self.value, 4 if self.does is Does.SHARE else 2)


class Base(NamedTuple):
    """An amount in cents, of which the target comes by these terms (their places)."""

    cents: int
    used: tuple[int, ...]


_MARKS = {"plus": Does.PLUS, "+": Does.PLUS, "minus": Does.MINUS, "": Does.BY}


def terms(text: str) -> list[Term]:
    """The first ones of a text."""
    return [*dict.fromkeys(_terms(" ".join(text[:MAX_TEXT].split())))][:MAX_TERMS]


def _terms(text: str) -> Iterator[Term]:
    for match in islice(_TERM.finditer(text), MAX_SAID):
        does = Does.SHARE if match["share"] else _MARKS[(match["mark"] or match["sign"] or "").lower()]
        value = units(match["share"] or match["number"], 4 if does is Does.SHARE else 2)
        if value:
            yield Term(does, value)


def units(text: str, places: int) -> int | None:
    """A positive number in units of that many places; None for what is none, is finer, or larger than anybody pays."""
    whole, _, rest = (decimal(text) or "").partition(".")
    if not whole.isdigit() or len(rest) > places:
        return None
    value = int(whole + rest.ljust(places, "0"))
    return value if 0 < value < MAX_VALUE else None


def spelled(value: int, places: int = 2) -> str:
    """As `decimal` spells it."""
    whole, rest = divmod(value, 10**places)
    return f"{whole}.{rest:0{places}}".rstrip("0").rstrip(".")


def both(number: str) -> tuple[str, str]:
    """The words under which a memory has a number."""
    return number, f"#{number}"


def seal(key: bytes, said: Sequence[Term]) -> bytes:
    """As words of a memory, two each; the first is what the other is sealed with (RFC 5297 has the idea)."""
    return END.join(_sealed(key, bytes([term.does]) + term.value.to_bytes(WIDTH - 1, "big")) for term in said)


def _sealed(key: bytes, plain: bytes) -> bytes:
    tag = hashed(key, f"term {plain.hex()}")
    return tag + _masked(key, tag, plain)


def _masked(key: bytes, tag: bytes, word: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(word, hashed(key, f"mask {tag.hex()}"), strict=True))


def unseal(key: bytes, words: bytes) -> Iterator[Term]:
    """What `seal` made, and nothing else."""
    at = 0
    while at + 2 * WIDTH <= len(words):
        tag, word = words[at : at + WIDTH], words[at + WIDTH : at + 2 * WIDTH]
        plain = _masked(key, tag, word)
        if hashed(key, f"term {plain.hex()}") == tag and plain[0] < len(Does):
            yield Term(Does(plain[0]), int.from_bytes(plain[1:], "big"))
            at += WIDTH
        at += WIDTH


def bases(target: int, said: Sequence[Term]) -> Iterator[Base]:
    """What an amount in cents may have been made of, one term before two; a number of the terms themselves is none."""
    taken = {units(term.number, 2) for term in said}
    every = (Base(cents, used) for way in _ways(said) for cents, used in _before(target, *way))
    yield from islice((base for base in every if base.cents not in taken), MAX_BASES)


def _ways(said: Sequence[Term]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """By what is multiplied (in parts of _WHOLE), what is added then, and the terms of which that is."""
    shares = [
        (factor, place)
        for place, (does, value) in enumerate(said) if does is Does.SHARE
        for factor in (value, _WHOLE + value, _WHOLE - value) if factor > 0
    ]  # fmt: skip
    added = [
        (sign * value, place)
        for place, (does, value) in enumerate(said)
        for sign, others in ((1, (Does.PLUS, Does.BY)), (-1, (Does.MINUS, Does.BY))) if does in others
    ]  # fmt: skip
    for factor, place in shares:
        yield factor, 0, (place,)
    for more, place in added:
        yield _WHOLE, more, (place,)
    for more, other in added:
        for factor, place in shares:
            yield factor, more, (place, other)


def _before(target: int, factor: int, more: int, used: tuple[int, ...]) -> Iterator[Base]:
    """All cents of which this makes the target, or where these are too many, the rounder ones."""
    doubled = 2 * (target - more)
    lowest, highest = -((1 - doubled) * _WHOLE // (2 * factor)), (doubled + 1) * _WHOLE // (2 * factor)
    for step in (1, 10, 100):
        found = range(max(-(-lowest // step), 1) * step, highest + 1, step)
        if len(found) <= MAX_EACH:
            yield from (Base(cents, used) for cents in found)
            return

"""Fingerprints of content, which reveal a text that repeats a part of a source.

A *span* is a run of `SPAN` words. Of a source, every `STRIDE`-th span is stored, and of a text, all spans are looked
up; so every run of `SPAN + STRIDE - 1` words that a text repeats is found. If a source is too long for its space, fewer
spans are stored. A *fact* is too short for a span and has meaning alone: a long number, a date, a mail address, a link,
a word of mixed letters and digits as keys and codes are, two neighbouring words spelled like names, or a complete field
of two to four words.

A fingerprint is a checksum of keyed hashes of words, which reveals nothing without the key of the task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from struct import Struct
from typing import TypeVar
from zlib import crc32

from ostiary.provenance.origins.scribe import WIDTH, Scribe

T = TypeVar("T")
SPAN = 5
STRIDE = 3
MAX_YEAR = 2099
_SIZES = tuple(words * WIDTH for words in range(1, SPAN + 1))
_FINGERPRINT = Struct(">IH")
"""a checksum and `_TAG`: six bytes as for a word"""
_TAG = 2
MIN_DIGITS = 4
MIN_WORD = 3
"""minimum length in characters of a single word that is a fact"""
MAX_FIELD = 64
"""maximum length in characters of a value of a layout that is a fact"""
_ALNUM = re.compile(r"[^\W_]")
_DIGITS = re.compile(r"\d")
MIN_MIXED = 8
"""minimum length in characters of letters and digits that are mixed as in a key"""
_RUN = re.compile(rf"[^\W_]{{{MIN_MIXED},}}")
_MIXED = re.compile(r"[^\W\d_]\d+[^\W\d_]|\d[^\W\d_]+\d")
"""a digit between letters, or letters between digits"""
_OPENING = "(\"'[{*_<“„«"
_ENDING = ".,;:!?"
_CLOSING = frozenset(_ENDING)


def source_prints(scribe: Scribe, texts: Iterable[str], fields: Iterable[str] = (), *, room: int) -> list[int]:
    """Return at most `room` checksums of phrases of a source: first of its facts (single words with meaning, names and
    short texts), then of spans of SPAN words in longer texts. `fields`: values of a layout in the source's texts.
    """
    facts: dict[int, None] = {}
    runs: list[bytes] = []
    examined: set[str] = set()
    for reading, phrase in scribe.spoken(texts):
        if "@" in reading or ":" in reading or _DIGITS.search(reading):
            for word in [one for one in phrase + scribe.otherwise(reading) if not one.isalpha()]:
                if word not in examined:
                    examined.add(word)
                    if is_telling(word):
                        facts[crc32(scribe.word(word))] = None
        if len(phrase) == 1:
            if _is_name(phrase):
                facts[crc32(scribe.phrase(reading))] = None
        elif phrase:
            if not reading.islower():
                facts.update(dict.fromkeys(_named_pairs(scribe, reading)))
            if len(phrase) < SPAN:
                facts[crc32(scribe.phrase(reading))] = None
            else:
                runs.append(scribe.phrase(reading))
    for text in fields:
        field = text[:MAX_FIELD]
        if field.count(" ") >= SPAN - 1 and sum(map(str.isalpha, field.split())) >= SPAN:
            continue  # each of them is a word, so the field is no fact
        phrase = scribe.words(field)
        if 1 < len(phrase) < SPAN or _is_name(phrase):
            facts[crc32(scribe.phrase(field))] = None
    left = max(room - len(facts), room // 2)
    stride = max(STRIDE, -(-sum(map(len, runs)) // WIDTH // max(left - len(runs), 1)))
    spans = dict.fromkeys(
        crc32(run[at * WIDTH : (at + SPAN) * WIDTH]) for run in runs for at in _places(len(run) // WIDTH, stride)
    )
    return [*islice(facts, room - min(len(spans), left)), *islice(spans, left)]


def _is_name(phrase: Sequence[str]) -> bool:
    """Return whether a text is a single word with a letter, of at least MIN_WORD characters."""
    if len(phrase) != 1 or len(phrase[0]) < MIN_WORD:
        return False
    return phrase[0].isalpha() or any(map(str.isalpha, phrase[0]))


def _places(count: int, stride: int) -> Iterator[int]:
    """Yield the starts of the stored spans in a run of `count` words: every `stride`-th one, and the last."""
    last = count - SPAN
    yield from range(0, last, stride)
    yield last


def list_phrases(hashes: Sequence[bytes]) -> list[bytes]:
    """Return each phrase of at most SPAN words of a text, as concatenated hashes of words. `hashes`: hashes of the
    words of the text in their order.
    """
    whole = b"".join(hashes)
    return [whole[at : at + size] for size in _SIZES for at in range(0, len(whole) - size + 1, WIDTH)]


def has_checksum(hashes: Sequence[bytes], checksums: frozenset[int]) -> bool:
    """Return whether one of the checksums of `list_checksums` is in `checksums`."""
    longest: list[int] = []
    for words in range(min(SPAN, len(hashes))):
        longest = [*map(crc32, hashes[words:], longest)] if words else [*map(crc32, hashes)]
        if not checksums.isdisjoint(longest):
            return True
    return False


def list_checksums(hashes: Sequence[bytes]) -> list[int]:
    """Return the checksum of each phrase of `list_phrases`, in the same order."""
    longest = every = [*map(crc32, hashes)]
    for words in range(1, SPAN):
        longest = [*map(crc32, hashes[words:], longest)]
        every = every + longest
    return every


def differing(hashes: Sequence[T], other: Sequence[T]) -> Sequence[T]:
    """Return the part of a reading of a text whose phrases may be absent from another reading: without the common
    beginning and the common end of both, except for the words that a phrase may extend into.
    """
    if hashes == other:
        return []
    start, rest, most = 0, 0, min(len(hashes), len(other))
    while start < most and hashes[start] == other[start]:
        start += 1
    while rest < most - start and hashes[-1 - rest] == other[-1 - rest]:
        rest += 1
    return hashes[max(start - SPAN + 1, 0) : len(hashes) - rest + SPAN - 1]


def fingerprint(checksum: int) -> bytes:
    """Return the stored form of the checksum of a phrase."""
    return _FINGERPRINT.pack(checksum, _TAG)


def is_telling(word: str) -> bool:
    """Return whether a single word has meaning alone: a mail address, a link, a word with enough digits that is no
    year, or a word that mixes letters and digits.
    """
    if "@" in word[1:] or "://" in word:
        return True
    if len(word) < MIN_DIGITS:
        return False
    digits = len(_DIGITS.findall(word))
    if digits > MIN_DIGITS or (digits == MIN_DIGITS and word[0] not in "@~" and not _is_year(word)):
        return True
    return digits > 0 and any(map(_MIXED.search, _RUN.findall(word)))


def has_digits(text: str) -> bool:
    """Return whether a text has at least MIN_DIGITS digits."""
    return len(_DIGITS.findall(text)) >= MIN_DIGITS


def _is_year(word: str) -> bool:
    return len(word) == MIN_DIGITS and 1900 <= int(word) <= MAX_YEAR


def _is_tagged(run: str) -> bool:
    """Return whether markup divides a run of characters into three words or more."""
    return "<" in run and sum(map(bool, map(_ALNUM.search, run.replace(">", "<").split("<")))) > 2


def _is_simple(run: str) -> bool:
    """Return whether a run of characters is one word, whatever is beside it: ASCII letters alone, or digits alone."""
    return run.isascii() and (run.isalpha() or run.isdigit())


def _named_pairs(scribe: Scribe, text: str) -> Iterator[int]:
    """Yield the checksums of two neighbouring words that each begin with a capital letter or a digit, at
    least one with a letter.
    """
    for one, two in pairwise(text.split()):
        if two[0].islower() or one[-1] in _CLOSING:
            continue
        begins = one.lstrip(_OPENING)[:1], two.lstrip(_OPENING)[:1]
        if not all(first.isupper() or first.isdigit() for first in begins) or not any(map(str.isupper, begins)):
            continue
        if _is_simple(one) and _is_simple(bare := two.rstrip(_ENDING)):
            yield crc32(scribe.word(one.lower()) + scribe.word(bare.lower()))
        elif not _is_tagged(one) and not _is_tagged(two):
            hashes = scribe.hashes(scribe.words(f"{one} {two}"))
            if len(hashes) == 2:
                yield crc32(b"".join(hashes))

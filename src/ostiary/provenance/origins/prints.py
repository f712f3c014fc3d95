"""Fingerprints of content, by which a text that repeats a part of a source is recognised.

A *span* is `SPAN` words in their order. Of a source one span in `STRIDE` is kept, and in a text all are looked up, so
each run of `SPAN + STRIDE - 1` words that a text repeats is noticed. Of a source that is too long for its space, fewer
are kept. A *fact* is too short for a span and has meaning alone: a long number, a day, a mail address, a link,
two neighbouring words that are written as names are, or all of a field, if it has two to four words.

A fingerprint is a checksum of keyed hashes of words: without the key of the task it tells nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from zlib import crc32

from ostiary.provenance.origins.scribe import WIDTH, Scribe

SPAN = 5
STRIDE = 3
MAX_YEAR = 2099
_SIZES = tuple(words * WIDTH for words in range(1, SPAN + 1))
_TAG = b"\0\2"
"""behind the four bytes of a fingerprint, which is as wide as a word"""
MIN_DIGITS = 4
MIN_WORD = 3
"""characters of a value that is a fact as a single word"""
MAX_FIELD = 64
"""characters of a value of a layout that is a fact as a whole"""
_DIGITS = re.compile(r"\d")
_OPENING = "(\"'[{*_<“„«"
_CLOSING = frozenset(".,;:!?")


def source_prints(scribe: Scribe, texts: Iterable[str], fields: Iterable[str] = (), *, room: int) -> list[bytes]:
    """Return the fingerprints of a source, at most `room`: its facts first, then its spans. `fields`: values of a
    layout within its texts.
    """
    facts: dict[bytes, None] = {}
    runs: list[bytes] = []
    for reading, phrase in scribe.spoken(texts):
        for word in (*phrase, *scribe.otherwise(reading)):
            if not word.isalpha() and _tells(word):
                facts[_print(scribe.word(word))] = None
        if _is_name(phrase):
            facts[_print(scribe.phrase(reading))] = None
        elif len(phrase) > 1:
            facts.update(dict.fromkeys(_named_pairs(scribe, reading)))
            if len(phrase) < SPAN:
                facts[_print(scribe.phrase(reading))] = None
            else:
                runs.append(scribe.phrase(reading))
    for field in fields:
        phrase = scribe.words(field[:MAX_FIELD])
        if 1 < len(phrase) < SPAN or _is_name(phrase):
            facts[_print(scribe.phrase(field[:MAX_FIELD]))] = None
    left = max(room - len(facts), room // 2)
    stride = max(STRIDE, -(-sum(map(len, runs)) // WIDTH // max(left - len(runs), 1)))
    spans = dict.fromkeys(
        _print(run[at * WIDTH : (at + SPAN) * WIDTH]) for run in runs for at in _places(len(run) // WIDTH, stride)
    )
    return [*islice(facts, room - min(len(spans), left)), *islice(spans, left)]


def _is_name(phrase: Sequence[str]) -> bool:
    """Return whether a field is a single word with a letter, which is a fact as a whole."""
    return len(phrase) == 1 and len(phrase[0]) >= MIN_WORD and any(map(str.isalpha, phrase[0]))


def _places(count: int, stride: int) -> Iterator[int]:
    """Yield the starts of the spans that are kept of `count` words: one in `stride`, and the last."""
    last = count - SPAN
    yield from range(0, last, stride)
    yield last


def text_phrases(scribe: Scribe, hashes: Sequence[bytes], spoken: Iterable[str]) -> list[bytes]:
    """Return the hashes of the words of each phrase by which a text could be recognised.

    `hashes`: of the words of the text in their order; `spoken`: those words, with other spellings of single ones.
    """
    whole = b"".join(hashes)
    phrases = [whole[at : at + size] for size in _SIZES for at in range(0, len(whole) - size + 1, WIDTH)]
    return phrases + scribe.hashes(word for word in spoken if not word.isalpha() and _tells(word))


def text_prints(phrases: Collection[bytes], *, marks: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return the fingerprint of each phrase, with the phrase. `marks`: those of a memory (`with_marks`), to leave out
    fingerprints without a mark there.
    """
    return [
        (made.to_bytes(4, "big") + _TAG, phrase)
        for made, phrase in zip(map(crc32, phrases), phrases, strict=True)
        if not marks or marks[made >> 24 | (made >> 19 & 31) << 8] >> (made >> 16 & 7) & 1
    ]


def _print(phrase: bytes) -> bytes:
    return crc32(phrase).to_bytes(4, "big") + _TAG


def _tells(word: str) -> bool:
    """Return whether a word that is not letters alone has meaning alone: an address, a day of a year, or a number that
    is no year.
    """
    if "@" in word[1:] or "://" in word:
        return True
    digits = len(_DIGITS.findall(word))
    return digits > MIN_DIGITS or (digits == MIN_DIGITS and word[0] not in "@~" and not _is_year(word))


def _is_year(word: str) -> bool:
    return len(word) == MIN_DIGITS and 1900 <= int(word) <= MAX_YEAR


def _named_pairs(scribe: Scribe, text: str) -> Iterator[bytes]:
    """Two neighbouring words of a sentence that begin with a capital letter or a digit, and are no two numbers."""
    for one, two in pairwise(text.split()):
        if two[0].islower() or one[-1] in _CLOSING:
            continue
        begins = one.lstrip(_OPENING)[:1], two.lstrip(_OPENING)[:1]
        if all(first.isupper() or first.isdigit() for first in begins) and any(map(str.isupper, begins)):
            hashes = scribe.hashes(scribe.words(f"{one} {two}"))
            if len(hashes) == 2:
                yield _print(b"".join(hashes))

"""Fingerprints of content, which reveal a text that repeats a part of a source.

A *span* is a run of `SPAN` words. Of a source, every `STRIDE`-th span is stored, and of a text, all spans are looked
up; so every run of `SPAN + STRIDE - 1` words that a text repeats is found. If a source is too long for its space, fewer
spans are stored. A *fact* is too short for a span and has meaning alone: a long number, a date, a mail address, a link,
two neighbouring words spelled like names, or a complete field of two to four words.

A fingerprint is a checksum of keyed hashes of words, which reveals nothing without the key of the task.
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
"""last two bytes of each fingerprint, after four bytes of checksum: six bytes as for a word"""
MIN_DIGITS = 4
MIN_WORD = 3
"""minimum length in characters of a single word that is a fact"""
MAX_FIELD = 64
"""maximum length in characters of a value of a layout that is a fact"""
_DIGITS = re.compile(r"\d")
_OPENING = "(\"'[{*_<“„«"
_CLOSING = frozenset(".,;:!?")


def source_prints(scribe: Scribe, texts: Iterable[str], fields: Iterable[str] = (), *, room: int) -> list[bytes]:
    """Return at most `room` fingerprints of a source: of its facts first, then of its spans. `fields`: values
    of a layout in the source's texts.
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
    """Return whether a text is a single word with a letter, of at least MIN_WORD characters."""
    return len(phrase) == 1 and len(phrase[0]) >= MIN_WORD and any(map(str.isalpha, phrase[0]))


def _places(count: int, stride: int) -> Iterator[int]:
    """Yield the starts of the stored spans in a run of `count` words: every `stride`-th one, and the last."""
    last = count - SPAN
    yield from range(0, last, stride)
    yield last


def text_phrases(scribe: Scribe, hashes: Sequence[bytes], spoken: Iterable[str]) -> list[bytes]:
    """Return each phrase by which a text could be recognised, as concatenated hashes of words.

    `hashes`: hashes of the words of the text in their order; `spoken`: these words, with other spellings.
    """
    whole = b"".join(hashes)
    phrases = [whole[at : at + size] for size in _SIZES for at in range(0, len(whole) - size + 1, WIDTH)]
    return phrases + scribe.hashes(word for word in spoken if not word.isalpha() and _tells(word))


def text_prints(phrases: Collection[bytes], *, marks: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return (fingerprint, phrase) for each phrase. `marks`: marks of a memory (`with_marks`); fingerprints
    that have no mark there are omitted.
    """
    return [
        (made.to_bytes(4, "big") + _TAG, phrase)
        for made, phrase in zip(map(crc32, phrases), phrases, strict=True)
        if not marks or marks[made >> 24 | (made >> 19 & 31) << 8] >> (made >> 16 & 7) & 1
    ]


def _print(phrase: bytes) -> bytes:
    return crc32(phrase).to_bytes(4, "big") + _TAG


def _tells(word: str) -> bool:
    """Return whether a single word has meaning alone: a mail address, a link, or a word with enough digits that
    is no year.
    """
    if "@" in word[1:] or "://" in word:
        return True
    digits = len(_DIGITS.findall(word))
    return digits > MIN_DIGITS or (digits == MIN_DIGITS and word[0] not in "@~" and not _is_year(word))


def _is_year(word: str) -> bool:
    return len(word) == MIN_DIGITS and 1900 <= int(word) <= MAX_YEAR


def _named_pairs(scribe: Scribe, text: str) -> Iterator[bytes]:
    """Yield the fingerprints of two neighbouring words that each begin with a capital letter or a digit, at
    least one with a letter.
    """
    for one, two in pairwise(text.split()):
        if two[0].islower() or one[-1] in _CLOSING:
            continue
        begins = one.lstrip(_OPENING)[:1], two.lstrip(_OPENING)[:1]
        if all(first.isupper() or first.isdigit() for first in begins) and any(map(str.isupper, begins)):
            hashes = scribe.hashes(scribe.words(f"{one} {two}"))
            if len(hashes) == 2:
                yield _print(b"".join(hashes))

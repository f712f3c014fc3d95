"""Fingerprints of content: by what a text is recognised that repeats a part of a source.

A *span* is `SPAN` words in their order. Of a source one span in `STRIDE` is kept, and in a text all are looked up, so
each run of `SPAN + STRIDE - 1` words that a text repeats is noticed. Of a source that is too long for its room fewer
are kept. A *fact* is too short for a span and tells something by itself: a long number, a day, a mail address, a link,
two neighbouring words that are written as names are, or all of a field, if it has two to four words.

A fingerprint is six bytes of BLAKE2s over keyed hashes of words: without the key of the task it tells nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2s
from itertools import islice, pairwise

from ostiary.core.origins.scribe import WIDTH, Scribe

SPAN = 5
STRIDE = 3
MAX_YEAR = 2099
MIN_DIGITS = 4
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
    for reading, said in scribe.spoken(texts):
        facts.update(dict.fromkeys(_facts(scribe, said)))
        facts.update(dict.fromkeys(_facts(scribe, scribe.otherwise(reading))))
        facts.update(dict.fromkeys(_named_pairs(scribe, reading)))
        facts.update(dict.fromkeys(_whole_field(scribe, said)))
        if len(said) >= SPAN:
            runs.append(b"".join(scribe.hashes(said)))
    for field in fields:
        facts.update(dict.fromkeys(_whole_field(scribe, scribe.words(field[:MAX_FIELD]))))
    left = max(room - len(facts), room // 2)
    stride = max(STRIDE, -(-sum(map(len, runs)) // WIDTH // max(left - len(runs), 1)))
    spans = dict.fromkeys(
        _print(run[at * WIDTH : (at + SPAN) * WIDTH]) for run in runs for at in _places(len(run) // WIDTH, stride)
    )
    return [*islice(facts, room - min(len(spans), left)), *islice(spans, left)]


def _places(count: int, stride: int) -> Iterator[int]:
    """Where spans begin that are kept of that many words: one in `stride`, and the last."""
    last = count - SPAN
    yield from range(0, last, stride)
    yield last


def text_prints(scribe: Scribe, hashes: Sequence[bytes], spoken: Iterable[str]) -> Iterator[tuple[bytes, bytes]]:
    """Yield each fingerprint by which a text could be recognised, with the hashes of the words that it stands for.

    `hashes`: of the words of the text in their order; `spoken`: those words, with other spellings of single ones.
    """
    whole = b"".join(hashes)
    for words in range(2, SPAN + 1):
        size = words * WIDTH
        for at in range(0, len(whole) - size + 1, WIDTH):
            phrase = whole[at : at + size]
            yield _print(phrase), phrase
    for word in spoken:
        if _tells(word):
            [phrase] = scribe.hashes((word,))
            yield _print(phrase), phrase


def _print(phrase: bytes) -> bytes:
    return blake2s(phrase, digest_size=WIDTH).digest()


def _whole_field(scribe: Scribe, said: Sequence[str]) -> Iterator[bytes]:
    if 1 < len(said) < SPAN:
        yield _print(b"".join(scribe.hashes(said)))


def _facts(scribe: Scribe, spoken: Iterable[str]) -> Iterator[bytes]:
    return map(_print, scribe.hashes(word for word in spoken if not word.isalpha() and _tells(word)))


def _tells(word: str) -> bool:
    """Return whether a word tells something by itself: an address, a day of a year, or a number that is no year."""
    if word.isalpha():
        return False
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

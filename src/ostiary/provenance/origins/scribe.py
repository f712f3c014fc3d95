"""The stored form of texts in a memory: the hashes of their words in order, each text as a separate source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from hashlib import blake2s

from ostiary.provenance.origins.links import decode
from ostiary.provenance.origins.moments import moments
from ostiary.provenance.origins.words import compact, decimal, numbers_in_words, words

WIDTH = 6
"""size of a hashed word in bytes"""
END = bytes(WIDTH)
"""separator between sources, so that no phrase extends over two sources"""
MAX_TEXT = 1 << 18
"""maximum number of characters of a source that are stored"""
LARGEST = 1 << 128
"""whole numbers of this size or more are not compared, because their digits may be too many to write out"""

_DIGIT = re.compile(r"\d")
_NUMERIC = "-0123456789"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
"""a JSON number without an exponent"""


class _Hashes(dict[str, bytes]):
    """Cache of the hashes of words. Each hash is computed at first use."""

    __slots__ = ("_begin",)

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._begin = _hasher(key).copy

    def __missing__(self, word: str) -> bytes:
        made = self._begin()
        made.update(word.encode("utf-8", "surrogatepass"))
        word_hash = self[word] = made.digest()
        return word_hash


class Scribe:
    """Writer of the stored form of texts. Each attribute is a function of a text with a cache.

    word         the hash of a word
    words        the words of a text, read as the text of a source (see the function `words`)
    phrase       the concatenated hashes of the words of a text, without other spellings
    otherwise    other spellings of the words of a text: amounts, account numbers and dates in normal form
    decode       the readings of a text, and whether these are all (see the function `decode`)
    """

    __slots__ = ("decode", "otherwise", "phrase", "word", "words")

    def __init__(self, key: bytes) -> None:
        word, spoken = hasher(key), cache(partial(words, is_source=True))
        self.word: Callable[[str], bytes] = word
        self.words: Callable[[str], list[str]] = spoken
        self.phrase: Callable[[str], bytes] = cache(lambda text: b"".join([*map(word, spoken(text))]))
        self.otherwise: Callable[[str], list[str]] = cache(lambda text: other_spellings(text, spoken(text)))
        self.decode: Callable[[str], tuple[list[str], bool]] = cache(decode)

    def source(self, texts: Iterable[str], *, room: int) -> bytes:
        """Return the stored form of texts: each text, with its decoded forms, is a separate source. The result
        has fewer than `room` words; further words are omitted.
        """
        hashes, full = bytearray(), room * WIDTH
        word, phrase = self.word, self.phrase
        for whole in dict.fromkeys(texts):
            text = whole[:MAX_TEXT]
            if len(hashes) >= full:
                break
            if text[:1] in _NUMERIC and _NUMBER.fullmatch(text):
                exact = text.rstrip("0").rstrip(".") if "." in text else text
                hashes += word(text) + (b"" if exact == text else word(f"#{exact}")) + END
                continue
            for reading in self.decode(text)[0]:
                left, spoken = max(full - len(hashes), 0), phrase(reading)
                hashes += spoken[:left]
                if len(spoken) < left:
                    hashes += b"".join(map(word, self.otherwise(reading)))
                    if _DIGIT.search(reading):
                        hashes += b"".join(map(word, numbers_in_words(self.words(reading))))
                hashes += END
        while hashes.endswith(END):
            del hashes[-WIDTH:]
        return bytes(hashes[: full - WIDTH])

    def spoken(self, texts: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield (reading, its words) for each text and for each decoded form of the text."""
        for text in dict.fromkeys(texts):
            for reading in self.decode(text[:MAX_TEXT])[0]:
                yield reading, self.words(reading)

    def hashes(self, spoken: Iterable[str]) -> list[bytes]:
        """Return the hash of each word, in the same order."""
        return [*map(self.word, spoken)]


def hasher(key: bytes) -> Callable[[str], bytes]:
    """Return a function that computes the hash of a word with `key`, and caches the results."""
    return _Hashes(key).__getitem__


def hashed(key: bytes, word: str) -> bytes:
    """Return the keyed hash of a word."""
    made = _hasher(key).copy()
    made.update(word.encode("utf-8", "surrogatepass"))
    return made.digest()


@lru_cache(maxsize=256)
def _hasher(key: bytes) -> blake2s:
    """Return a BLAKE2s object that has already processed the key, which halves the work."""
    return blake2s(digest_size=WIDTH, key=key)


def split(sources: bytes) -> list[bytes]:
    """Return the words of each source, as concatenated hashes."""
    parts, start = [], 0
    for at in range(0, len(sources), WIDTH):
        if sources[at : at + WIDTH] == END:
            parts.append(sources[start:at])
            start = at + WIDTH
    return [*parts, sources[start:]]


def other_spellings(text: str, spoken: list[str]) -> list[str]:
    """Return other spellings of the words of a text. `spoken`: these words."""
    return _otherwise(spoken) if _DIGIT.search(text) else []


def _otherwise(spoken: list[str]) -> list[str]:
    """Return other spellings of single words: amounts and account numbers without grouping, dates and times in
    normal form.
    """
    spellings: list[str] = []
    with_digits = [word for word in spoken if not word.isalpha() and _DIGIT.search(word)]
    may_be_moment = False
    for word in with_digits:
        may_be_moment = may_be_moment or len(word) < 3 or not word.replace(".", "", 1).isdigit()
        if not word.isalnum():
            if word.endswith("%"):
                continue  # a percentage is no amount
            if (number := decimal(word)) is not None:
                if number != word:
                    spellings.append(f"#{number}")
            elif account := compact(word):
                spellings.append(account)
    return spellings + moments(spoken) if may_be_moment else spellings

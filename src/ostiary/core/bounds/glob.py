"""Patterns of text: `*` is any run of characters (also none, also slashes), `?` is exactly one, all else is itself.

There is no escape: a pattern cannot demand a star. Whatever the pattern, matching and inclusion take time of the order
of the product of both lengths at most.
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


@lru_cache(maxsize=4096)
def glob_pattern(glob: str) -> Pattern:
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
    return (*(Step(0, False, character) for character in prefix), Step(0, True, _END))


def longest(pattern: Pattern) -> int | None:
    """How many characters a matching text has at most; None if there is no end to it."""
    if any(step.elastic for step in pattern):
        return None
    return sum(step.gap + 1 for step in pattern) - 1


def matches(glob: str, text: str) -> bool:
    return _matcher(glob)(text) is not None


@lru_cache(maxsize=4096)
def includes(outer: Pattern, inner: Pattern) -> bool:
    """Whether `outer` matches every text that `inner` matches; never true otherwise.

    Looks for a place in `inner` for each letter of `outer`, so that rigid gaps of `outer` are rigid and as long in
    `inner` and elastic ones are never shorter. Such places prove inclusion. An inclusion that would need other places
    for other texts is not found (and denied); there is none among patterns of up to six signs.
    """
    places = _places(inner)
    reached = {(-1, 0)}
    for gap, elastic, letter in outer:
        there = places.get(letter, set())
        if elastic:
            nearest, _ = min(reached)
            reached = {place for place in there if place[0] > nearest + gap}
        else:
            reached = {(at + gap + 1, stretches) for at, stretches in reached} & there
        if not reached:
            return False
    return True


def _places(pattern: Pattern) -> dict[str, set[tuple[int, int]]]:
    """Where each letter is in the shortest text, and how many elastic gaps are before it."""
    places: dict[str, set[tuple[int, int]]] = {}
    at, stretches = -1, 0
    for gap, elastic, letter in pattern:
        at, stretches = at + gap + 1, stretches + elastic
        places.setdefault(letter, set()).add((at, stretches))
    return places


@lru_cache(maxsize=4096)
def _matcher(glob: str) -> Callable[[str], re.Match[str] | None]:
    """Each part between stars is found at its first place and kept there (`(?>...)`), so nothing is tried twice."""
    first, *rest = ("".join("." if c == "?" else re.escape(c) for c in part) for part in glob.split("*"))
    if not rest:
        return re.compile(first, re.DOTALL).fullmatch
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL).fullmatch

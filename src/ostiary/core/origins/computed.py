"""An amount that an agent computed comes from the least trusted of what it was computed of.

Its parts are an amount that may be paid as it stands (`known` or better), and percentages and marked numbers of the
person's words or of a document that they endorsed for amounts; whatever else is read is none of them.

Where the amount was that of the very thing which the call names, in a record that has both under the names that the
arguments have, then all that is done to that thing is in the terms: who raises their rent by 100 has said what is done.
What counts is the first amount that the task has seen of it, so that no raise is raised.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from ostiary.core.catalogue import Kind
from ostiary.core.origins.memory import KINDS, TERM, TIE, Memory, Origin, holds
from ostiary.core.origins.scribe import END, LARGEST, WIDTH, hashed
from ostiary.core.origins.terms import MAX_TERMS, MAX_VALUE, bases, both, spelled, units, unseal

MAX_PAIRS, MAX_TIES = 1024, 64
"""of what one call returned: that are looked at, and that are remembered"""
MAX_NAME = 64
"""characters of what a thing is called"""
MAX_DEPTH = 32
_AMOUNT = 1 << KINDS.index(Kind.AMOUNT)


def computed(
    memory: Memory, name: str, value: object, given: Iterable[tuple[str, Kind, object]]
) -> tuple[Origin, Origin]:
    """Where an amount comes from, and where what is done to the things that the call names; `nowhere`: not computed.

    `name`: of its argument. `given`: all that the call names.
    """
    best = done = Origin.NOWHERE
    if (target := _cents(value)) is None:
        return best, done
    sealed = ((Origin(part.origin), part.words) for part in memory.parts if part.kinds == TERM)
    said = [*islice(((term, origin) for origin, words in sealed for term in unseal(memory.key, words)), MAX_TERMS)]
    things = [(thing, which) for thing, kind, which in given if kind is Kind.OBJECT]
    for base, used in bases(target, [term for term, _ in said]):
        number = spelled(base)
        words = [hashed(memory.key, word) for word in both(number)]
        found = min(memory.find(word, _AMOUNT, least=Origin.KNOWN) for word in words)
        if found is not Origin.NOWHERE:
            change = max(said[place][1] for place in used)
            best = min(best, max(found, change))
            if _is_of(memory, things, name, number):
                done = min(done, change)
    return best, min(best, done)


def _cents(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 100 if 0 < value < MAX_VALUE // 100 else None
    return units(str(value), 2) if isinstance(value, float | str) else None


def _is_of(memory: Memory, things: Sequence[tuple[str, object]], name: str, number: str) -> bool:
    """Whether that was the amount of all the things."""
    return bool(things) and all(
        _is_name(value) and memory.find(_tie(memory, thing, value, name, number), TIE) is not Origin.NOWHERE
        for thing, value in things
    )


def _is_name(value: object) -> bool:
    """Whether a thing may be called that."""
    return len(value) <= MAX_NAME if isinstance(value, str) else type(value) is int and abs(value) < LARGEST


def _tie(memory: Memory, thing: str, value: object, name: str, number: str) -> bytes:
    """A phrase of two words: which amount of which thing, and how much that is."""
    which, what = thing.rpartition(".")[2].casefold(), name.rpartition(".")[2].casefold()
    return memory.hashed((f"{which}\0{what}\0{str(value).casefold()}", number))


def ties(memory: Memory, output: object, asked: Container[bytes]) -> bytes:
    """Which thing has which amount, in each record of an output that says it of that thing first; `asked`: numbers that
    are none.
    """
    old = b"".join(part.words for part in memory.parts if part.kinds == TIE)
    found: dict[bytes, bytes] = {}
    for thing, value, name, number in islice(_pairs(output), MAX_PAIRS):
        whole = _tie(memory, thing, value, name, number)
        which, amount = whole[:WIDTH], whole[WIDTH:]
        if which not in found and amount not in asked and not holds(old, which):
            found[which] = whole
            if len(found) == MAX_TIES:
                break
    return END.join(found.values())


def _pairs(value: object, depth: int = MAX_DEPTH) -> Iterator[tuple[str, object, str, str]]:
    """Of each record: a name and what it says of which thing that is, a name and a number. What is inside of a record
    is none: strangers may have chosen even the names there.
    """
    if isinstance(value, Mapping):
        named = {str(name): one for name, one in value.items()}
        things = {name: one for name, one in named.items() if name.casefold().endswith("id") and _is_name(one)}
        for name, one in named.items() if things else ():
            if name not in things and (cents := _cents(one)) is not None:
                yield from ((thing, which, name, spelled(cents)) for thing, which in things.items())
        inner: Iterable[object] = () if things else named.values()
    else:
        inner = value if isinstance(value, list | tuple) else ()
    if depth:
        for one in inner:
            yield from _pairs(one, depth - 1)

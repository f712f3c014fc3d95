"""Where the values of a call came from, and how many of them stand together in one text of strangers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from ostiary.authorization.catalogue import Kind, Tool
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.noticing.session import MIN_TEXT, Session, Text
from ostiary.provenance.origins import Memory, Origin, is_effect, judged, of_value
from ostiary.provenance.origins.judging import judged_leaves
from ostiary.provenance.origins.links import links
from ostiary.provenance.origins.scribe import MAX_TEXT

_SAID = ("person", "own", "endorsed")
_SIGNS = ("substituted", "unrequested")
"""attributes of the context that are signs where they are true"""
MAX_VALUES = 64
"""values of a call that are looked for"""


class Traced(NamedTuple):
    """As `Event` has them; empty where nothing is known."""

    worst: str = ""
    links: str = ""
    is_mixed: bool = False
    together: int = 0
    is_named: bool = False
    signs: tuple[str, ...] = ()


UNTRACED = Traced()


def traced(
    session: Session, memory: Memory | None, tool: Tool, arguments: Mapping[str, Any], beside: Record | None
) -> Traced:
    """Return the flow of data into a call; UNTRACED for a call that only reads, or without a memory.

    `beside`: the result of `origins.judged` for the same call; None: the call was denied before, and is judged here.
    """
    if memory is None or not is_effect(tool):
        return UNTRACED
    if beside is None:
        beside = judged(memory, tool, arguments)
    origins = cast(Mapping[str, str], beside.get("origin", {})).values()
    together, is_named = _together(session, memory, tool, arguments) if session.texts else (0, False)
    return Traced(
        cast(str, beside.get("origin_worst", "")),
        cast(str, beside.get("links_worst", "")),
        any(origin in _SAID for origin in origins),
        together,
        is_named,
        tuple(_signs(beside)),
    )


def _signs(beside: Record) -> Iterator[str]:
    yield from (name for name in _SIGNS if beside.get(name) is True)
    if beside.get("planned") is False:
        yield "unplanned"
    if beside.get("reveals"):
        yield "reveals"
    if "outside" in cast(frozenset[str], beside.get("carries", frozenset())):
        yield "carries"


def _together(session: Session, memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> tuple[int, bool]:
    """Return how many values of the call, which the person did not say, one text has in it, and whether that text is of
    a document that the person named. An amount or a time alone composes nothing.
    """
    values = _unsaid(memory, tool, arguments)
    best = max(((_count(text, values), not text.is_named) for text in session.texts), default=(0, True))
    return best[0], best[0] > 0 and not best[1]


def _count(text: Text, values: list[tuple[Kind, object]]) -> int:
    found = [kind for kind, value in values if of_value(text.words, kind, value) is Origin.OUTSIDE]
    return len(found) if any(kind not in (Kind.AMOUNT, Kind.TIME) for kind in found) else 0


def _unsaid(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> list[tuple[Kind, object]]:
    """Return the values of a call that the person did not say: those that identify something, amounts, times, whole
    texts that go out, and the links in these.
    """
    found = list[tuple[Kind, object]]()
    for _, kind, value in judged_leaves(memory, tool, arguments):
        if kind is not Kind.TEXT:
            if of_value(memory, kind, value) > Origin.KNOWN:
                found.append((kind, value))
        elif isinstance(value, str):
            text = value[:MAX_TEXT]
            linked = [one for one in links(text) if of_value(memory, Kind.ADDRESS, one) > Origin.KNOWN]
            found += [(Kind.ADDRESS, one) for one in linked]
            if len(text) > MIN_TEXT and of_value(memory, Kind.OBJECT, text) > Origin.KNOWN:
                found.append((Kind.OBJECT, text))
        if len(found) >= MAX_VALUES:
            break
    return found

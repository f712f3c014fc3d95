"""The session of a task at a guard, for detection: the untrusted texts that the task's calls returned.

If one text contains several values of one call, the text probably instructed the call, in whatever language. Each text
is therefore stored as a separate source: its words in order, hashed as in the task's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ostiary.authorization.catalogue import POINTS, Tool
from ostiary.provenance.origins import ALL_KINDS, Memory, Origin, Part, of_value
from ostiary.provenance.origins.judging import judged_leaves, leaves
from ostiary.provenance.origins.layouts import layout_of
from ostiary.provenance.origins.scribe import WIDTH, Scribe

MIN_TEXT = 20
"""length in characters up to which a text is a field, which cannot instruct a call"""
MAX_TEXTS = 32
"""maximum number of stored texts of a task; the newest are kept"""
MAX_WORDS = 2048
"""maximum number of stored words of all texts of a task"""
MAX_LEAVES = 1024
"""maximum number of texts of one output that are examined"""


@dataclass(frozen=True, slots=True)
class Text:
    """An untrusted text. `size`: number of words. `is_named`: true if the text comes from a document that the person
    named.
    """

    words: Memory
    size: int
    is_named: bool


@dataclass(frozen=True, slots=True)
class Session:
    """The untrusted texts of a task, the newest last."""

    texts: tuple[Text, ...] = ()


BEGUN = Session()


def extend_session(
    session: Session, memory: Memory | None, tool: Tool, arguments: Mapping[str, Any], output: object
) -> Session:
    """Return the session after a call that returned `output` (JSON or a text); unchanged for a tool that returns no
    untrusted content. `memory`: the task's memory before the call; without it, the session stays unchanged.
    """
    if memory is None or not tool.is_outside:
        return session
    scribe, is_named, left = Scribe(memory.key), _is_named(memory, tool, arguments), MAX_WORDS
    fresh: list[Text] = []
    layout = layout_of(output) if isinstance(output, str) else None
    for text in islice(leaves(output if layout is None else layout.value), MAX_LEAVES):
        if len(text) <= MIN_TEXT:
            continue
        words = scribe.source([text], room=left)
        part = Part(Origin.OUTSIDE, ALL_KINDS, words)
        fresh.append(Text(Memory(memory.key, (part,)), len(words) // WIDTH, is_named))
        left -= fresh[-1].size
        if len(fresh) == MAX_TEXTS or left <= 1:
            break
    return Session(_newest((*session.texts, *fresh))) if fresh else session


def _newest(texts: tuple[Text, ...]) -> tuple[Text, ...]:
    """Return the newest texts that fit MAX_TEXTS and MAX_WORDS."""
    left, first = MAX_WORDS, len(texts)
    while first and len(texts) - first < MAX_TEXTS and texts[first - 1].size <= left:
        first -= 1
        left -= texts[first].size
    return texts[first:]


def _is_named(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether all values that name the objects of the call come from the person or an endorsed document. A value
    without a declared kind counts by its form.
    """
    named = [
        of_value(memory, kind, value) for _, kind, value in judged_leaves(memory, tool, arguments) if kind in POINTS
    ]
    return bool(named) and max(named) <= Origin.ENDORSED

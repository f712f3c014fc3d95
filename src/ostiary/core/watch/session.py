"""What a guard keeps of a task so far, for noticing: what the texts that came back to it ask for.

An honest text tells something; one that would steer an agent asks for something, and has in it what it wants that done
with. So of what strangers wrote only those texts are kept that have a verb where somebody is told what to do
(`ostiary.core.draft.asked`), and of them the words, as the task's memory has them: hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ostiary.core.catalogue import Effect, Tool
from ostiary.core.draft.asked import calls
from ostiary.core.origins import ALL_KINDS, POINTS, Memory, Origin, Part, learned, of_value
from ostiary.core.origins.judging import given, leaves
from ostiary.core.origins.scribe import Scribe

MAX_READ = 1 << 13
"""characters of one output that are read for what they ask"""
MIN_TEXT = 20
"""characters; what is shorter is a name, and asks for nothing"""
MAX_WORDS = 1024
"""of one output that are kept; as many as a memory has room for"""
BIT = {effect.value: 1 << place for place, effect in enumerate(Effect)}


@dataclass(frozen=True, slots=True)
class Session:
    """`told`: effects (bits) that texts of strangers ask for. `strange`, `named`: the words of such texts; `named`
    are those of documents that the person named.
    """

    told: int = 0
    strange: Memory | None = None
    named: Memory | None = None


BEGUN = Session()


def told(session: Session, memory: Memory | None, tool: Tool, arguments: Mapping[str, Any], output: object) -> Session:
    """Once a call has returned that (JSON, or a text); `memory` is that of the task, as it was before."""
    if memory is None or not tool.is_outside:
        return session
    asking = list(_asking(output))
    if not asking:
        return session
    words = Scribe(memory.key).source((text for text, _ in asking), room=MAX_WORDS)
    part = Part(Origin.OUTSIDE, ALL_KINDS, words)
    if _is_named(memory, tool, arguments):
        return replace(session, named=learned(session.named or Memory(memory.key), [part]))
    effects = session.told
    for _, bits in asking:
        effects |= bits
    return replace(session, told=effects, strange=learned(session.strange or Memory(memory.key), [part]))


def _asking(output: object) -> Iterator[tuple[str, int]]:
    """The texts that ask for something, with the effects that they ask for; what is too long is read as far as it is
    allowed to be, the longest text last.
    """
    left = MAX_READ
    for text in sorted(_texts(output), key=len):
        read = text[:left]
        left -= len(read)
        if bits := _effects(read):
            yield read, bits
        if not left:
            return


def _texts(output: object) -> Iterable[str]:
    return (text for text in leaves(output) if len(text) > MIN_TEXT)


def _effects(text: str) -> int:
    bits = 0
    for call in calls(text):
        for effect in call.effects:
            bits |= BIT[effect.value]
    return bits


def _is_named(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether the call names what it reads, and by values of the person's alone."""
    named = [of_value(memory, kind, value) for _, kind, value in given(tool, arguments) if kind in POINTS]
    return bool(named) and max(named) <= Origin.ENDORSED

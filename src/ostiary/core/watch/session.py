"""What a guard keeps of a task so far, for noticing: which effects content from outside has asked for."""

from __future__ import annotations

import msgspec

from ostiary.core.catalogue import Effect, Tool
from ostiary.core.draft.asked import calls
from ostiary.core.origins.judging import leaves

MAX_TEXT = 4096
"""characters of one text that are read for what it asks for"""
MAX_TEXTS = 64
"""texts of one output; the longest"""
MIN_TEXT = 20
"""what is shorter is a name, and asks for nothing"""
BIT = {effect.value: 1 << place for place, effect in enumerate(Effect)}


class Session(msgspec.Struct, frozen=True, gc=False):
    """`told`: effects (bits) that content from outside has asked for."""

    told: int = 0


BEGUN = Session()


def told(session: Session, tool: Tool, output: object) -> Session:
    """Once a tool has returned that (JSON, or a text)."""
    if not tool.is_outside:
        return session
    texts = sorted((text for text in leaves(output) if len(text) > MIN_TEXT), key=len, reverse=True)[:MAX_TEXTS]
    asked = session.told
    for text in texts:
        for call in calls(text[:MAX_TEXT]):
            for effect in call.effects:
                asked |= BIT[effect.value]
    return session if asked == session.told else Session(asked)

"""The flow of data into a call: origins of its values, and the number of its values that one untrusted text
contains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ostiary.authorization.catalogue import Kind, Tool
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.noticing.session import MIN_TEXT, Session, Text
from ostiary.provenance.origins import (
    CallValues,
    Memory,
    Origin,
    is_effect,
    judge_origins,
    of_value,
    origins_by_argument,
)
from ostiary.provenance.origins.links import links
from ostiary.provenance.origins.memory import SETTLED
from ostiary.provenance.origins.scribe import MAX_TEXT

_TEXT = Kind.TEXT
_SIGNS = ("substituted", "unrequested")
"""attributes of the context that count as signs if they are true"""
MAX_VALUES = 64
"""approximate maximum number of values of a call that are searched for in the texts"""


class Traced(NamedTuple):
    """The flow of data into a call, as members of `Event`. Unknown members are empty."""

    worst: str = ""
    links: str = ""
    is_mixed: bool = False
    values_in_text: int = 0
    is_named: bool = False
    signs: tuple[str, ...] = ()


UNTRACED = Traced()


def traced(
    session: Session,
    memory: Memory | None,
    tool: Tool,
    arguments: Mapping[str, Any],
    context: Record | None,
    values: CallValues | None = None,
) -> Traced:
    """Return the flow of data into a call; UNTRACED for a call that only reads, or without a memory.

    `context`: the origins of the call, if `judge_origins` has determined them; None (the call was denied before): this
    function calls `judge_origins` itself. `values`: the values of the call, if other rules use them too.
    """
    if memory is None or not is_effect(tool):
        return UNTRACED
    values = CallValues(tool, arguments) if values is None else values
    if context is None:
        context = judge_origins(memory, tool, arguments, values)
    values_in_text, is_named = _count_in_text(session, memory, values) if session.texts else (0, False)
    return Traced(
        cast(str, context.get("origin_worst", "")),
        cast(str, context.get("links_worst", "")),
        not SETTLED.isdisjoint(origins_by_argument(context).values()),
        values_in_text,
        is_named,
        _signs(context),
    )


def _signs(context: Record) -> tuple[str, ...]:
    signs = [name for name in _SIGNS if context.get(name) is True]
    if context.get("planned") is False:
        signs.append("unplanned")
    if context.get("reveals"):
        signs.append("reveals")
    if "outside" in cast("frozenset[str]", context.get("carries", ())):
        signs.append("carries")
    return tuple(signs)


def _count_in_text(session: Session, memory: Memory, values: CallValues) -> tuple[int, bool]:
    """Return the largest number of values of the call, other than trusted ones, in one text, and true if that
    text is from a document that the person named. The number is 0 if only amounts and times match.
    """
    unstated = _unsaid(memory, values)
    best = max(((_count(text, unstated), not text.is_named) for text in session.texts), default=(0, True))
    return best[0], best[0] > 0 and not best[1]


def _count(text: Text, values: list[tuple[Kind, object]]) -> int:
    kinds = [kind for kind, value in values if of_value(text.words, kind, value) is Origin.OUTSIDE]
    return len(kinds) if any(kind not in (Kind.AMOUNT, Kind.TIME) for kind in kinds) else 0


def _unsaid(memory: Memory, values: CallValues) -> list[tuple[Kind, object]]:
    """Return the values of a call that no trusted source has: identifiers, amounts, times, whole outgoing
    texts, and the links in these texts.
    """
    unstated: list[tuple[Kind, object]] = []
    for (_, kind, value), origin in zip(values.judge_leaves(memory), values.list_origins(memory), strict=True):
        if kind is not _TEXT:
            if origin is not None and origin > Origin.KNOWN:
                unstated.append((kind, value))
        elif isinstance(value, str):
            text = value[:MAX_TEXT]
            linked = [one for one in links(text, values.decoded) if of_value(memory, Kind.ADDRESS, one) > Origin.KNOWN]
            unstated += [(Kind.ADDRESS, one) for one in linked]
            if len(text) > MIN_TEXT and of_value(memory, Kind.OBJECT, text) > Origin.KNOWN:
                unstated.append((Kind.OBJECT, text))
        if len(unstated) >= MAX_VALUES:
            break
    return unstated

"""Where the values of a call came from, and whether a text that asks for something has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ostiary.core.catalogue import Kind, Tool
from ostiary.core.cedar.values import Record
from ostiary.core.origins import Memory, Origin, is_effect, judged, of_value
from ostiary.core.origins.judging import judged_leaves, leaves
from ostiary.core.origins.links import links
from ostiary.core.origins.scribe import MAX_TEXT
from ostiary.core.watch.session import Session


class Traced(NamedTuple):
    """As `Event` has them; empty where nothing is known."""

    worst: str = ""
    links: str = ""
    asked_by: str = ""


UNTRACED = Traced()


def traced(
    session: Session, memory: Memory | None, tool: Tool, arguments: Mapping[str, Any], beside: Record | None
) -> Traced:
    """`beside`: what `origins.judged` has made of the same call, if that is at hand: a call that is denied before is
    judged here. Of one that only reads nothing is known.
    """
    if memory is None or not is_effect(tool):
        return UNTRACED
    if beside is None:
        beside = judged(memory, tool, arguments)
    asked_by = ""
    for by, asking in (("strangers", session.strange), ("named", session.named)):
        if not asked_by and asking is not None and _is_among(asking, memory, tool, arguments):
            asked_by = by
    return Traced(cast(str, beside.get("origin_worst", "")), cast(str, beside.get("links_worst", "")), asked_by)


def _is_among(memory: Memory, known: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether one of the values that say whom and what, or are secret, or a link that goes out, stands in that memory,
    and is not trusted by the `known` one, which is of the same key.
    """
    for _, kind, value in judged_leaves(tool, arguments):
        if kind in (Kind.AMOUNT, Kind.TIME):
            continue
        for text in leaves(value):
            if kind is not Kind.TEXT:
                if _is_of(memory, known, kind, text):
                    return True
            elif any(_is_of(memory, known, Kind.ADDRESS, one) for one in links(text[:MAX_TEXT])):
                return True
    return False


def _is_of(memory: Memory, known: Memory, kind: Kind, text: str) -> bool:
    return of_value(memory, kind, text) is not Origin.NOWHERE and of_value(known, kind, text) > Origin.RECORD

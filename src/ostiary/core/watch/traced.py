"""Where the values of a call came from, and whether a text that asks for something has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ostiary.core.catalogue import Tool
from ostiary.core.cedar.values import Record
from ostiary.core.origins import Memory, is_among, is_judged, judged
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
    if memory is None or not is_judged(tool):
        return UNTRACED
    if beside is None:
        beside = judged(memory, tool, arguments)
    asked_by = ""
    for by, asking in (("strangers", session.strange), ("named", session.named)):
        if not asked_by and asking is not None and is_among(asking, memory, tool, arguments):
            asked_by = by
    return Traced(cast(str, beside.get("origin_worst", "")), cast(str, beside.get("links_worst", "")), asked_by)

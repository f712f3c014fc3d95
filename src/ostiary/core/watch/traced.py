"""Where the arguments of a call came from, as far as noticing needs it; of reads too, of which policies see nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ostiary.core.catalogue import Kind, Tool
from ostiary.core.cedar.values import Record
from ostiary.core.origins import POINTS, Memory, Origin, is_within, of_value
from ostiary.core.origins.judging import given

_NAMES = [origin.name.lower() for origin in Origin]
NOTED = POINTS | {Kind.SECRET}


class Traced(NamedTuple):
    """As `Event` has them; empty where nothing is known."""

    worst: str = ""
    links: str = ""
    within: bool = False


NOWHERE_KNOWN = Traced()


def traced(memory: Memory | None, tool: Tool, arguments: Mapping[str, Any], beside: Record | None) -> Traced:
    """`beside`: what `origins.judged` has made of the same call, if it was judged."""
    if memory is None or not tool.argument_kinds:
        return NOWHERE_KNOWN
    if beside is None:
        found = [of_value(memory, kind, value) for _, kind, value in given(tool, arguments) if kind in NOTED]
        worst = _NAMES[max(found)] if found else ""
    else:
        worst = cast(str, beside.get("origin_worst", ""))
    links = cast(str, beside.get("links_worst", "")) if beside else ""
    within = worst == "outside" and any(
        is_within(memory, value) for _, kind, value in given(tool, arguments) if kind in NOTED
    )
    return Traced(worst, links, within)

"""Argument kinds learned from data flow: the values of which argument come from which field of which tool's records.

A value of a call that equals a field of a record that the task read before is a key of that record. A guard reports the
pair of argument and field once for each task, and never the value. A task that has read untrusted content reports
nothing, so that authors of such content cannot influence the result. A learned kind can only cause further approval
requests (`with_sources`), until an owner confirms the tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.authorization.catalogue import Catalogue, Kind, Tool
from ostiary.provenance.origins import Memory, Origin
from ostiary.provenance.origins.layouts import layout_of
from ostiary.provenance.origins.memory import BIT
from ostiary.provenance.origins.scribe import hashed

MAX_FIELDS = 1024
"""maximum number of values that are stored for a task"""
MAX_DEPTH, MAX_MEMBERS = 8, 64
"""maximum depth of an output, and maximum number of members of an object in it; in an object with more members, the
member names are data
"""
MAX_VALUE = 128
"""maximum length of a value in characters"""
MIN_NUMBER = 10
"""smallest absolute value of a whole number that is compared; smaller numbers are often equal by accident"""
MAX_SOURCES = 8
"""maximum number of sources that are reported for one call"""
_Path = Annotated[str, Meta(min_length=1, max_length=256)]


class Source(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value of `argument` (a dotted path) equals the field `field` (a dotted path) in an earlier output of `tool`."""

    argument: _Path
    tool: Annotated[str, Meta(min_length=1, max_length=128)]
    field: _Path


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of the records that a task has read. `at`: the tool and the path of the field, by hash of its
    value; None if several fields have the value. `reported`: the sources already reported, each with the tool
    of the call.
    """

    at: Mapping[bytes, tuple[str, str] | None] = field(default_factory=dict)
    reported: frozenset[tuple[str, Source]] = frozenset()


NO_FIELDS = Fields()


def with_output(fields: Fields, memory: Memory, tool: Tool, output: object) -> Fields:
    """Return `fields` extended with the fields of an output of `tool` (JSON, or a text with structure); unchanged if
    the tool returns untrusted content, or if the task has read such content.
    """
    if tool.is_outside or not may_report_sources(memory):
        return fields
    layout = layout_of(output) if isinstance(output, str) else None
    places: dict[bytes, tuple[str, str] | None] = {}
    for path, value in islice(_leaves(output if layout is None else layout.value), MAX_FIELDS):
        mark, place = hashed(memory.key, value), (tool.name, path)
        places[mark] = place if places.get(mark, fields.at.get(mark, place)) == place else None
    if not places:
        return fields
    newest_first = {**places, **fields.at, **places}
    return Fields(dict(islice(newest_first.items(), MAX_FIELDS)), fields.reported)


def may_report_sources(memory: Memory) -> bool:
    """Return whether the task may report sources of values: true as long as it has read no untrusted content."""
    return all(part.origin != Origin.OUTSIDE for part in memory.parts)


def sources_of(fields: Fields, memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> tuple[Source, ...]:
    """Return the sources of a call's values that the guard has not reported for this task yet, at most MAX_SOURCES."""
    if not fields.at or not may_report_sources(memory):
        return ()
    sources: dict[Source, None] = {}
    for path, value in islice(_leaves(arguments), MAX_FIELDS):
        place = fields.at.get(hashed(memory.key, value))
        if place is not None and len(path) <= 256 and (tool.name, one := Source(path, *place)) not in fields.reported:
            sources[one] = None
    return tuple(islice(sources, MAX_SOURCES))


def mark_reported(fields: Fields, tool: Tool, sources: Iterable[Source]) -> Fields:
    """Return `fields` with these sources of a call of `tool` marked as reported."""
    return Fields(fields.at, fields.reported | {(tool.name, one) for one in sources})


def with_sources(catalogue: Catalogue, learned: Iterable[tuple[str, str]]) -> Catalogue:
    """Return the catalogue with the argument kind `object` for each learned pair (tool, dotted path of the argument).

    Confirmed tools stay unchanged, and so do arguments to which the catalogue gives a kind whose origin is judged
    (`BIT`). Pairs of unknown tools are ignored.
    """
    tools = dict(catalogue.tools)
    for name, path in learned:
        tool = tools.get(name)
        if tool is not None and not tool.confirmed and tool.argument_kinds.get(path) not in BIT:
            tools[name] = replace(tool, kinds={**tool.kinds, path: Kind.OBJECT.value})
    return Catalogue(catalogue.resource, tools, catalogue.data_classes)


def _leaves(value: object, path: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, str]]:
    """Yield the values that may be keys of records, each with its path. Elements of a list have the path of the
    list.
    """
    if isinstance(value, Mapping):
        if depth and len(value) <= MAX_MEMBERS:
            for name, inner in value.items():
                if isinstance(name, str) and name.replace("-", "_").isidentifier() and len(name) <= 64:
                    yield from _leaves(inner, f"{path}.{name}" if path else name, depth - 1)
    elif isinstance(value, list | tuple):
        for inner in value if depth else ():
            yield from _leaves(inner, path, depth - 1)
    elif isinstance(value, str):
        if path and 1 < len(value) <= MAX_VALUE:
            yield path, value
    elif type(value) is int and path and abs(value) >= MIN_NUMBER and abs(value) < 1 << 128:
        yield path, str(value)

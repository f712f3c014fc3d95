"""Argument kinds learned from data flow: which field of which tool's records the values of an argument come from.

A value of a call that equals a field of a record that the task read before is that record's key. A guard reports the
pair of argument and field, never the value, once a task. Only tasks that have read no untrusted content teach, so that
an author of content cannot influence the result. A learned kind adds questions (`with_sources`) and removes none, until
an owner confirms the tool.
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
from ostiary.provenance.origins.scribe import hashed

MAX_FIELDS = 1024
"""values of a task that are kept"""
MAX_DEPTH, MAX_MEMBERS = 8, 64
"""members of an object in an output; in a larger object, member names are data"""
MAX_VALUE = 128
"""characters of a value"""
MIN_NUMBER = 10
"""smaller whole numbers are equal by accident"""
MAX_SOURCES = 8
"""sources reported of one call"""
_CLAIMS = frozenset((Kind.PRINCIPAL, Kind.ACCOUNT, Kind.ADDRESS, Kind.OBJECT, Kind.SECRET, Kind.AMOUNT, Kind.TIME))
"""kinds whose arguments are judged already"""
_Path = Annotated[str, Meta(min_length=1, max_length=256)]


class Source(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value of `argument` (a dotted path) stood in the field `field` (a dotted path) of the output of `tool`."""

    argument: _Path
    tool: Annotated[str, Meta(min_length=1, max_length=128)]
    field: _Path


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of the records that a task has read: by the hash of the value, the tool and the path; None where one
    value stands in several fields. `reported`: the sources that were reported already, with their tools.
    """

    at: Mapping[bytes, tuple[str, str] | None] = field(default_factory=dict)
    reported: frozenset[tuple[str, Source]] = frozenset()


NO_FIELDS = Fields()


def with_output(fields: Fields, memory: Memory, tool: Tool, output: object) -> Fields:
    """Return the fields together with the fields of an output of `tool` (JSON, or a text with structure)."""
    if tool.is_outside or not teaches(memory):
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


def teaches(memory: Memory) -> bool:
    """Return whether the task has read no untrusted content."""
    return all(part.origin != Origin.OUTSIDE for part in memory.parts)


def sources_of(fields: Fields, memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> tuple[Source, ...]:
    """Return the sources of a call's values that were not reported yet."""
    if not fields.at or not teaches(memory):
        return ()
    sources: dict[Source, None] = {}
    for path, value in islice(_leaves(arguments), MAX_FIELDS):
        place = fields.at.get(hashed(memory.key, value))
        if place is not None and len(path) <= 256 and (tool.name, one := Source(path, *place)) not in fields.reported:
            sources[one] = None
    return tuple(islice(sources, MAX_SOURCES))


def mark_reported(fields: Fields, tool: Tool, sources: Iterable[Source]) -> Fields:
    """Return the fields once these sources of a call of `tool` are reported."""
    return Fields(fields.at, fields.reported | {(tool.name, one) for one in sources})


def with_sources(catalogue: Catalogue, learned: Iterable[tuple[str, str]]) -> Catalogue:
    """Return the catalogue in which each learned argument (tool, path) says which thing it is about, unless the tool is
    confirmed or the argument is judged already.
    """
    tools = dict(catalogue.tools)
    for name, path in learned:
        tool = tools.get(name)
        if tool is not None and not tool.confirmed and tool.argument_kinds.get(path) not in _CLAIMS:
            tools[name] = replace(tool, kinds={**tool.kinds, path: Kind.OBJECT.value})
    return Catalogue(catalogue.resource, tools, catalogue.data_classes)


def _leaves(value: object, path: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, str]]:
    """The values that may be keys, each with its path; elements of a list have the path of the list."""
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

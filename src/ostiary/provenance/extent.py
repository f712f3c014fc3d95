"""What a person's yes to one call covers of the calls after it: the same effect with the same counterpart.

A later call is covered if it names the same things in every argument but outgoing text, times and amounts, needs no
policy answered that the yes did not answer, has no larger amount, and no link, address or warning that the person was
not shown. A yes to a counterpart ends where content from outside mentions it afterwards: what an agent is told to do
with it then is not what the person agreed to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from ostiary.authorization.catalogue import Kind, Tool
from ostiary.protocol import canonical
from ostiary.protocol.signed import digest
from ostiary.provenance.origins import POINTS, Memory, Origin, of_value
from ostiary.provenance.origins.judging import GRAVE, MAX_FOREIGN, judged_leaves
from ostiary.provenance.origins.scribe import MAX_TEXT
from ostiary.provenance.origins.words import amount as amount_of

WARNINGS = ("carries", "mentioned", "over_plan", "reveals", "substituted", "unrequested")
"""What a context says of one call that a person must see: flags, and sets of words."""


class Extent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call says, so far as it matters to whether a yes to another call covers it."""

    counterpart: str
    """digest of the agent, the task, the tool and every argument that is not text, a time or an amount"""
    policies: tuple[str, ...] = ()
    """those that ask"""
    amounts: dict[str, str] = {}
    foreign: tuple[str, ...] = ()
    """links and addresses in outgoing text that are neither the person's nor of a record"""
    warnings: tuple[str, ...] = ()
    """`carries:personal`, `mentioned`"""
    outside: str = ""
    """digest of the content from outside that the task had read"""

    def is_within(self, given: Extent, *, mentioned: bool) -> bool:
        """Return whether a yes to `given` covers this call. `mentioned`: content from outside mentions what this call
        names.
        """
        return (
            self.counterpart == given.counterpart
            and set(self.policies) <= set(given.policies)
            and self.amounts.keys() == given.amounts.keys()
            and all(0 <= Decimal(value) <= Decimal(given.amounts[name]) for name, value in self.amounts.items())
            and set(self.foreign) <= set(given.foreign)
            and set(self.warnings) <= set(given.warnings)
            and (self.outside == given.outside or not mentioned)
        )


def extent_of(
    tool: Tool,
    arguments: Mapping[str, Any],
    *,
    agent: str,
    task: str,
    resource: str,
    secrets: Mapping[str, str],
    policies: Iterable[str],
    foreign: Mapping[str, Collection[str]],
    warnings: Iterable[str],
    outside: str,
) -> Extent | None:
    """Return the extent of a call. None where a yes can be to that call alone: it identifies nothing, or has text that
    cannot be searched to its end.

    `arguments` are those that may be shown, `secrets` the digests of the others. Raises Malformed for arguments that
    have no digest.
    """
    if any(len(found) >= MAX_FOREIGN for found in foreign.values()) or (said := part(tool, arguments)) is None:
        return None
    value = {"agent": agent, "task": task, "resource": resource, "tool": tool.name, "named": said.named}
    return Extent(
        counterpart=canonical.digest(value | {"secrets": dict(secrets)}, floats=True),
        policies=tuple(sorted(policies)), amounts=said.amounts, outside=outside, warnings=tuple(sorted(warnings)),
        foreign=tuple(sorted({one for found in foreign.values() for one in found})),
    )  # fmt: skip


class Part(NamedTuple):
    """What a call says, by argument: what names whom and what, as it was sent, and how much."""

    named: dict[str, Any]
    amounts: dict[str, str]


def part(tool: Tool, arguments: Mapping[str, Any]) -> Part | None:
    """Return what a call names, and its amounts; None for one that identifies nothing, or has text that cannot be
    searched to its end. Left out are arguments that the catalogue calls `text`, and `time` unless the effect is grave;
    text that is carried out (`command`) and a `fixed-time` are not.
    """
    said, identifies = Part({}, {}), False
    for name, value in arguments.items():
        if name in tool.presentation:
            continue
        leaves = list(judged_leaves(None, tool, {name: value}))
        if any(isinstance(one, str) and len(one) > MAX_TEXT for _, _, one in leaves):
            return None
        kinds = {kind for _, kind, _ in leaves}
        words = {tool.kinds.get(path) for path, _, _ in leaves}
        if kinds == {Kind.TEXT} and words == {Kind.TEXT}:
            continue
        if kinds and kinds <= {Kind.TIME, Kind.TEXT} and words == {Kind.TIME} and tool.effect not in GRAVE:
            continue
        if kinds == {Kind.AMOUNT} and (number := _number(value)) is not None:
            said.amounts[name] = number
            continue
        identifies |= not kinds.isdisjoint(POINTS)
        said.named[name] = value
    return said if identifies else None


def may_vary(tool: Tool, name: str) -> bool:
    """Return whether a yes covers any value of that argument: outgoing text, a time, or how something is shown."""
    word = tool.kinds.get(name)
    is_time = word == Kind.TIME and tool.effect not in GRAVE
    return name in tool.presentation or word == Kind.TEXT or is_time


def identifying(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Kind, object]]:
    """The arguments that say whom and what: path, kind and value."""
    return (leaf for leaf in judged_leaves(None, tool, arguments) if leaf[1] in POINTS)


def digest_outside(memory: Memory) -> str:
    """Return the digest of the content from outside that the task has read."""
    return digest(b"".join(part.words for part in memory.parts if part.origin == Origin.OUTSIDE))


def is_mentioned(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether content from outside mentions something that the call names, whatever else mentions it. Where some
    of that content was forgotten, nobody knows that it does not.
    """
    if memory.has_forgotten:
        return True
    outside = Memory(memory.key, tuple(part for part in memory.parts if part.origin == Origin.OUTSIDE))
    return any(of_value(outside, kind, value) is Origin.OUTSIDE for _, kind, value in identifying(tool, arguments))


def warnings_of(context: Mapping[str, object] | None) -> list[str]:
    """Return the warnings of a decision's context, in words: `mentioned`, `carries:personal`."""
    found = [(name, (context or {}).get(name)) for name in WARNINGS]
    flags = [name for name, value in found if value is True]
    return flags + [f"{name}:{one}" for name, value in found if isinstance(value, frozenset) for one in sorted(value)]


def _number(value: object) -> str | None:
    """The amount as digits; None for one that cannot be compared, a currency beside it included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)
    return amount_of(text) if text[:1].isdigit() and text[-1:].isdigit() else None

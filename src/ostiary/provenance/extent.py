"""The extent of a call: the later calls that a person's approval of it also covers.

A later call is covered if it has the same effect on the same counterpart: the same value in every argument but outgoing
text, times, amounts and presentation options. It needs no further policy answered, has no larger amount, and no link,
address or warning that the person did not see. An approval ends if untrusted content that the task reads afterwards has
a value that the call names, because the content may then direct the agent.
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
"""Members of a context that a person must see: flags, and sets of words."""


class Extent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of a call that decide whether the approval of another call covers it."""

    counterpart: str
    """digest of the agent, the task, the tool and every argument that is not text, a time or an amount"""
    policies: tuple[str, ...] = ()
    """ids of the policies that ask"""
    amounts: dict[str, str] = {}
    foreign: tuple[str, ...] = ()
    """links and addresses in outgoing text that are neither the person's nor of a record"""
    warnings: tuple[str, ...] = ()
    """`carries:personal`, `mentioned`"""
    outside: str = ""
    """digest of the untrusted content that the task had read"""

    def is_within(self, agreed: Extent, *, mentioned: bool) -> bool:
        """Return whether an approval of `agreed` covers this call. `mentioned`: untrusted content has a value that this
        call names.
        """
        return (
            self.counterpart == agreed.counterpart
            and set(self.policies) <= set(agreed.policies)
            and self.amounts.keys() == agreed.amounts.keys()
            and all(0 <= Decimal(value) <= Decimal(agreed.amounts[name]) for name, value in self.amounts.items())
            and set(self.foreign) <= set(agreed.foreign)
            and set(self.warnings) <= set(agreed.warnings)
            and (self.outside == agreed.outside or not mentioned)
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
    """Return the extent of a call; None if an approval covers that call alone: it identifies nothing, has text that is
    too long to search, or has so many foreign links that not all are listed.

    `arguments`: arguments that may be shown; `secrets`: digests of the others. Raises Malformed for arguments without
    a digest.
    """
    if (
        any(len(links) >= MAX_FOREIGN for links in foreign.values())
        or (split := split_arguments(tool, arguments)) is None
    ):
        return None
    value = {"agent": agent, "task": task, "resource": resource, "tool": tool.name, "named": split.named}
    return Extent(
        counterpart=canonical.digest(value | {"secrets": dict(secrets)}, floats=True),
        policies=tuple(sorted(policies)),
        amounts=split.amounts,
        outside=outside,
        warnings=tuple(sorted(warnings)),
        foreign=tuple(sorted({one for links in foreign.values() for one in links})),
    )


class SplitArguments(NamedTuple):
    """The arguments that every covered call has unchanged, as they were sent, and the amounts, each by name."""

    named: dict[str, Any]
    amounts: dict[str, str]


def split_arguments(tool: Tool, arguments: Mapping[str, Any]) -> SplitArguments | None:
    """Return the arguments that every covered call has unchanged, and the amounts. None if no argument identifies a
    recipient or an object, or if a text is too long to search.

    Left out are presentation options, and arguments that the catalogue calls `text`, or `time` unless the effect is
    grave. Kept are `command`, which is text that is executed, and `fixed-time`.
    """
    split, identifies = SplitArguments({}, {}), False
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
            split.amounts[name] = number
            continue
        identifies |= not kinds.isdisjoint(POINTS)
        split.named[name] = value
    return split if identifies else None


def may_vary(tool: Tool, name: str) -> bool:
    """Return whether an approval covers any value of that argument: outgoing text, a time, or a presentation option."""
    word = tool.kinds.get(name)
    is_time = word == Kind.TIME and tool.effect not in GRAVE
    return name in tool.presentation or word == Kind.TEXT or is_time


def identifying(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Kind, object]]:
    """Yield the arguments that identify a recipient or an object: path, kind and value."""
    return (leaf for leaf in judged_leaves(None, tool, arguments) if leaf[1] in POINTS)


def digest_outside(memory: Memory) -> str:
    """Return the digest of the untrusted content that the task has read."""
    return digest(b"".join(part.words for part in memory.parts if part.origin == Origin.OUTSIDE))


def is_mentioned(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether untrusted content has a value that the call names, even if trusted content has it too. True if the
    memory has forgotten some untrusted content.
    """
    if memory.has_forgotten:
        return True
    outside = Memory(memory.key, tuple(part for part in memory.parts if part.origin == Origin.OUTSIDE))
    return any(of_value(outside, kind, value) is Origin.OUTSIDE for _, kind, value in identifying(tool, arguments))


def warnings_of(context: Mapping[str, object] | None) -> list[str]:
    """Return the warnings of a decision's context as words: `mentioned`, `carries:personal`."""
    pairs = [(name, (context or {}).get(name)) for name in WARNINGS]
    flags = [name for name, value in pairs if value is True]
    return flags + [f"{name}:{one}" for name, value in pairs if isinstance(value, frozenset) for one in sorted(value)]


def _number(value: object) -> str | None:
    """Return the amount as digits; None if it cannot be compared, for example because of a currency."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)
    return amount_of(text) if text[:1].isdigit() and text[-1:].isdigit() else None

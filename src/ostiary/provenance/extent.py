"""The extent of an approval: the later calls that a person's approval of one call also covers.

A later call is covered if it has the same effect on the same counterpart: every argument has the same value, except
outgoing text, times, amounts and presentation options. The times of a call that shares, pays, destroys or administers
are the same too, and those of a send that has no text or more than one time (`times_may_vary`). No further policy may
require approval, no amount may be larger, and no link, address or warning may be new to the person. The approval ends
if the task later reads untrusted content that contains a value of the call, because this content may then direct the
agent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from ostiary.authorization.catalogue import GRAVE, POINTS, Effect, Kind, Tool
from ostiary.protocol import canonical
from ostiary.protocol.signed import digest
from ostiary.provenance.origins import Memory, Origin, of_value
from ostiary.provenance.origins.judging import MAX_FOREIGN, judged_leaves
from ostiary.provenance.origins.scribe import MAX_TEXT
from ostiary.provenance.origins.words import read_amount

WARNINGS = ("carries", "mentioned", "over_plan", "reveals", "substituted", "unrequested")
"""Members of a decision's context that a person must see before approval. Each is a flag or a set of words."""


class Extent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of a call from which it follows whether a person's approval of one call also covers another call."""

    counterpart: str
    """digest of the agent, the task, the tool and every argument that is not text, a time or an amount"""
    policies: tuple[str, ...] = ()
    """ids of the policies that require approval"""
    amounts: dict[str, str] = {}
    foreign: tuple[str, ...] = ()
    """links and mail addresses in outgoing text that come neither from the person nor from a record"""
    warnings: tuple[str, ...] = ()
    """results of `warnings_of`, such as `carries:personal` and `mentioned`"""
    outside: str = ""
    """digest of the untrusted content that the task had read before the call. If the task has read more since, the
    approval covers no later call whose values this content contains.
    """

    def is_within(self, agreed: Extent, *, mentioned: bool) -> bool:
        """Return whether an approval of the call with extent `agreed` covers this call. `mentioned`: true if
        untrusted content contains a value that this call names.
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
    """Return the extent of a call. Return None if an approval can cover this call only: if no argument identifies a
    recipient or an object, a text is too long to search, or there are too many foreign links to list all.

    `arguments`: the arguments that may be shown; `secrets`: digests of all other arguments; `foreign`: the result of
    `list_foreign_links`. Raises Malformed if the arguments have no canonical JSON.
    """
    if (
        any(len(links) >= MAX_FOREIGN for links in foreign.values())
        or (split := split_arguments(tool, arguments)) is None
    ):
        return None
    return Extent(
        counterpart=counterpart_of(tool, split, agent=agent, task=task, resource=resource, secrets=secrets),
        policies=tuple(sorted(policies)),
        amounts=split.amounts,
        outside=outside,
        warnings=tuple(sorted(warnings)),
        foreign=tuple(sorted({one for links in foreign.values() for one in links})),
    )


def counterpart_of(
    tool: Tool, split: SplitArguments, *, agent: str, task: str, resource: str, secrets: Mapping[str, str]
) -> str:
    """Return the digest of everything that must be equal in two calls so that one approval can cover both: agent, task,
    resource, tool, the digests of the secret arguments, and `split.named`.
    """
    value = {"agent": agent, "task": task, "resource": resource, "tool": tool.name, "named": split.named}
    return canonical.digest(value | {"secrets": dict(secrets)}, floats=True)


class SplitArguments(NamedTuple):
    """The arguments of a call in two parts, each by name: `named` are the arguments that must be the same in
    every covered call, as sent; `amounts` may be lower.
    """

    named: dict[str, Any]
    amounts: dict[str, str]


def split_arguments(tool: Tool, arguments: Mapping[str, Any]) -> SplitArguments | None:
    """Return the arguments that must be the same in every covered call, and the amounts. Return None if no argument
    identifies a recipient or an object, or if a text is too long to search.

    Presentation options, arguments of kind `text` and, if they may vary, arguments of kind `time` are omitted.
    Arguments of kind `command` (text that is executed) and `fixed-time` are included.
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
        if kinds and kinds <= {Kind.TIME, Kind.TEXT} and words == {Kind.TIME} and times_may_vary(tool):
            continue
        if kinds == {Kind.AMOUNT} and (number := _number(value)) is not None:
            split.amounts[name] = number
            continue
        identifies |= not kinds.isdisjoint(POINTS)
        split.named[name] = value
    return split if identifies else None


def may_vary(tool: Tool, name: str) -> bool:
    """Return whether an approval covers every value of the argument `name`: outgoing text, a time, or a
    presentation option.
    """
    word = tool.kinds.get(name)
    is_time = word == Kind.TIME and times_may_vary(tool)
    return name in tool.presentation or word == Kind.TEXT or is_time


def times_may_vary(tool: Tool) -> bool:
    """Return whether an approval covers other times. False for effects that cannot be undone, and if a time can select
    the data that others receive (the period of a report): for a share, and for a send, unless the tool takes a text and
    one time.
    """
    if tool.effect is Effect.SEND:
        kinds = [*tool.argument_kinds.values()]
        return Kind.TEXT in kinds and kinds.count(Kind.TIME) == 1
    return tool.effect not in GRAVE and tool.effect is not Effect.SHARE


def identifying(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Kind, object]]:
    """Yield each argument that identifies a recipient or an object, as (path, kind, value)."""
    return (leaf for leaf in judged_leaves(None, tool, arguments) if leaf[1] in POINTS)


def digest_outside(memory: Memory) -> str:
    """Return a digest of the untrusted content in the memory of a task, by which two states of the
    memory are compared.
    """
    return digest(b"".join(part.words for part in memory.parts if part.origin == Origin.OUTSIDE))


def is_mentioned(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether untrusted content contains a recipient or an object that the call names (`identifying`), even if
    trusted content contains the value too. True if the memory has lost some untrusted content.
    """
    if memory.has_forgotten:
        return True
    outside = Memory(memory.key, tuple(part for part in memory.parts if part.origin == Origin.OUTSIDE))
    return any(of_value(outside, kind, value) is Origin.OUTSIDE for _, kind, value in identifying(tool, arguments))


def warnings_of(context: Mapping[str, object] | None) -> list[str]:
    """Return the warnings in a decision's context as words, such as `mentioned` and `carries:personal`."""
    pairs = [(name, (context or {}).get(name)) for name in WARNINGS]
    flags = [name for name, value in pairs if value is True]
    return flags + [f"{name}:{one}" for name, value in pairs if isinstance(value, frozenset) for one in sorted(value)]


def _number(value: object) -> str | None:
    """Return an amount as digits; None if amounts of this form cannot be compared, for example with a currency."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)
    return read_amount(text) if text[:1].isdigit() and text[-1:].isdigit() else None

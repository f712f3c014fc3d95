"""Origins of the arguments of a call, for policies: `origin` by argument, and the least trusted origin by role.

    origin           the origin of each judged argument, by name
    origin_worst     the least trusted origin of values that identify a recipient or an object, of secrets, and of times
                     that the catalogue marks as significant (`fixed-time`); for a call with none of these and no
                     amount, of its times. A time from nowhere does not count, because the agent may choose times. If
                     one time is the person's, the other times do not count (an end follows from a beginning). If the
                     call destroys, pays or administers, each time counts. After the task has read untrusted content,
                     `nowhere` for such a call without any of these values, and for any other effect of a confirmed tool
                     that has neither these values nor a text nor a choice or number of the person: it can be on
                     everything. The same for a call that empties something: a required recipient or object is empty, or
                     a change has an empty value beside nothing but names of things
    amount_worst     the least trusted origin of amounts
    object_worst     the least trusted origin of values that identify a recipient or an object; `nowhere` if the
                     catalogue declares such arguments and the call has none, and for the calls that `origin_worst`
                     describes last
    recipient_worst  the least trusted origin of recipients (principals, accounts, addresses); absent without one
    done_worst       the least trusted origin of recipients, amounts, secrets and significant times; without these, of
                     the times; absent without any
    origin_best      the most trusted origin of recipients, objects, amounts and secrets; absent without any
    from_named       true if one of these values is in untrusted content that the person named, or if all of them are
                     identifiers of objects in fields of records or in lines with a word of the person, or files in
                     folders that the person stated; absent unless `origin_best` is `outside`
    described        true if only untrusted content names the recipients, and each has in its name a word of the
                     person; otherwise absent
    mentioned        true if one of these values is from a record, and untrusted content has the same value; for a call
                     other than a change, also if the schema lists the value, and the person did not state it
    followed         true if the call only follows a link of content that the person named; otherwise absent
    only_address     true if the task has a plan, and the person stated all other values that are judged, among them a
                     recipient, and the rest is the only mail address that the task has read (`mails`), in content that
                     the person named; otherwise absent
    links_worst      the least trusted origin of links and mail addresses in outgoing text; absent without any
    substituted      true if the call has a value from a record in place of a value that the person named (`slots`), or,
                     after untrusted content, departs from a text that the schema lists and the person stated (a change
                     only with another value), or leaves out a number of the person and has another quantity; otherwise
                     absent

Every leaf of the arguments is judged: by the kind that the catalogue states, or by the form of the value if no rule
claims the leaf (`ostiary.authorization.catalogue.coverage`). For a read in an open world, a string with a link or a
host counts as an address. A list is as trusted as its least trusted element. An argument is compared without decoding,
because an object may really have a name that looks encoded. Outgoing text is also decoded, because its reader may
decode it.

A link that is the only content of a call (the call fetches it) is `known` if content that the person named has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from typing import Any, cast

from ostiary.authorization.catalogue import GRAVE, POINTS, RECIPIENTS, SIGNIFICANT, Effect, Kind, Tool
from ostiary.authorization.catalogue.coverage import EMPTY, UNREADABLE, Leaf, Rule
from ostiary.authorization.catalogue.kind import FIXED_TIME
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.origins.forms import is_within, path_origin, split_origins
from ostiary.provenance.origins.links import MAIL, Decoded, links, spellings
from ostiary.provenance.origins.memory import ALL_KINDS, BIT, LINK, SETTLED, Memory, Origin
from ostiary.provenance.origins.moments import is_interval, is_moment, list_moments
from ostiary.provenance.origins.prints import has_digits
from ostiary.provenance.origins.scribe import LARGEST, MAX_TEXT, hashed
from ostiary.provenance.origins.slots import is_substitute, leaves_number
from ostiary.provenance.origins.value_kinds import identifiers, is_prose, kind_of
from ostiary.provenance.origins.words import (
    MAX_SHORT,
    PARTICLES,
    UNSPACED,
    compact,
    count_alnum,
    decimal,
    has_short_numbers,
    is_alone,
    is_mail,
    is_particle,
    mark_in_word,
    read_amount,
    words,
)

# By name, because an enumeration finds its members slowly.
DECLARED, LISTED, OFFERED = Rule.DECLARED, Rule.LISTED, Rule.OFFERED
QUANTITY, SWITCH, UNCLAIMED = Rule.QUANTITY, Rule.SWITCH, Rule.UNCLAIMED
PERSON, OWN, ENDORSED, RECORD, KNOWN, OUTSIDE, NOWHERE = Origin
PRINCIPAL, ACCOUNT, ADDRESS, OBJECT, SECRET, AMOUNT, TIME, TEXT = Kind
NAMES = POINTS | {TEXT}
"""kinds that select the content that a call returns"""
_SLOTS = POINTS | {AMOUNT}
_RECIPIENT_ROLES = ("origin_worst", "object_worst", "recipient_worst", "done_worst")
_ROLES: Mapping[Kind, tuple[str, ...]] = {
    PRINCIPAL: _RECIPIENT_ROLES,
    ACCOUNT: _RECIPIENT_ROLES,
    ADDRESS: _RECIPIENT_ROLES,
    OBJECT: ("origin_worst", "object_worst"),
    SECRET: ("origin_worst", "done_worst"),
    AMOUNT: ("amount_worst", "done_worst"),
    TIME: (),
    TEXT: ("links_worst",),
}
"""the attributes in which a value of a kind counts; a significant time counts as a secret does"""
_DESTINATIONS = frozenset({ACCOUNT, ADDRESS})
_PEOPLE = frozenset({PRINCIPAL, ACCOUNT})
"""kinds of recipients that may need an address: an address that the person stated needs no other one"""
_REQUESTS = frozenset({Effect.READ, Effect.SEND})
"""effects of tools that may follow a link: a change would store the link, and others would act on it"""
_CHANGES = frozenset({Effect.CHANGE, Effect.WRITE})
_LASTING = _CHANGES | {Effect.SHARE}
"""effects that policies permit with a known address, but not with an address that follows only from the person's"""
MAX_DEPTH = 16
MAX_VALUES = 256
"""maximum number of values of one argument; an argument with more counts as from nowhere"""
MAX_FOREIGN, MAX_SHOWN = 32, 256
MIN_NAME = 4
"""minimum length in characters of a word by which the person describes a recipient or a search"""
MAX_NAME = 32
"""maximum length in characters of a word that is compared with two adjacent words of the person"""
MIN_LONG = 64
"""length in characters from which a text without spaces may be the encoded form of longer content"""
MAX_WORDS = 256
"""maximum number of words of one value; a value with more counts as from nowhere"""
_NAME = re.compile(
    rf"(?<![^\W\d_])(?:[^\W\d_]{{{MIN_NAME},{MAX_NAME}}}|{UNSPACED.pattern}{{2,{MAX_NAME}}})(?![^\W\d_])"
)
_WORD = re.compile(rf"(?<![^\W_])[^\W_]{{{MIN_NAME},{MAX_NAME}}}(?![^\W_])")
_SEARCHED = re.compile(r"(?<![^\s\"'():,;])[^\W\d_][^\s\"'():,;]*(?!:)(?=[\s\"'(),;]|$)")
"""a word of a search, not an operator before a word (`from:ada`)"""
_SAYS = re.compile(r"[^\W_]")
_NAMED = re.compile(r"[^@<>:]*<([^<>]+)>")
_SINGLE = frozenset(",;\n<")
"""separators of values; a text without these characters is a single value, and no name with an address"""
_MARKS = " \t\r\n,;.:/'\""
"""characters that may stand beside a value without a change of its meaning"""
_SAID = frozenset({PERSON, RECORD})
"""origins of a value that the person stated, as a whole or in parts (`path_origin`)"""
_IN_RECORDS = frozenset({RECORD, KNOWN})
_NAMES = tuple(origin.name.lower() for origin in Origin)
Judged = tuple[str, Kind, object]
"""a judged leaf: its path, the kind by which it is judged, and its value"""
_LeafOrigin = tuple[str, Kind, object, Origin, bool]
"""a judged leaf, its origin, and whether the call only follows the link that the leaf is"""


def is_effect(tool: Tool) -> bool:
    """Return whether a call of the tool has an effect or sends data. A read in an open world that takes an
    address sends data to this address.
    """
    return tool.effect is not Effect.READ or (tool.open_world and ADDRESS in tool.argument_kinds.values())


def needs_origins(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether policies need the origins of a call (`judge_origins`) or the labels of its outgoing text
    (`judge_outgoing`). True if the call has an effect, or is a read in an open world with an address, a link, a host or
    a long text.
    """
    return reaches_out(tool, arguments) or (
        tool.open_world and any(_may_carry(leaf) for leaf in tool.coverage.leaves(arguments))
    )


def reaches_out(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether policies on origins apply to a call. True if the call has an effect, or is a read in an open world
    with an argument of the kind `address`, or with a link or a host in a text.
    """
    if _acts(tool, arguments):
        return True
    return tool.open_world and any(_may_link(leaf, None) for leaf in tool.coverage.leaves(arguments))


def _acts(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether a call has an effect, or sends or stores data. A read that may leave out its address does so only
    with an address.
    """
    if tool.effect is not Effect.READ:
        return True
    return tool.open_world and any(kind is ADDRESS for _, kind, _ in declared_values(tool, arguments))


def _may_carry(leaf: Leaf) -> bool:
    """Return whether a leaf may contain content of a source: five words, MIN_LONG characters, or a long number or a
    date in place of a text.
    """
    value = leaf.value
    if leaf.rule is OFFERED:
        return False
    if not isinstance(value, str):
        return leaf.kind is TEXT and isinstance(value, int | float) and has_digits(str(value))
    return value.count(" ") > 3 or len(value) >= MIN_LONG or (leaf.kind is TEXT and has_digits(value))


def _may_link(leaf: Leaf, decoded: Decoded | None) -> bool:
    """Return whether a leaf contains a link, or cannot be searched because it is too long or beyond a limit. A
    URI that the server lists does not count, because the server itself offers it.
    """
    value = leaf.value
    if leaf.rule is OFFERED:
        return False
    return value is UNREADABLE or (isinstance(value, str) and (len(value) > MAX_TEXT or bool(links(value, decoded))))


def declared_values(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Kind, object]]:
    """Yield each argument that has a declared kind and a value, as (name or dotted path, kind, value)."""
    for path, kind in tool.argument_kinds.items():
        value = value_at(arguments, path)
        if value is not None and value != "" and value != []:
            yield path, kind, value


def value_at(arguments: Mapping[str, Any], path: str) -> object:
    """Return the value of an argument by its name or dotted path; None if absent.

    If the name of one argument is also the dotted path of another, the value is ambiguous. Then the result is
    NotImplemented, which counts as a value from nowhere.
    """
    if "." not in path:
        return arguments.get(path)
    return NotImplemented if path in arguments else _inside(arguments, path.split("."))


def _inside(value: object, names: list[str]) -> object:
    """Return the value at the path `names`; in a list, the values of all elements; None if absent."""
    if not names:
        return value
    if isinstance(value, Mapping):
        return _inside(value.get(names[0]), names[1:])
    if isinstance(value, list | tuple):
        values = [one for item in value if (one := _inside(item, names)) is not None]
        return values or None
    return None


class CallValues:
    """The values of one call, each computed once for all rules. `leaves`: the leaves of the arguments; `decoded`: the
    decoded forms of the texts.
    """

    __slots__ = ("_arguments", "_judged", "_origins", "_tool", "decoded", "leaves")

    def __init__(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        self._tool, self._arguments = tool, arguments
        self._judged: dict[int, list[Judged]] = {}
        self._origins: dict[int, list[Origin | None]] = {}
        self.leaves, self.decoded = tool.coverage.leaves(arguments), Decoded()

    def judge_leaves(self, memory: Memory) -> list[Judged]:
        """Return the leaves whose origin matters (`judged_leaves`). The result is cached by the `id()` of `memory`, so
        the caller must not release a memory before the end of the decision.
        """
        if (leaves := self._judged.get(id(memory))) is None:
            leaves = self._judged[id(memory)] = [*judged_leaves(memory, self._tool, self._arguments, self.leaves)]
        return leaves

    def list_origins(self, memory: Memory) -> list[Origin | None]:
        """Return the origin of each leaf of `judge_leaves`, by its kind and value alone; None for a text without links
        and mail addresses. The result is cached as that of `judge_leaves`.
        """
        if (origins := self._origins.get(id(memory))) is None:
            origins = self._origins[id(memory)] = [
                _of_text(memory, value, self.decoded) if kind is TEXT else of_value(memory, kind, value)
                for _, kind, value in self.judge_leaves(memory)
            ]
        return origins


def judge_origins(
    memory: Memory,
    tool: Tool,
    arguments: Mapping[str, Any],
    values: CallValues | None = None,
    *,
    is_planned: bool = True,
) -> Record:
    """Return the origins of the arguments of a call, as attributes for policies (see the module). `values`: the values
    of the call, if other rules use them too.

    `is_planned`: false if the plan of the task does not have the tool. A short number of the person then names an
    object of this tool as a record does (`known`), because the person may have said the number about another thing.
    """
    values = CallValues(tool, arguments) if values is None else values
    if not _acts(tool, arguments):
        return _read_judged(memory, arguments, values)
    call_leaves = _CallLeaves(memory, tool, arguments, values, is_planned=is_planned)
    origins = call_leaves.judge_all()
    significant = [one for one in origins if one[1] in SIGNIFICANT]
    least_trusted = _least_trusted(tool, origins)
    if memory.has_read_outside and (
        _is_on_everything(memory, tool, least_trusted, values.leaves)
        or _empties(tool, call_leaves.all, arguments, values.leaves)
    ):
        least_trusted["origin_worst"] = least_trusted["object_worst"] = NOWHERE

    context: Record = {"origin": _names_by_path(origins)}
    for role, least in least_trusted.items():
        context[role] = _NAMES[least]
    if "object_worst" not in least_trusted and not POINTS.isdisjoint(tool.argument_kinds.values()):
        context["object_worst"] = _NAMES[NOWHERE]
    best = min([origin for _, _, _, origin, _ in significant], default=None)
    if best is not None:
        context["origin_best"] = _NAMES[best]
    is_mentioned = _is_mentioned(memory, tool, significant, values.leaves)
    if significant or is_mentioned:
        context["mentioned"] = is_mentioned
    if best is OUTSIDE:
        context |= _untrusted_sources(memory, tool, significant, least_trusted)
    if [path for path, _, _, _, is_followed in origins if is_followed]:
        context["followed"] = True
    if best is PERSON and memory.plan is not None and _needs_only_mail(memory, tool, origins):
        context["only_address"] = True
    if _is_substituted(memory, tool, arguments, origins, values):
        context["substituted"] = True
    return context


def _least_trusted(tool: Tool, origins: Iterable[_LeafOrigin]) -> dict[str, Origin]:
    """Return the least trusted origin of the values of each role, by the name of the attribute. A role without values
    is absent.
    """
    worst: dict[str, Origin] = {}
    free: list[Origin] = []
    for path, kind, _, origin, _ in origins:
        roles = _ROLES[kind]
        if kind is TIME:
            if tool.kinds.get(path) == FIXED_TIME:
                roles = _ROLES[SECRET]
            elif origin is not NOWHERE or tool.effect in GRAVE:
                free.append(origin)
        for role in roles:
            if origin >= worst.get(role, PERSON):
                worst[role] = origin
    if free:
        # An end follows from a beginning that the person stated.
        time = min(free) if min(free) <= OWN and tool.effect not in GRAVE else max(free)
        if "amount_worst" not in worst:
            worst.setdefault("origin_worst", time)
        worst.setdefault("done_worst", time)
    return worst


def _is_on_everything(memory: Memory, tool: Tool, least_trusted: Mapping[str, int], claimed: Iterable[Leaf]) -> bool:
    """Return whether a call may be on everything, because it names nothing: neither a recipient, an object, a secret,
    an amount nor a time that counts. An effect that is not grave, of a confirmed tool, may instead have a text, or a
    choice or number of the person.
    """
    if "origin_worst" in least_trusted or "amount_worst" in least_trusted:
        return False
    return tool.effect in GRAVE or (tool.confirmed is True and not _says_something(memory, claimed))


def _names_by_path(origins: Iterable[_LeafOrigin]) -> Record:
    """Return the name of the least trusted origin of each argument."""
    worst: dict[str, Origin] = {}
    for path, _, _, origin, _ in origins:
        if path not in worst or origin > worst[path]:
            worst[path] = origin
    return {path: _NAMES[origin] for path, origin in worst.items()}


def _is_mentioned(memory: Memory, tool: Tool, significant: Iterable[_LeafOrigin], claimed: Iterable[Leaf]) -> bool:
    """Return whether untrusted content has a value that the call has from a record, or a listed value that the person
    did not state.
    """
    for _, kind, value, origin, is_followed in significant:
        may_count = origin in _IN_RECORDS and not is_followed
        if may_count and of_value(memory.outside, kind, value) is OUTSIDE:
            return True
    choices = _unsaid_choices(memory, tool, claimed)
    return bool(choices) and any(of_value(memory.outside, OBJECT, value) is OUTSIDE for value in choices)


def _untrusted_sources(
    memory: Memory, tool: Tool, significant: Iterable[_LeafOrigin], least_trusted: Mapping[str, int]
) -> Record:
    """Return `from_named` and `described`, for a call whose most trusted value is from untrusted content."""
    from_outside = [(path, kind, value) for path, kind, value, origin, _ in significant if origin is OUTSIDE]
    is_named = any(of_value(memory.named, kind, value) is OUTSIDE for _, kind, value in from_outside)
    has_unknown = least_trusted.get("object_worst") is NOWHERE or any(
        kind is SECRET and origin is NOWHERE for _, kind, _, origin, _ in significant
    )
    unknown = {kind for _, kind, _, origin, _ in significant if origin is NOWHERE}
    may_be_shown = not has_unknown or (tool.effect not in GRAVE and unknown <= {OBJECT, AMOUNT})
    is_found = (may_be_shown and _are_in_fields(memory, from_outside)) or (
        not has_unknown and _are_within(memory, from_outside)
    )
    context: Record = {"from_named": is_named or is_found}
    if least_trusted.get("recipient_worst") is OUTSIDE and _is_described(memory, from_outside):
        context["described"] = True
    return context


def _needs_only_mail(memory: Memory, tool: Tool, origins: Iterable[_LeafOrigin]) -> bool:
    """Return whether the person stated all significant values of a call, among them a recipient, except for one: the
    only mail address that the task has read.
    """
    unstated: list[_LeafOrigin] = []
    has_stated = False
    for one in origins:
        path, kind, _, origin, _ = one
        if kind in SIGNIFICANT or (kind is TIME and tool.kinds.get(path) == FIXED_TIME):
            if origin is not PERSON:
                unstated.append(one)
            elif kind in _PEOPLE:
                has_stated = True
    if len(unstated) != 1 or not has_stated:
        return False
    [(path, _, value, origin, _)] = unstated
    return origin is OUTSIDE and _is_only_mail(memory, tool, path, value)


def _is_substituted(
    memory: Memory, tool: Tool, arguments: Mapping[str, Any], origins: Iterable[_LeafOrigin], values: CallValues
) -> bool:
    """Return whether a call has another value in place of a value of the person: a value from a record in place of a
    named one; or, after untrusted content, another choice or quantity.
    """
    in_records = [(kind, value) for _, kind, value, origin, _ in origins if kind in _SLOTS and origin in _IN_RECORDS]
    if in_records and _have_substitute(memory, values.judge_leaves(memory), in_records):
        return True
    return memory.has_read_outside and (
        _departs_from_choice(memory, tool, arguments) or _replaces_number(memory, memory.outside, values.leaves)
    )


class _CallLeaves:
    """The judged leaves of one call, and the rules for the origin of a leaf that depend on the tool and on the other
    leaves.
    """

    def __init__(
        self,
        memory: Memory,
        tool: Tool,
        arguments: Mapping[str, Any],
        values: CallValues,
        *,
        is_planned: bool,
    ) -> None:
        """Create the leaves of a call; the arguments are those of `judge_origins`."""
        self.all, self._own_origins = values.judge_leaves(memory), values.list_origins(memory)
        self._memory, self._tool, self._arguments, self._is_planned = memory, tool, arguments, is_planned
        self._split: Mapping[str, Origin] | None = None
        # Of a confirmed change, the owner declared what names a thing. The rest is what the document changes. An
        # address or an account names a recipient in any argument.
        self._may_lend = tool.confirmed and tool.effect is Effect.CHANGE
        # A tool that returns no content of third parties does not fetch a page: it sends something to the link.
        self._may_follow = tool.effect in _REQUESTS and tool.is_outside

    def _may_be_share(self) -> bool:
        """Return whether an amount may be a percentage. Beside an account or an address, an amount says how much goes
        there.
        """
        tool = self._tool
        return tool.effect is not Effect.PAY and _DESTINATIONS.isdisjoint(tool.argument_kinds.values())

    def _part_origin(self, path: str) -> Origin:
        """Return the origin of an argument as a part of one identifier; NOWHERE if the argument is no such part."""
        if self._split is None:
            named = [(path, value) for path, kind, value in self.all if kind in POINTS]
            self._split = split_origins(self._memory, self._tool.places, named) if len(named) > 1 else {}
        return self._split.get(path, NOWHERE)

    def judge_all(self) -> list[_LeafOrigin]:
        """Return the leaves with their origins, without texts that have neither links nor mail addresses."""
        origins: list[_LeafOrigin] = []
        for (path, kind, value), origin in zip(self.all, self._own_origins, strict=True):
            if origin is None:
                continue
            is_followed = False
            if origin > OWN or not self._is_planned:
                origin, is_followed = self._judge(path, kind, value, origin)
            origins.append((path, kind, value, origin, is_followed))
        return origins

    def _judge(self, path: str, kind: Kind, value: object, origin: Origin) -> tuple[Origin, bool]:
        """Return the origin of a leaf in this call, and whether the call only follows the link that the leaf is.
        `origin`: the origin of its value. In a planned call, no rule changes the origin of a value of the person.
        """
        memory = self._memory
        if origin is KNOWN and kind is ADDRESS and self._tool.effect in _LASTING:
            origin = KNOWN if of_value(memory.without_derived, kind, value) is KNOWN else NOWHERE
        if kind is AMOUNT and origin > OWN and self._may_be_share():
            origin = min(origin, _of_share(memory, value))
        is_lent = path in self._tool.argument_kinds or (self._may_lend and kind not in _DESTINATIONS)
        if origin is ENDORSED and not is_lent:
            origin = OUTSIDE  # a document is endorsed for kinds, and the kind of this argument is not declared
        if kind in POINTS and origin > OWN:
            origin = min(origin, self._part_origin(path))
        if not self._is_planned and kind in POINTS and origin in _SAID and _has_short_number(memory, kind, value):
            origin = KNOWN
        if kind is ADDRESS and origin > KNOWN and self._may_follow and _is_all(self._arguments, value):
            origin = _of_link(memory, cast(str, value))
            return origin, origin is KNOWN
        return origin, False


def _says_something(memory: Memory, claimed: Iterable[Leaf]) -> bool:
    """Return whether a call that names nothing has a text, or a number or a listed value that the person stated."""
    for leaf in claimed:
        if leaf.rule is LISTED or leaf.rule is QUANTITY:
            if of_value(memory, OBJECT, leaf.value) <= OWN:
                return True
        elif _is_content(leaf.value):
            return True
    return False


def _is_content(value: object) -> bool:
    """Return whether a value is none of: empty, true, false, null."""
    return value is not None and not isinstance(value, bool) and not _is_empty(value)


def _is_empty(value: object) -> bool:
    """Return whether a value is a text without visible characters, or a list or an object that has only such texts."""
    if isinstance(value, str) and value[:1].isalnum():
        return False
    return value is EMPTY or (
        isinstance(value, str | dict | list | tuple)
        and not any(one.isprintable() and one != " " for text in leaves(value) for one in text)
    )


def _empties(tool: Tool, all_leaves: Iterable[Judged], arguments: Mapping[str, Any], claimed: Sequence[Leaf]) -> bool:
    """Return whether a call empties something: a required recipient or object is empty; or the call is a change with
    an empty value, and all other values only name things.
    """
    empty = [name for name, value in arguments.items() if _is_empty(value)]
    if empty:
        required = tool.arguments.get("required", ())
        if any(tool.argument_kinds.get(name) in POINTS and name in required for name in empty):
            return True
    if tool.effect not in _CHANGES or not (empty or any(_is_empty(leaf.value) for leaf in claimed)):
        return False
    things = [(path.partition(".")[0], value) for path, kind, value in all_leaves if kind in POINTS]
    names = {name for name, _ in things}
    if empty and all(name in names for name, value in arguments.items() if _is_content(value)):
        return True
    values = {value for _, value in things}
    return all(leaf.is_name or leaf.value in values for leaf in claimed if _is_content(leaf.value))


def _departs_from_choice(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether the person stated a text that the schema lists for an argument, and the call has another value in
    this argument, or none. A change departs only with another value. False for a list, and for a task without a plan.
    """
    if memory.plan is None:
        return False
    for name, choice in tool.choices.items():
        if tool.effect in _CHANGES and name not in arguments:
            continue
        value = arguments.get(name, choice.default)
        stated = [one for one in choice.texts if of_value(memory, OBJECT, one) is PERSON]
        if stated and value not in stated and not isinstance(value, list):
            return True
    return False


def _replaces_number(memory: Memory, outside: Memory | None, all_leaves: Sequence[Leaf]) -> bool:
    """Return whether a call leaves out a number that the person stated, and has a quantity that no record has or that
    untrusted content states. `outside`: the untrusted part of the memory; None: untrusted content may state each
    quantity.
    """
    for leaf in all_leaves:
        origin = of_value(memory, OBJECT, leaf.value) if leaf.rule is QUANTITY else PERSON
        if origin > ENDORSED and (
            outside is None or origin >= OUTSIDE or of_value(outside, OBJECT, leaf.value) is OUTSIDE
        ):
            texts = (text for one in all_leaves if one.value is not UNREADABLE for text in leaves(one.value))
            return leaves_number(memory, filter(None, map(decimal, texts)))
    return False


def _unsaid_choices(memory: Memory, tool: Tool, claimed: Iterable[Leaf]) -> list[str]:
    """Return the texts of a call that the schema lists, and that neither the person nor an endorsed document states.
    Empty for a change, and for a task without a plan.
    """
    if memory.plan is None or tool.effect in _CHANGES:
        return []
    return [
        leaf.value
        for leaf in claimed
        if leaf.rule is LISTED and isinstance(leaf.value, str) and of_value(memory, OBJECT, leaf.value) > ENDORSED
    ]


def _are_in_fields(memory: Memory, all_leaves: Iterable[Judged]) -> bool:
    """Return whether all leaves name objects, each by an identifier in a field of an untrusted record."""
    in_fields = memory.in_fields
    return all(of_value(in_fields, kind, value) is OUTSIDE for _, kind, value in all_leaves)


def _are_within(memory: Memory, all_leaves: Iterable[Judged]) -> bool:
    """Return whether all leaves name files in folders that the person stated."""
    return all(
        kind is OBJECT and is_within(text, lambda one: _of_phrase(memory, one, BIT[OBJECT]))
        for _, kind, value in all_leaves
        for text in leaves(value)
    )


def _is_described(memory: Memory, all_leaves: Iterable[Judged]) -> bool:
    """Return whether each recipient has in its name a word that the person wrote, or two adjacent words in one. A link
    or an account has no name. The name beside a mail address does not count, because a stranger can choose any.
    """
    recipients = [(kind, value) for _, kind, value in all_leaves if kind in RECIPIENTS]
    return all(
        kind is not ACCOUNT
        and "://" not in text
        and any(_is_said(memory, name) for name in _NAME.findall(one.rpartition(".")[0] or one))
        for kind, value in recipients
        for text in leaves(value)
        for part in _parts(kind, text) or [text]
        for one in MAIL.findall(part) or [part]
    )


def _is_said(memory: Memory, name: str) -> bool:
    """Return whether the person wrote a word, or the word in two parts (`harbourbakery`, of the Harbour Bakery)."""
    name = name.lower()
    divided = ((name[:at], name[at:]) for at in range(MIN_NAME, len(name))) if len(name) <= MAX_NAME else ()
    return not is_particle(name) and any(
        memory.find_words(words_, ALL_KINDS) is PERSON for words_ in chain([words(name, is_source=False)], divided)
    )


def names_in(text: str) -> Iterator[str]:
    """Yield the words and mail addresses of a text, in lower case, by which a person may describe a thing: words of at
    least MIN_NAME letters, or of two characters of a script without spaces, and no particles.
    """
    names = chain(_NAME.findall(text), MAIL.findall(text) if "@" in text else ())
    return (name for one in names if not is_particle(name := one.lower()))


def _is_only_mail(memory: Memory, tool: Tool, path: str, value: object) -> bool:
    """Return whether a value is the only mail address that the task has read (`mails`), in an argument that the owner
    declared as an address and the schema requires. An argument that a call may leave out can be a further recipient.
    """
    if tool.argument_kinds.get(path) is not ADDRESS or path not in tool.arguments.get("required", ()):
        return False
    return isinstance(value, str) and is_mail(value) and memory.mails == {hashed(memory.key, value.lower())}


def names_content(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether the person named or described the content that a call returns. The values that select the content
    are names of recipients and objects, and search words. True if one of these values is the person's, consists at
    least half of words of the person, or is in content that the person named or described; and none of them is from
    other untrusted content. Of a call with an effect, which a plan or a person permits, one word of the person in a
    value is enough (a command, a link with a query).
    """
    is_named = False
    for leaf in tool.coverage.leaves(arguments):
        if leaf.value is UNREADABLE:
            return False
        if leaf.kind in NAMES:
            kind = OBJECT if leaf.kind is TEXT else leaf.kind
            value_origin = of_value(memory, kind, leaf.value)
            is_led = value_origin is OUTSIDE and of_value(memory.named, kind, leaf.value) is OUTSIDE
            if value_origin is OUTSIDE and not is_led:
                return False
            is_named = is_named or is_led or value_origin <= ENDORSED or _describes(memory, leaf.value)
            is_named = is_named or (tool.effect is not Effect.READ and _has_word(memory, leaf.value))
    return is_named


def _has_word(memory: Memory, value: object) -> bool:
    """Return whether a text has a word or a number of the person, of at least MIN_NAME characters."""
    runs = islice(_WORD.finditer(value[:MAX_TEXT]), MAX_WORDS) if isinstance(value, str) else ()
    return any(_is_said(memory, run[0]) for run in runs)


def _describes(memory: Memory, search: object) -> bool:
    """Return whether the person wrote at least half of the words and mail addresses of a search, perhaps with other
    endings, or the name of the folder or file to which a path leads. Numbers, short words and the names of operators
    (`from:ada`) do not count.
    """
    if not isinstance(search, str) or len(search) > MAX_TEXT:
        return False
    folder, is_path, name = search.rpartition("/")
    if is_path and "://" not in folder and len(name) >= MIN_NAME and _is_said(memory, name):
        return True
    names = [name for name in _SEARCHED.findall(search) if len(name) >= MIN_NAME and not is_particle(name)]
    if not 0 < len(names) <= MAX_WORDS:
        return False
    hash_of = partial(hashed, memory.key)
    count = sum(_is_said(memory, name) or memory.has_stem(name.lower(), hash_of) for name in names)
    return 2 * count >= len(names)


def names_source(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether each value that selects the content of a call is the person's, and an owner declared the kind of
    one of them (a page, a channel) in the catalogue. Search words do not name content: anyone can write a text with
    them.
    """
    is_declared = False
    for leaf in tool.coverage.leaves(arguments):
        if leaf.value is UNREADABLE:
            return False
        if leaf.kind in NAMES:
            kind = OBJECT if leaf.kind is TEXT else leaf.kind
            if of_value(memory, kind, leaf.value) > ENDORSED:
                return False
            is_declared = is_declared or (leaf.rule is DECLARED and leaf.kind in POINTS)
    return is_declared and not tool.is_proposed


def lend_documents(memory: Memory, id: str, tool: Tool) -> Memory:
    """Return the memory for a call of the tool with the id `id` (`bank/pay`). In this memory, values of endorsed
    documents (whose values the person accepts as their own) count only if the plan has the tool or the task has no
    plan, and never count for objects if the effect is grave (GRAVE). For a read, return `memory` unchanged.
    """
    if not memory.documents or tool.effect is Effect.READ:
        return memory
    if not memory.may_plan(id):
        return memory.lending(0)
    return memory.lending(ALL_KINDS & ~BIT[OBJECT]) if tool.effect in GRAVE else memory


def judge_plan(
    memory: Memory, id: str, tool: Tool, arguments: Mapping[str, Any], values: CallValues | None = None
) -> Record:
    """Return the attributes of the plan of the task for policies. `planned`: true if the plan contains the tool
    with the id `id` (`bank/pay`). `over_plan`: true if an amount exceeds the plan's maximum or cannot be
    parsed. `read_outside`: true if the task has read untrusted content. Empty for a task without a plan, and
    for a read. `values`: the values of the call, if other rules use them too.
    """
    if memory.plan is None or tool.effect is Effect.READ:
        return {}
    planned = memory.plan.get(id)
    return {
        "planned": planned is not None,
        "over_plan": planned is not None
        and planned.most != ""
        and _is_over((values or CallValues(tool, arguments)).judge_leaves(memory), Decimal(planned.most)),
        "read_outside": memory.has_read_outside,
    }


def _is_over(all_leaves: Iterable[Judged], most: Decimal) -> bool:
    for _, kind, value in all_leaves:
        if kind is AMOUNT and value is not None:
            number = read_amount(value) if isinstance(value, str) else decimal(next(leaves(value), ""))
            if number is None or Decimal(number) > most:
                return True
    return False


def has_substitute(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether a call has a value from a record in place of a value that the person named in the same field (see
    `is_substitute`).
    """
    all_leaves = [*judged_leaves(memory, tool, arguments)]
    candidates = [
        (kind, value)
        for _, kind, value in all_leaves
        if kind in _SLOTS and of_value(memory, kind, value) in _IN_RECORDS
    ]
    return _have_substitute(memory, all_leaves, candidates)


def _have_substitute(memory: Memory, all_leaves: Iterable[Judged], candidates: Iterable[tuple[Kind, object]]) -> bool:
    for kind, value in candidates:
        things: list[str] = []
        if kind is AMOUNT:
            things = [text for _, one, thing in all_leaves if one in POINTS for text in leaves(thing)]
        for text in (value,) if isinstance(value, str) else leaves(value):
            for one in (text, *_parts(kind, text)):
                if is_substitute(memory, kind, one, things):
                    return True
    return False


def judged_leaves(
    memory: Memory | None, tool: Tool, arguments: Mapping[str, Any], claimed: Sequence[Leaf] | None = None
) -> Iterator[Judged]:
    """Yield the leaves of a call whose origin matters, each with the kind by which it is judged.

    A malformed time is judged as text. A leaf that cannot be read is judged as an object, and so is the name of a
    member, unless its form is that of an address or an account. The form of a value determines its kind
    (`value_kinds`) if no rule claims the leaf, or if the kind `text` or `time` is only proposed and no owner has
    confirmed it. Without a memory, such a value is never judged as text. In an effect of a tool that a server lists, a
    whole number that the task has read, and of which no owner stated the kind, is the key of a record: it is judged as
    an object.
    """
    for leaf in tool.coverage.leaves(arguments) if claimed is None else claimed:
        path, rule, kind, value, is_name = leaf.path, leaf.rule, leaf.kind, leaf.value, leaf.is_name
        if value is UNREADABLE:
            kind = OBJECT
        elif (
            type(value) is str
            and not is_name
            and (rule is UNCLAIMED or ((kind is TEXT or kind is TIME) and tool.is_proposed))
        ):
            yield from _judged_by_form(memory, tool, path, kind, value)
            continue
        elif is_name and rule is UNCLAIMED:
            kind = _kind_of_name(cast(str, value))
        elif kind is TIME and isinstance(value, str) and not is_moment(value):
            kind = TEXT
        elif rule is QUANTITY and _has_keys(tool) and _was_read(memory, value):
            kind = OBJECT
        if kind is not None:
            yield path, kind, value


def _kind_of_name(name: str) -> Kind:
    """Return the kind by which the name of a member is judged: an address, an account or an object."""
    if name.replace("_", "").isalpha():  # as most names
        return OBJECT
    return form if (form := kind_of(name)) in _DESTINATIONS else OBJECT


def _has_keys(tool: Tool) -> bool:
    """Return whether quantities of a call may be keys of records: the tool has an effect, and a server lists it. In a
    catalogue that an owner wrote by hand, a number without a kind is a quantity.
    """
    return tool.effect is not Effect.READ and tool.definition != ""


def _was_read(memory: Memory | None, number: object) -> bool:
    """Return whether a number may be a key, and content that the task has read has it, or untrusted content has it in a
    word such as `item-9`.
    """
    if memory is None or not isinstance(number, int | float) or not _may_be_key(memory, number):
        return False
    in_word = hashed(memory.key, mark_in_word(int(number)))
    return of_value(memory, OBJECT, number) < NOWHERE or memory.find(in_word, BIT[OBJECT]) is OUTSIDE


def _may_be_key(memory: Memory, number: object) -> bool:
    """Return whether a number is whole, and the person did not state it."""
    is_whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    return is_whole and of_value(memory, OBJECT, number) > OWN


def _judged_by_form(memory: Memory | None, tool: Tool, path: str, kind: Kind | None, text: str) -> Iterator[Judged]:
    """Yield the judged values of an undeclared text. Prose that no source contains word for word is judged as
    text, together with the identifiers in it. For tools that pay, destroy or administer, this applies only if
    the catalogue proposes `text`.
    """
    if len(text) > MAX_TEXT:
        yield path, OBJECT, UNREADABLE
    elif (
        memory is not None
        and (kind is TEXT or (tool.effect not in GRAVE and is_prose(text)))
        and not is_moment(text)
        and of_value(memory, OBJECT, text) is NOWHERE
    ):
        yield path, TEXT, text
        for one in identifiers(text):
            yield path, OBJECT, one
    else:
        yield path, kind_of(text), text


def _read_judged(memory: Memory, arguments: Mapping[str, Any], values: CallValues) -> Record:
    """Return the origins of a read in an open world that takes no declared address. A text with a link or a
    host is judged, because the read reveals the text to that host.
    """
    worst: dict[str, Origin] = {}
    for leaf in values.leaves:
        if not _may_link(leaf, values.decoded):
            continue
        value_origin = _of_text(memory, leaf.value, values.decoded) if isinstance(leaf.value, str) else None
        if value_origin is None:
            value_origin = NOWHERE
        elif value_origin > KNOWN and _is_all(arguments, leaf.value):
            value_origin = _of_link(memory, cast(str, leaf.value))
        worst[leaf.path] = max(value_origin, worst.get(leaf.path, PERSON))
    context: Record = {"origin": {path: _NAMES[value_origin] for path, value_origin in worst.items()}}
    if worst:
        context["origin_worst"] = context["object_worst"] = _NAMES[max(worst.values())]
    return context


def origins_by_argument(context: Record | None) -> dict[str, str]:
    """Return the origins by argument from a context of `judge_origins`; empty if the context is None."""
    origins = {} if context is None else context.get("origin", {})
    return cast("dict[str, str]", origins)


def list_foreign_links(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the links and mail addresses in outgoing text that come neither from the person nor from a record
    that the person named, by argument, to show to the approver. Limits: MAX_FOREIGN for each argument,
    MAX_SHOWN characters for each link.
    """
    by_path: dict[str, set[str]] = {}
    for path, kind, value in judged_leaves(memory, tool, arguments):
        if kind is TEXT and isinstance(value, str):
            listed = links(value[:MAX_TEXT])
            others = {one for one in listed if _best(memory, spellings(one), BIT[ADDRESS]) > RECORD}
            if others:
                by_path.setdefault(path, set()).update(others)
    return {path: [one[:MAX_SHOWN] for one in sorted(others)[:MAX_FOREIGN]] for path, others in by_path.items()}


def is_settled(context: Record, memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether a newer memory of the task cannot change the decision on a call. It cannot if all values come from
    the start of the task, no text goes to third parties (`labels`), and content cannot state a listed value or the
    number of a record that the person did not state, or a quantity in place of a number of the person. A call that
    names nothing or is outside the plan is settled only after the task has read untrusted content, because such content
    can ask for it; so is a call that empties something, or departs from a choice of the person. `context`: the
    attributes of the call, from `memory`.
    """
    if "carries" in context:
        return False
    if "origin_worst" not in context and "amount_worst" not in context:
        return False
    if not context.get("planned", True) and not context.get("read_outside", False):
        return False
    claimed = tool.coverage.leaves(arguments)
    if not context.get("mentioned", False) and _unsaid_choices(memory, tool, claimed):
        return False
    if not context.get("substituted", False) and _replaces_number(memory, None, claimed):
        return False
    if _has_keys(tool) and any(leaf.rule is QUANTITY and _may_be_key(memory, leaf.value) for leaf in claimed):
        return False
    if not memory.has_read_outside and (
        _departs_from_choice(memory, tool, arguments)
        or _empties(tool, judged_leaves(memory, tool, arguments, claimed), arguments, claimed)
    ):
        return False
    return SETTLED.issuperset(origins_by_argument(context).values())


def of_value(memory: Memory, kind: Kind, value: object) -> Origin:
    """Return the origin of a value of the kind `kind`. For a list or an object, return the least trusted origin
    of its values.
    """
    if isinstance(value, str):
        return _of_leaf(memory, kind, value)
    if kind is AMOUNT and type(value) is int and 0 <= value < LARGEST:
        return _best(memory, (str(value), f"#{value}"), BIT[kind])
    if kind is AMOUNT and type(value) in (int, float):  # JSON has one way to read it
        number = decimal(next(leaves(value)))
        return NOWHERE if number is None else _best(memory, (number, f"#{number}"), BIT[kind])
    worst = PERSON
    count = 0
    for leaf in leaves(value):
        count += 1
        if count > MAX_VALUES:
            return NOWHERE
        worst = max(worst, _of_leaf(memory, kind, leaf))
        if worst is NOWHERE:
            return worst
    return worst if count else NOWHERE


def leaves(value: object, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the scalars in a value as texts, in order; an empty text for each value that cannot be judged."""
    todo = [(value, depth)]
    while todo:
        one, left = todo.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list | tuple) and left:
            items = list(one.values()) if isinstance(one, dict) else one
            todo += [(item, left - 1) for item in reversed(items)]
        elif isinstance(one, bool):
            yield "true" if one else "false"
        elif isinstance(one, int) and abs(one) < LARGEST:
            yield str(one)
        elif isinstance(one, float):
            yield repr(int(one) if one.is_integer() else one)
        elif one is not None:
            yield ""


def _of_share(memory: Memory, value: object) -> Origin:
    """Return the origin of a number that is read as a percentage."""
    number = decimal(next(leaves(value), "")) if type(value) in (int, float, str) else None
    return NOWHERE if number is None else _best(memory, (f"{number}%",), BIT[AMOUNT])


def _of_leaf(memory: Memory, kind: Kind, text: str) -> Origin:
    if len(text) > MAX_TEXT:
        return NOWHERE
    bit = BIT[kind]
    if kind is AMOUNT:
        number = read_amount(text)
        return NOWHERE if number is None else _best(memory, (number, f"#{number}"), bit)
    if kind is TIME:
        ends = text.replace("/", " ") if "/" in text and is_interval(text.casefold()) else text
        if stated := [*list_moments(words(ends, is_source=False))]:
            return _of_moments(memory, stated, bit)
    if is_alone(text):
        text = text.lower()
        if kind in POINTS and text in PARTICLES:
            return NOWHERE
        return memory.find(hashed(memory.key, text), bit)
    best = _of_part(memory, kind, text)
    if best is PERSON:
        return best
    if kind is ADDRESS and text[:7].lower() == "mailto:":
        return _of_phrase(memory, text[7:], bit)
    if kind is ACCOUNT and (account := compact(text)):
        best = min(best, _best(memory, (account,), bit))
    if kind is OBJECT and best > RECORD and "/" in text and "://" not in text:
        best = min(best, path_origin(text, lambda one: _of_phrase(memory, one, bit)))
    if _SINGLE.isdisjoint(text):
        return best
    parts = _parts(kind, text)
    if 0 < len(parts) <= MAX_VALUES:
        best = min(best, max(_of_part(memory, kind, part) for part in parts))
    return best


def _of_part(memory: Memory, kind: Kind, text: str) -> Origin:
    if kind in POINTS and is_particle(text.strip(_MARKS)):
        return NOWHERE
    return _of_phrase(memory, text, BIT[kind])


def _has_short_number(memory: Memory, kind: Kind, value: object) -> bool:
    """Return whether a value is a short number, or a text with separators in which one of the values is."""
    return any(_is_short(memory, kind, text) for text in islice(leaves(value), MAX_VALUES))


def _is_short(memory: Memory, kind: Kind, text: str) -> bool:
    """Return whether a text is a short number, or has one among its values. Short numbers with signs between them are
    as short as their parts, except for a longer word of the person (`10.20.4.17`).
    """
    if has_short_numbers(text):
        is_long_word = count_alnum(text) > MAX_SHORT and len(words(text, is_source=False)) == 1
        return not is_long_word or _of_phrase(memory, text, BIT[kind]) is not PERSON
    return any(map(has_short_numbers, _parts(kind, text)))


def _parts(kind: Kind, text: str) -> list[str]:
    """Return the separate values of a text with separators. For a name with a mail address, return the address."""
    if _SINGLE.isdisjoint(text):
        return []
    parts = [part.strip() for part in text.replace(";", ",").replace("\n", ",").split(",") if part.strip()]
    if kind in (ADDRESS, PRINCIPAL):
        return [part if (named := _NAMED.fullmatch(part)) is None else named[1] for part in parts]
    return parts


def _is_all(arguments: Mapping[str, Any], value: object) -> bool:
    """Return whether a text is the only content of a call. Booleans and numbers beside the text only configure
    the request.
    """
    return isinstance(value, str) and all(
        one is value or one is None or isinstance(one, bool | int | float) for one in arguments.values()
    )


def _of_link(memory: Memory, text: str) -> Origin:
    return _of_phrase(memory, text, BIT[ADDRESS] | LINK) if len(text) <= MAX_TEXT else NOWHERE


def _of_phrase(memory: Memory, text: str, bit: int) -> Origin:
    phrase = words(text, is_source=False)
    if not phrase or len(phrase) > MAX_WORDS or not _SAYS.search(text):
        return NOWHERE
    if len(phrase) == 1:
        return _best(memory, spellings(phrase[0]), bit)
    return memory.find_words(phrase, bit)


def _of_moments(memory: Memory, stated: Sequence[list[str]], bit: int) -> Origin:
    """Return the least trusted origin of dates and times, each given as its readings. A date also matches the same
    day stated without a year. Midnight beside a date is not counted as a time.
    """
    has_date = any(readings[0].startswith("@") for readings in stated)
    worst = PERSON
    for readings in stated:
        if not (has_date and readings == ["~00:00"]):
            without_year = [f"@{one[-5:]}" for one in readings if one.startswith("@") and len(one) > 6]
            worst = max(worst, _best(memory, readings + without_year, bit))
    return worst


def _best(memory: Memory, spelled: Iterable[str], bit: int) -> Origin:
    """Return the most trusted origin of single words that are spellings of one value."""
    best = NOWHERE
    for word in spelled:
        origin = memory.find(hashed(memory.key, word), bit, least=best - 1)
        if origin < best:
            best = origin
            if best is PERSON:
                break
    return best


def _of_text(memory: Memory, value: object, decoded: Decoded | None) -> Origin | None:
    """Return the least trusted origin of the links and mail addresses in outgoing text; None if the text has none."""
    worst: Origin | None = None
    for count, text in enumerate((value,) if isinstance(value, str) else leaves(value)):
        if len(text) > MAX_TEXT or count > MAX_VALUES:
            return NOWHERE
        for one in links(text, decoded):
            origin = _best(memory, spellings(one), BIT[ADDRESS])
            if worst is None or origin > worst:
                worst = origin
                if worst is NOWHERE:
                    return worst
    return worst

"""Origins of the arguments of a call, for policies: `origin` by argument, and the least trusted origin by role.

    origin           origins by the name of each argument that identifies something
    origin_worst     the least trusted origin of values that identify a recipient or an object, of secrets, and of times
                     that the catalogue marks as significant (`fixed-time`); for a call with none of these and no
                     amount, of its times. A time from nowhere does not count: the agent plans it. If one time is the
                     person's, it stands for all (an end follows from a beginning). If the call destroys, pays or
                     administers, each time counts
    amount_worst     the least trusted origin of amounts
    object_worst     the least trusted origin of values that identify a recipient or an object; `nowhere` if the
                     catalogue declares such arguments and the call has none
    recipient_worst  the least trusted origin of recipients (principals, accounts, addresses); absent without one
    done_worst       the least trusted origin of recipients, amounts, secrets and significant times; without these, of
                     the times; absent without any
    origin_best      the most trusted origin of recipients, objects, amounts and secrets; absent without any
    from_named       if `origin_best` is `outside`: whether one of these values is in untrusted content that the person
                     named
    mentioned        whether one of these values is from a record, and untrusted content has the same value
    links_worst      the least trusted origin of links and mail addresses in outgoing text; absent without any
    substituted      true if a value of a record replaces a value that the person named (`slots`); otherwise absent

Every leaf of the arguments counts: with the kind that the catalogue states, or as an object if no rule claims it
(`ostiary.authorization.catalogue.coverage`). For a read in an open world, a string with a link or a host counts as an
address. A list is as trusted as its least trusted element. An argument is compared as it stands: an encoded value is
another value, since an object may really have that name. Outgoing text is decoded, since its reader may decode it.

A link that is the only content of a call (it is fetched) is `known` if it stands in content that the person named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, cast

from ostiary.authorization.catalogue import Effect, Kind, Tool
from ostiary.authorization.catalogue.coverage import UNREADABLE, Leaf, Rule
from ostiary.authorization.catalogue.kind import FIXED_TIME
from ostiary.authorization.cedar.values import Record
from ostiary.provenance.origins.forms import path_origin, split_origins
from ostiary.provenance.origins.links import links, spellings
from ostiary.provenance.origins.memory import ALL_KINDS, KINDS, LINK, Memory, Origin
from ostiary.provenance.origins.moments import is_moment, moments
from ostiary.provenance.origins.scribe import LARGEST, MAX_TEXT, hashed
from ostiary.provenance.origins.slots import is_substitute
from ostiary.provenance.origins.value_kinds import identifiers, is_prose, kind_of
from ostiary.provenance.origins.words import amount, compact, decimal, is_alone, words

# By name, because an enumeration finds its members slowly.
OFFERED, UNCLAIMED = Rule.OFFERED, Rule.UNCLAIMED
PERSON, OWN, ENDORSED, RECORD, KNOWN, OUTSIDE, NOWHERE = Origin
PRINCIPAL, ACCOUNT, ADDRESS, OBJECT, SECRET, AMOUNT, TIME, TEXT = Kind
_PLACE = {kind: place for place, kind in enumerate((*KINDS, TEXT))}
BIT = {kind: 1 << place for place, kind in enumerate(KINDS)}
POINTS = frozenset({PRINCIPAL, ACCOUNT, ADDRESS, OBJECT})
"""kinds that name recipients and objects"""
IDENTIFIES = POINTS | {SECRET}
NAMES = POINTS | {TEXT}
"""kinds that select the content that a call returns; `origin_worst` is their least trusted origin"""
_SLOTS = POINTS | {AMOUNT}
_DESTINATIONS = frozenset({ACCOUNT, ADDRESS})
GRAVE = frozenset({Effect.PAY, Effect.DESTROY, Effect.ADMINISTER})
"""effects that cannot be taken back: no rule that saves a question holds for them"""
MAX_DEPTH = 16
MAX_VALUES = 256
"""values of one argument; beyond, they come from nowhere"""
MAX_FOREIGN, MAX_SHOWN = 32, 256
MIN_LONG = 64
"""characters of a text that may be a longer one, encoded"""
MAX_WORDS = 256
"""words of one value"""
_SAYS = re.compile(r"[^\W_]")
_NAMED = re.compile(r"[^@<>:]*<([^<>]+)>")
_SINGLE = frozenset(",;\n<")
"""a text without these characters is one value, and no name with an address"""
_SETTLED = frozenset({"person", "own", "endorsed"})
_NAMES = tuple(origin.name.lower() for origin in Origin)
Judged = tuple[str, Kind, object]
"""the path of a leaf, the kind as which it is judged, and its value"""


def is_effect(tool: Tool) -> bool:
    """Return whether a call does something, or sends something: who reads at an address in an open world sends."""
    return tool.effect is not Effect.READ or (tool.open_world and ADDRESS in tool.argument_kinds.values())


def needs_origins(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether policies must see the origins or the labels of a call: it has an effect, or it is a read in an
    open world with a link, a host or a longer text.
    """
    return reaches_out(tool, arguments) or (
        tool.open_world and any(_is_long(leaf) for leaf in tool.coverage.leaves(arguments))
    )


def reaches_out(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether policies on origins judge a call: it does something, or is a read in an open world with a link or
    a host in a text.
    """
    if tool.effect is not Effect.READ or is_effect(tool):
        return True
    return tool.open_world and any(_may_link(leaf) for leaf in tool.coverage.leaves(arguments))


def _is_long(leaf: Leaf) -> bool:
    """Return whether a leaf has room for content of a source: five words, or as much without a blank."""
    value = leaf.value
    return isinstance(value, str) and leaf.rule is not OFFERED and (value.count(" ") > 3 or len(value) >= MIN_LONG)


def _may_link(leaf: Leaf) -> bool:
    """Return whether a leaf contains a link, or cannot be searched for one: it is too long, or beyond a limit. A URI
    that the server lists is no such link, since the server itself offered it.
    """
    value = leaf.value
    if leaf.rule is OFFERED:
        return False
    return value is UNREADABLE or (isinstance(value, str) and (len(value) > MAX_TEXT or bool(links(value))))


def declared_values(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Kind, object]]:
    """Yield the arguments that have a kind and a value: name or dotted path, kind and value.

    If the name of an argument is also the dotted path of another, the value is ambiguous and comes from nowhere.
    """
    for path, kind in tool.argument_kinds.items():
        if "." not in path:
            value = arguments.get(path)
        elif path in arguments:
            value = NotImplemented
        else:
            value = _inside(arguments, path.split("."))
        if value is not None and value != "" and value != []:
            yield path, kind, value


def _inside(value: object, names: list[str]) -> object:
    """Return the value under these names, of a list those of each element; None if absent."""
    if not names:
        return value
    if isinstance(value, Mapping):
        return _inside(value.get(names[0]), names[1:])
    if isinstance(value, list | tuple):
        values = [one for item in value if (one := _inside(item, names)) is not None]
        return values or None
    return None


def judge_origins(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> Record:
    """Return the origins of a call, as policies see them."""
    if not is_effect(tool):
        return _read_judged(memory, tool, arguments)
    origin: Record = {}
    worst_of: dict[str, Origin] = {}
    of_kind = [-1] * len(_PLACE)
    times: list[Origin] = []
    fixed = -1
    is_grave = tool.effect in GRAVE
    # An amount beside an account or an address is never a percentage: it says how much goes there.
    may_be_share = tool.effect is not Effect.PAY and _DESTINATIONS.isdisjoint(tool.argument_kinds.values())
    best, mentioned = NOWHERE + 1, False
    from_outside: list[tuple[Kind, object]] = []
    found_in_records: list[tuple[Kind, object]] = []
    split: Mapping[str, Origin] | None = None
    all_leaves = [*judged_leaves(memory, tool, arguments)]
    for path, kind, value in all_leaves:
        value_origin = _of_text(memory, value) if kind is TEXT else of_value(memory, kind, value)
        if value_origin is None:
            continue
        if kind is AMOUNT and value_origin > OWN and may_be_share:
            value_origin = min(value_origin, _of_share(memory, value))
        if value_origin is ENDORSED and path not in tool.argument_kinds:
            value_origin = OUTSIDE  # a document is endorsed for kinds, and the kind of this argument is not declared
        if kind in POINTS and value_origin > OWN:
            if split is None:
                split = _split(memory, tool, all_leaves)
            value_origin = min(value_origin, split.get(path, NOWHERE))
        is_followed = False
        if kind is ADDRESS and value_origin > KNOWN and _is_all(arguments, value):
            value_origin = _of_link(memory, cast(str, value))
            is_followed = value_origin is KNOWN
        elif kind is TIME and tool.kinds.get(path) == FIXED_TIME:
            fixed = max(fixed, value_origin)
        elif kind is TIME and (is_grave or value_origin is not NOWHERE):
            times.append(value_origin)
        if (value_origin is RECORD or value_origin is KNOWN) and kind in _SLOTS:
            found_in_records.append((kind, value))
        if value_origin > of_kind[place := _PLACE[kind]]:
            of_kind[place] = value_origin
        if kind in IDENTIFIES or kind is AMOUNT:
            best = min(best, value_origin)
            if value_origin is OUTSIDE:
                from_outside.append((kind, value))
            mentioned = mentioned or (
                RECORD <= value_origin <= KNOWN and not is_followed and of_value(memory.outside, kind, value) is OUTSIDE
            )
        if value_origin >= worst_of.get(path, PERSON):
            worst_of[path] = value_origin
            origin[path] = _NAMES[value_origin]
    principal, account, address, thing, secret, amount, _, linked = of_kind
    to_whom = max(principal, account, address)
    pointed = max(to_whom, thing)
    worst, done = max(pointed, secret, fixed), max(to_whom, secret, amount, fixed)
    if times:
        when = min(times)
        if when > OWN or is_grave:
            when = max(times)
        if worst < 0 and amount < 0:
            worst = when
        if done < 0:
            done = when
    context: Record = {"origin": origin}
    if worst >= 0:
        context["origin_worst"] = _NAMES[worst]
    if best <= NOWHERE:
        context["origin_best"] = _NAMES[best]
        context["mentioned"] = mentioned
    if best is OUTSIDE:
        named = memory.named
        context["from_named"] = any(of_value(named, *one) is OUTSIDE for one in from_outside)
    if amount >= 0:
        context["amount_worst"] = _NAMES[amount]
    if pointed >= 0:
        context["object_worst"] = _NAMES[pointed]
    elif not POINTS.isdisjoint(tool.argument_kinds.values()):
        context["object_worst"] = _NAMES[NOWHERE]
    if to_whom >= 0:
        context["recipient_worst"] = _NAMES[to_whom]
    if done >= 0:
        context["done_worst"] = _NAMES[done]
    if linked >= 0:
        context["links_worst"] = _NAMES[linked]
    if found_in_records and _have_substitute(memory, all_leaves, found_in_records):
        context["substituted"] = True
    return context


def _split(memory: Memory, tool: Tool, all_leaves: Iterable[Judged]) -> Mapping[str, Origin]:
    """Return the origin of arguments that are parts of one identifier, by path."""
    named = [(path, value) for path, kind, value in all_leaves if kind in POINTS]
    return split_origins(memory, tool.arguments, named) if len(named) > 1 else {}


def names_content(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether the person named the content that a call returns: a value that identifies the content was the
    person's, and none was untrusted. Search words count as such a value.
    """
    is_named = False
    for leaf in tool.coverage.leaves(arguments):
        if leaf.value is UNREADABLE:
            return False
        if leaf.kind in NAMES:
            value_origin = of_value(memory, OBJECT if leaf.kind is TEXT else leaf.kind, leaf.value)
            if value_origin is OUTSIDE:
                return False
            is_named = is_named or value_origin <= ENDORSED
    return is_named


def lend_documents(memory: Memory, id: str, tool: Tool) -> Memory:
    """Return the memory for a call of the tool of that id (`bank/pay`). Endorsed documents lend their values to the
    effects that the plan has, or without a plan to each; and to none which thing it pays for, destroys or administers.
    """
    if not memory.documents or tool.effect is Effect.READ:
        return memory
    if memory.plan is not None and id not in memory.plan:
        return memory.lending(0)
    return memory.lending(ALL_KINDS & ~BIT[OBJECT]) if tool.effect in GRAVE else memory


def judge_plan(memory: Memory, id: str, tool: Tool, arguments: Mapping[str, Any]) -> Record:
    """Return the attributes of the plan of the task for policies: `planned`, whether the plan has the tool of that id
    (`bank/pay`); `over_plan`, whether an amount is above its cap, or cannot be parsed; `read_outside`, whether the task
    has read untrusted content. Empty without a plan, and for a read.
    """
    if memory.plan is None or tool.effect is Effect.READ:
        return {}
    planned = memory.plan.get(id)
    return {
        "planned": planned is not None,
        "over_plan": planned is not None
        and planned.most != ""
        and _is_over(memory, tool, arguments, Decimal(planned.most)),
        "read_outside": any(part.origin == OUTSIDE for part in memory.parts),
    }


def _is_over(memory: Memory, tool: Tool, arguments: Mapping[str, Any], most: Decimal) -> bool:
    for _, kind, value in judged_leaves(memory, tool, arguments):
        if kind is AMOUNT and value is not None:
            number = amount(value) if isinstance(value, str) else decimal(next(leaves(value), ""))
            if number is None or Decimal(number) > most:
                return True
    return False


def has_substitute(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether a value of a record replaces a value that the person named."""
    all_leaves = [*judged_leaves(memory, tool, arguments)]
    candidates = [
        (kind, value)
        for _, kind, value in all_leaves
        if kind in _SLOTS and of_value(memory, kind, value) in (RECORD, KNOWN)
    ]
    return _have_substitute(memory, all_leaves, candidates)


def _have_substitute(memory: Memory, all_leaves: Iterable[Judged], candidates: Iterable[tuple[Kind, object]]) -> bool:
    for kind, value in candidates:
        things: list[str] = []
        if kind is AMOUNT:
            things = [text for _, one, thing in all_leaves if one in POINTS for text in leaves(thing)]
        for text in leaves(value):
            if any(is_substitute(memory, kind, one, things) for one in (text, *_parts(kind, text))):
                return True
    return False


def judged_leaves(memory: Memory | None, tool: Tool, arguments: Mapping[str, Any]) -> Iterator[Judged]:
    """Yield the leaves of a call whose origin matters, each with the kind as which it is judged.

    A malformed time is text, and any other unreadable value identifies an object. The form of a value says its kind
    (`value_kinds`) where nothing claims it, and where `text` or `time` is a proposal that no owner has confirmed;
    without a memory, such a value is never text.
    """
    is_proposed = tool.is_proposed
    for path, rule, kind, value, is_name in tool.coverage.leaves(arguments):
        if value is UNREADABLE:
            kind = OBJECT
        elif type(value) is str and not is_name and (rule is UNCLAIMED or (is_proposed and kind in (TEXT, TIME))):
            yield from _judged_by_form(memory, tool, path, kind, value)
            continue
        elif kind is TIME and isinstance(value, str) and not is_moment(value):
            kind = TEXT
        if kind is not None:
            yield path, kind, value


def _judged_by_form(memory: Memory | None, tool: Tool, path: str, kind: Kind | None, text: str) -> Iterator[Judged]:
    """Yield the judged values of an undeclared text. Prose that was neither stated nor read word for word is text, with
    the identifiers in it; for tools that pay, destroy or administer, only if the catalogue proposes `text`.
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


def _read_judged(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> Record:
    """Return the origins of a read in an open world that has no argument for an address. Each text with a link or a
    host reveals its content to that host.
    """
    worst: dict[str, Origin] = {}
    for leaf in tool.coverage.leaves(arguments):
        if not _may_link(leaf):
            continue
        value_origin = _of_text(memory, leaf.value) if isinstance(leaf.value, str) else None
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
    """Return the origin of each argument in a context of `judge_origins`; empty without a context."""
    origins = {} if context is None else context.get("origin", {})
    return cast(dict[str, str], origins)


def list_foreign_links(memory: Memory, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the links and mail addresses in outgoing text that are neither the person's nor of their records, by
    argument, for the person who is asked: at most MAX_FOREIGN of each, cut to MAX_SHOWN characters.
    """
    by_path: dict[str, set[str]] = {}
    for path, kind, value in judged_leaves(memory, tool, arguments):
        if kind is TEXT and isinstance(value, str):
            listed = links(value[:MAX_TEXT])
            others = {one for one in listed if _best(memory, spellings(one), BIT[ADDRESS]) > RECORD}
            if others:
                by_path.setdefault(path, set()).update(others)
    return {path: [one[:MAX_SHOWN] for one in sorted(others)[:MAX_FOREIGN]] for path, others in by_path.items()}


def is_settled(context: Record) -> bool:
    """Return whether further knowledge cannot change the decision: all values were stated before the task began, and no
    text leaves (`labels`).
    """
    return "carries" not in context and _SETTLED.issuperset(origins_by_argument(context).values())


def of_value(memory: Memory, kind: Kind, value: object) -> Origin:
    """Return the origin of a value of that kind; of a list or an object, the least trusted origin."""
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
    """Yield the scalars inside, in order, as texts; an empty text for each value that cannot be judged."""
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
    """Return the origin of a number as a percentage, which is never the amount of a payment."""
    number = decimal(next(leaves(value), "")) if type(value) in (int, float, str) else None
    return NOWHERE if number is None else _best(memory, (f"{number}%",), BIT[AMOUNT])


def _of_leaf(memory: Memory, kind: Kind, text: str) -> Origin:
    if len(text) > MAX_TEXT:
        return NOWHERE
    bit = BIT[kind]
    if kind is AMOUNT:
        number = amount(text)
        return NOWHERE if number is None else _best(memory, (number, f"#{number}"), bit)
    if kind is TIME and (moment_words := moments(words(text, is_source=False))):
        return _of_moments(memory, moment_words, bit)
    if is_alone(text):
        return memory.find(hashed(memory.key, text.lower()), bit)
    best = _of_phrase(memory, text, bit)
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
        best = min(best, max(_of_phrase(memory, part, bit) for part in parts))
    return best


def _parts(kind: Kind, text: str) -> list[str]:
    """Return the values of a text that has several; of a name with a mail address, the address."""
    if _SINGLE.isdisjoint(text):
        return []
    parts = [part.strip() for part in text.replace(";", ",").replace("\n", ",").split(",") if part.strip()]
    if kind in (ADDRESS, PRINCIPAL):
        return [part if (named := _NAMED.fullmatch(part)) is None else named[1] for part in parts]
    return parts


def _is_all(arguments: Mapping[str, Any], value: object) -> bool:
    """Return whether a text is the only content of a call; switches and numbers beside it only
    configure the request.
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


def _of_moments(memory: Memory, moment_words: list[str], bit: int) -> Origin:
    """Return the origin of dates and times. A day without a year matches any year; midnight beside a date is no
    time.
    """
    dates = [one for one in moment_words if one.startswith("@")]
    times = [one for one in moment_words if one.startswith("~") and not (dates and one == "~00:00")]
    date_origins = [_best(memory, (one, f"@{one[-5:]}") if len(one) > 6 else (one,), bit) for one in dates]
    return (
        max([min(date_origins)] if date_origins else [], default=PERSON)
        if not times
        else max(*([min(date_origins)] if date_origins else []), *(_best(memory, (one,), bit) for one in times), PERSON)
    )


def _best(memory: Memory, spelled: Iterable[str], bit: int) -> Origin:
    """Return the most trusted origin of single words with the same meaning."""
    best = NOWHERE
    for word in spelled:
        origin = memory.find(hashed(memory.key, word), bit, least=best - 1)
        if origin < best:
            best = origin
            if best is PERSON:
                break
    return best


def _of_text(memory: Memory, value: object) -> Origin | None:
    """Return the origin of the least trusted link or mail address in outgoing text; None without one."""
    worst: Origin | None = None
    for count, text in enumerate((value,) if isinstance(value, str) else leaves(value)):
        if len(text) > MAX_TEXT or count > MAX_VALUES:
            return NOWHERE
        for one in links(text):
            origin = _best(memory, spellings(one), BIT[ADDRESS])
            if worst is None or origin > worst:
                worst = origin
                if worst is NOWHERE:
                    return worst
    return worst

"""From what words ask for to bounds, endorsed documents, caps and budgets, with a reason for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import replace

from ostiary.core.bounds import Condition, ToolDetail, render_details
from ostiary.core.bounds.details import MAX_ACTIONS, MAX_DETAILS
from ostiary.core.catalogue import Catalogue, Effect, Kind, Tool
from ostiary.core.draft import asked
from ostiary.core.errors import Invalid
from ostiary.core.intent import MAX_ENDORSED, Endorsed, Intent, parse_intent
from ostiary.core.language import (
    VERBS,
    kinship,
    nouns,
    parts,
    verbs_of,
)

MAX_COUNT = 1000
MAX_COUNTED = 64
"""tools of one limit"""
MAX_CALLS = 200
"""different ones, of the words' first"""
_WHOM = frozenset({Kind.ACCOUNT, Kind.ADDRESS, Kind.PRINCIPAL})
_NEVER = frozenset({Kind.SECRET, Kind.TEXT})


class Line(msgspec.Struct, frozen=True):
    """`what` is in the draft, or left out, and why."""

    verdict: str
    """`read`, `allowed`, `left out`, `cap`, `endorsed`"""
    what: str
    why: str


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What `ostiary task start --draft FILE` takes. Whatever is in it may be edited before."""

    intent: Intent
    bounds: tuple[ToolDetail, ...]
    budget: tuple[dict[str, Any], ...] = ()
    lines: tuple[Line, ...] = ()

    def render(self) -> dict[str, Any]:
        intent: dict[str, Any] = msgspec.to_builtins(self.intent)
        lines = [msgspec.to_builtins(line) for line in self.lines]
        return {"intent": intent, "bounds": render_details(self.bounds), "budget": list(self.budget), "lines": lines}


@dataclass(frozen=True, slots=True)
class _Offer:
    """A tool that the task could be given."""

    uri: str
    id: str
    tool: Tool
    about: frozenset[str]

    @property
    def does(self) -> str | None:
        return next(iter(verbs_of(parts(self.tool.name))), None)

    @property
    def effect(self) -> Effect:
        """What a person would call it: who fetches a page reads, though the asking goes out."""
        is_fetch = self.tool.effect is Effect.SEND and VERBS.get(self.does or "") == (Effect.READ,)
        return Effect.READ if is_fetch else self.tool.effect


def draft(
    words: str,
    catalogues: Sequence[tuple[str, Catalogue]],
    *,
    scopes: Iterable[str],
    bounds: Sequence[ToolDetail] = (),
    own: Mapping[str, str] | None = None,
    whom: bool = True,
) -> Draft:
    """For an agent with these scopes and bounds (none: whatever the scopes allow), and resources by their URI.

    `whom`: whether a document that the person named may say who is paid or written to. Whoever wrote it chooses then,
    so a policy that accepts drafts in a person's place does well to say no. Raises InvalidIntent, Invalid.
    """
    asks = parse_intent({"words": words, "own": dict(own or {})})  # bounded before anything is read
    granted = frozenset(scopes)
    offers = [
        _offer(uri, catalogue, tool)
        for uri, catalogue in catalogues
        for tool in catalogue.tools.values()
        if catalogue.scope(tool) in granted and (not bounds or any(one.covers(uri, tool.name) for one in bounds))
    ]
    lines: list[Line] = []
    called = _called(words, offers, lines)
    caps = _caps(words, called, lines)
    endorsed = _endorsed(words, offers, called, lines, whom=whom)
    free = [offer for offer in offers if offer.tool.effect is Effect.READ]
    details = tuple(_details([*free, *called], caps, bounds))
    if not details:
        raise Invalid("the agent has no tool for this", hint="ostiary agent allow NAME RESOURCE:CLASS")
    return Draft(
        intent=replace(asks, endorsed=endorsed),
        bounds=details,
        budget=tuple(_budget(words, called, caps, lines)),
        lines=tuple(lines),
    )


def _offer(uri: str, catalogue: Catalogue, tool: Tool) -> _Offer:
    named = parts(tool.name)
    arguments = tool.arguments.get("properties")
    said = [word for name in (arguments if isinstance(arguments, dict) else ()) for word in parts(name)]
    done = verbs_of(named)
    about = nouns(word for word in named if word not in done)
    return _Offer(uri, f"{catalogue.resource}/{tool.name}", tool, about or nouns(said))


def _called(words: str, offers: Sequence[_Offer], lines: list[Line]) -> list[_Offer]:
    """The effects that the words call for."""
    effects = [offer for offer in offers if offer.tool.effect is not Effect.READ]
    lines += [Line("read", offer.id, "reads stay free") for offer in offers if offer.tool.effect is Effect.READ]
    found: dict[str, str] = {}
    for call in islice(dict.fromkeys(asked.calls(words)), MAX_CALLS):
        able = [offer for offer in effects if offer.effect in _reach(call.effects) or offer.does == call.verb]
        for offer, things in _nearest(able, call):
            of = " ".join((f"`{call.verb}`", *sorted(offer.about & things)))
            found.setdefault(offer.id, f"the words call for it: {of}")
    if any(is_place for _, is_place in asked.documents(words)):
        for offer in effects:
            if offer.effect is Effect.READ:
                found.setdefault(offer.id, "the words name a place on the web")
    if asked.delegates(words):
        for offer in effects:
            if offer.tool.effect not in (Effect.ADMINISTER, Effect.DESTROY):
                found.setdefault(offer.id, "the words leave the doing to a document")
    for offer in effects:
        verdict = "allowed" if offer.id in found else "left out"
        lines.append(
            Line(verdict, offer.id, found.get(offer.id, "nothing in the words calls for it: it can be asked for"))
        )
    return [offer for offer in effects if offer.id in found]


def _nearest(able: Sequence[_Offer], call: asked.Call) -> Iterator[tuple[_Offer, frozenset[str]]]:
    """Those that are about the things of the clause, or else of the sentence, and those that are called like the verb;
    all of them where none is about any of it.
    """
    for things in (call.about, call.whole):
        kin = {offer.id: kinship(offer.about, things) for offer in able}
        if near := max(kin.values(), default=0):
            same = {offer.id for offer in able if offer.does == call.verb and offer.effect in call.effects}
            yield from ((offer, things) for offer in able if kin[offer.id] == near or offer.id in same)
            return
    yield from ((offer, call.about) for offer in able)


def _reach(effects: Iterable[Effect]) -> set[Effect]:
    """`write` is what a server calls a change that it says nothing more of."""
    return {*effects, *((Effect.WRITE,) if Effect.CHANGE in effects else ())}


def _caps(words: str, called: Sequence[_Offer], lines: list[Line]) -> dict[str, dict[str, Condition]]:
    """Conditions on amounts by the id of the tool: the lowest cap that is said."""
    most = min((cap.number for cap in asked.caps(words) if not cap.counted), default=None)
    found: dict[str, dict[str, Condition]] = {}
    for offer in called if most is not None else ():
        for path, kind in offer.tool.argument_kinds.items():
            if kind is Kind.AMOUNT and offer.tool.effect is Effect.PAY:
                found.setdefault(offer.id, {})[path] = Condition(max=f"{most:f}")
                lines.append(Line("cap", f"{offer.id} {path}", f"the words say at most {most:f}"))
    return found


def _budget(
    words: str, called: Sequence[_Offer], caps: Mapping[str, Mapping[str, Condition]], lines: list[Line]
) -> Iterator[dict[str, Any]]:
    """Sums under a cap, where the argument is one that budgets can count; and how many calls are said to be enough."""
    for offer in called:
        for path, condition in caps.get(offer.id, {}).items():
            if _is_counted(offer.tool, path):
                limit = {"kind": "amount", "limit": str(condition.max), "tools": [offer.id], "argument": path}
                lines.append(Line("cap", f"{offer.id} {path}", f"all together at most {condition.max}"))
                yield limit
    for cap in asked.caps(words):
        tools = [offer.id for offer in called if kinship(offer.about, cap.counted) or offer.does in cap.counted]
        if tools and 0 < cap.number <= MAX_COUNT and cap.number == int(cap.number):
            lines.append(Line("cap", " ".join(tools), f"the words say at most {cap.number}"))
            yield {"kind": "calls", "limit": int(cap.number), "tools": tools[:MAX_COUNTED]}
            return


def _is_counted(tool: Tool, path: str) -> bool:
    """A budget takes no fractions that are numbers: who sends them would be denied."""
    properties = tool.arguments.get("properties")
    schema = properties.get(path) if isinstance(properties, dict) else None
    return isinstance(schema, dict) and schema.get("type") in ("integer", "string")


def _endorsed(
    words: str, offers: Sequence[_Offer], called: Sequence[_Offer], lines: list[Line], *, whom: bool
) -> tuple[Endorsed, ...]:
    """Documents that the words name as where something stands, for what the allowed effects take of it. A page on the
    web is written by strangers: it never says whom.
    """
    doing = [offer.tool for offer in called if offer.effect is not Effect.READ]
    taken = {kind for tool in doing for kind in tool.argument_kinds.values()} - _NEVER
    found: dict[tuple[str, str], Endorsed] = {}
    for value, is_url in asked.documents(words):
        never = _WHOM if is_url or not whom else frozenset[Kind]()
        kinds = tuple(kind for kind in Kind if kind in taken - never)
        for offer in offers if kinds else ():
            if _opens(offer.tool, is_url=is_url) and len(found) < MAX_ENDORSED:
                if (offer.id, value) not in found:
                    warns = ", and whoever wrote it chooses to whom" if _WHOM & {*kinds} else ""
                    lines.append(Line("endorsed", f"{offer.id} {value}", f"the words name it{warns}"))
                found[offer.id, value] = Endorsed(offer.id, value, kinds)
    return tuple(found.values())


def _opens(tool: Tool, *, is_url: bool) -> bool:
    """Whether it returns what is in one document of that name."""
    wanted = Kind.ADDRESS if is_url else Kind.OBJECT
    reads = tool.effect is Effect.READ or (is_url and tool.effect is Effect.SEND and len(tool.argument_kinds) == 1)
    return reads and wanted in tool.argument_kinds.values()


def _details(
    offers: Sequence[_Offer], caps: Mapping[str, Mapping[str, Condition]], bounds: Sequence[ToolDetail]
) -> list[ToolDetail]:
    """As few as can be: capped tools alone, others by resource; each within one that was granted, where some were.

    Raises Invalid for more than bounds can say.
    """
    made: list[ToolDetail] = []
    for uri in dict.fromkeys(offer.uri for offer in offers):
        for granted in bounds or (ToolDetail(locations=(uri,)),):
            here = [offer for offer in offers if offer.uri == uri and granted.covers(uri, offer.tool.name)]
            plain = [offer.tool.name for offer in here if offer.id not in caps]
            rows = [tuple(plain[at : at + MAX_ACTIONS]) for at in range(0, len(plain), MAX_ACTIONS)]
            made += [replace(granted, locations=(uri,), actions=row) for row in rows]
            for offer in here:
                if offer.id in caps:
                    arguments = _both(granted.arguments, caps[offer.id])
                    made.append(replace(granted, locations=(uri,), actions=(offer.tool.name,), arguments=arguments))
    if len(made) > MAX_DETAILS:
        raise Invalid(f"the draft has more than {MAX_DETAILS} details", hint="give the agent fewer scopes")
    return made


def _both(granted: Mapping[str, Condition], caps: Mapping[str, Condition]) -> dict[str, Condition]:
    """What was granted, and no more than the caps where that is less."""
    found = {**caps, **granted}
    for path in granted.keys() & caps.keys():
        most, cap = granted[path].max, caps[path].max
        if most is None or Decimal(most) > Decimal(str(cap)):
            found[path] = replace(granted[path], max=cap)
    return found

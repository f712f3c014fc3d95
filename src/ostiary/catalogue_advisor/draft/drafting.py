"""Drafting of a plan, caps and endorsed documents from a person's words, with a reason for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import replace

from ostiary.authorization.arguments.shape import shape_of
from ostiary.authorization.bounds import ToolDetail, render_details
from ostiary.authorization.catalogue import RECIPIENTS, Catalogue, Effect, Kind, Tool
from ostiary.catalogue_advisor.draft import requests
from ostiary.catalogue_advisor.language import (
    THINGS,
    VERBS,
    kinship,
    nouns,
    parts,
    verbs_of,
)
from ostiary.provenance.intent import MAX_ENDORSED, MAX_PLANNED, Endorsed, Intent, Planned, parse_intent

MAX_CALLS = 200
"""maximum number of distinct requests in the words; later requests are ignored"""
_MEASURES = frozenset({Kind.AMOUNT, Kind.TIME})
_NEVER = frozenset({Kind.SECRET, Kind.TEXT})


class DraftLine(msgspec.Struct, frozen=True):
    """A line that explains a draft: a `verdict` on a `subject`, such as a tool or a document, with the reason."""

    verdict: str
    """`read`, `planned`, `not planned`, `cap`, `endorsed`"""
    subject: str = msgspec.field(name="what")
    why: str


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A draft for `ostiary task start --draft FILE`, which a person may edit first.

    `bounds` are the bounds that the caller gave. `budget` is empty, because words never deny a call: they only
    determine about which calls a person is asked.
    """

    intent: Intent
    bounds: tuple[ToolDetail, ...] = ()
    budget: tuple[dict[str, Any], ...] = ()
    lines: tuple[DraftLine, ...] = ()

    def render(self) -> dict[str, Any]:
        """Return the JSON value of the file."""
        intent: dict[str, Any] = msgspec.to_builtins(self.intent)
        lines = [msgspec.to_builtins(line) for line in self.lines]
        return {"intent": intent, "bounds": render_details(self.bounds), "budget": list(self.budget), "lines": lines}


@dataclass(frozen=True, slots=True)
class _Offer:
    """A tool within the agent's scopes and bounds, which the task could use."""

    uri: str
    id: str
    tool: Tool
    about: frozenset[str]

    @property
    def does(self) -> str | None:
        return next(iter(verbs_of(parts(self.tool.name))), None)

    @property
    def has_arguments(self) -> bool:
        """Return whether the schema of the tool lists an argument."""
        return bool(shape_of([self.tool.arguments], self.tool.arguments).names)

    @property
    def is_unclear(self) -> bool:
        """Return whether the effect of the tool is a guess: no owner has confirmed it, and the name states no verb."""
        return self.tool.is_proposed and self.tool.effect is Effect.CHANGE and self.does is None

    @property
    def effect(self) -> Effect:
        """Return the effect from a person's point of view: fetching a page is a read, although it sends a request. A
        tool that returns no content of third parties does not fetch (`report_incident`).
        """
        tool = self.tool
        is_fetch = tool.effect is Effect.SEND and tool.is_outside and VERBS.get(self.does or "") == (Effect.READ,)
        return Effect.READ if is_fetch else tool.effect

    @property
    def takes_content(self) -> bool:
        """Return whether the tool is a confirmed change with arguments that have no declared kind: the data that it
        changes, which a document of the person can state.
        """
        names = {path.partition(".")[0] for path in self.tool.argument_kinds}
        is_change = self.tool.effect is Effect.CHANGE and self.tool.confirmed is True
        return is_change and not names.issuperset(shape_of([self.tool.arguments], self.tool.arguments).names)


def draft(
    words: str,
    catalogues: Sequence[tuple[str, Catalogue]],
    *,
    scopes: Iterable[str],
    bounds: Sequence[ToolDetail] = (),
    own: Mapping[str, str] | None = None,
    may_name_recipient: bool = False,
) -> Draft:
    """Return a draft of the intent of a task for an agent with these scopes and bounds. `catalogues`: (URI of a
    resource, its catalogue).

    If the words match no tool, the plan is empty: a person is asked about every call with an effect, unless all values
    of the call come from the person. `may_name_recipient`: true if recipients may come from a document that the person
    named; the author of the document then chooses them. Raises InvalidIntent for an intent beyond a limit.
    """
    asks = parse_intent({"words": words, "own": dict(own or {})})  # check the size of the words before they are parsed
    offers = _offers(catalogues, scopes, bounds)
    lines: list[DraftLine] = []
    called = _called(words, offers, lines)
    plan = _plan(words, called, lines)
    endorsed = _endorsed(words, offers, called, lines, may_name_recipient=may_name_recipient)
    return Draft(intent=replace(asks, endorsed=endorsed, plan=plan), bounds=tuple(bounds), lines=tuple(lines))


def plan_of(
    words: str, catalogues: Sequence[tuple[str, Catalogue]], *, scopes: Iterable[str], bounds: Sequence[ToolDetail] = ()
) -> tuple[Planned, ...]:
    """Return the planned calls that the words suggest, within the scopes and bounds."""
    return _plan(words, _called(words, _offers(catalogues, scopes, bounds), []), [])


def _offers(
    catalogues: Sequence[tuple[str, Catalogue]], scopes: Iterable[str], bounds: Sequence[ToolDetail]
) -> list[_Offer]:
    granted = frozenset(scopes)
    return [
        _offer(uri, catalogue, tool)
        for uri, catalogue in catalogues
        for tool in catalogue.tools.values()
        if catalogue.scope(tool) in granted and (not bounds or any(one.covers(uri, tool.name) for one in bounds))
    ]


def _offer(uri: str, catalogue: Catalogue, tool: Tool) -> _Offer:
    named = parts(tool.name)
    arguments = tool.arguments.get("properties")
    argument_words = [word for name in (arguments if isinstance(arguments, dict) else ()) for word in parts(name)]
    done = verbs_of(named)
    about = nouns(word for at, word in enumerate(named) if word not in done or (at and word in THINGS))
    return _Offer(uri, f"{catalogue.resource}/{tool.name}", tool, about or nouns(argument_words))


def _called(words: str, offers: Sequence[_Offer], lines: list[DraftLine]) -> list[_Offer]:
    """Return the tools with an effect that the words suggest, and add a line for each tool to `lines`."""
    effects = [offer for offer in offers if offer.tool.effect is not Effect.READ]
    lines += [
        DraftLine("read", offer.id, "reads need no approval") for offer in offers if offer.tool.effect is Effect.READ
    ]
    reasons: dict[str, str] = {}
    for call in islice(dict.fromkeys(requests.calls(words)), MAX_CALLS):
        able = [offer for offer in effects if offer.effect in _reach(call.effects) or offer.does == call.verb]
        for offer, things in _nearest(able, call):
            of = " ".join((f"`{call.verb}`", *sorted(offer.about & things)))
            reasons.setdefault(offer.id, f"suggested by the words {of}")
    if any(is_place for _, is_place in requests.documents(words)):
        for offer in effects:
            if offer.effect is Effect.READ:
                reasons.setdefault(offer.id, "the words name a web page")
    if requests.delegates(words):
        for offer in effects:
            if offer.tool.effect not in (Effect.ADMINISTER, Effect.DESTROY):
                reasons.setdefault(offer.id, "the words refer to instructions in a document")
    for offer in effects:
        if offer.id in reasons:
            lines.append(DraftLine("planned", offer.id, reasons[offer.id]))
        else:
            why = "no words suggest this call: a person is asked, unless all its values come from the person"
            lines.append(DraftLine("not planned", offer.id, why))
    return [offer for offer in effects if offer.id in reasons]


def _nearest(able: Sequence[_Offer], call: requests.Call) -> Iterator[tuple[_Offer, frozenset[str]]]:
    """Yield the tools that match a request best, each with the nouns that matched: tools about the nouns in the clause
    of the request, or else about the nouns in its sentence; and tools whose names contain its verb. If no tool is about
    these nouns, yield all tools; a tool with arguments whose effect is a guess only if the effects of all are guesses.
    """
    for things in (call.about, call.whole):
        kin = {offer.id: kinship(offer.about, things) for offer in able}
        if near := max(kin.values(), default=0):
            same = {offer.id for offer in able if offer.does == call.verb and offer.effect in call.effects}
            yield from ((offer, things) for offer in able if kin[offer.id] == near or offer.id in same)
            return
    if not all(offer.is_unclear for offer in able):
        # A tool without arguments usually reads ("my balance").
        able = [offer for offer in able if not (offer.is_unclear and offer.has_arguments)]
    yield from ((offer, call.about) for offer in able)


def _reach(effects: Iterable[Effect]) -> set[Effect]:
    """Return the effects, with `write` if `change` is among them: servers also use `write` for changes of
    unknown kind.
    """
    return {*effects, *((Effect.WRITE,) if Effect.CHANGE in effects else ())}


def _plan(words: str, called: Sequence[_Offer], lines: list[DraftLine]) -> tuple[Planned, ...]:
    """Return the plan. If the words state amounts, the lowest amount is the cap of each tool that takes an amount."""
    lowest = min((cap.number for cap in requests.caps(words) if not cap.counted), default=None)
    plan: list[Planned] = []
    for offer in called[:MAX_PLANNED]:
        is_capped = lowest is not None and Kind.AMOUNT in offer.tool.argument_kinds.values()
        if is_capped:
            lines.append(
                DraftLine(
                    "cap", f"{offer.id} amount", f"the words say at most {lowest:f}: a person is asked about more"
                )
            )
        plan.append(Planned(offer.id, f"{lowest:f}" if is_capped else ""))
    return tuple(plan)


def _endorsed(
    words: str, offers: Sequence[_Offer], called: Sequence[_Offer], lines: list[DraftLine], *, may_name_recipient: bool
) -> tuple[Endorsed, ...]:
    """Return the documents that the words name as a source, with the kinds of values that each may supply: the
    kinds that the planned calls take, and amounts and times for calls outside the plan. A web page, which third
    parties write, never supplies recipients.
    """
    doing = [offer.tool for offer in called if offer.effect is not Effect.READ]
    needed_kinds = {kind for tool in doing for kind in tool.argument_kinds.values()} - _NEVER
    needed_kinds |= {Kind.OBJECT for offer in called if offer.takes_content}
    needed_kinds |= {
        kind
        for offer in offers
        if offer.effect is not Effect.READ
        for kind in _MEASURES.intersection(offer.tool.argument_kinds.values())
    }
    by_document: dict[tuple[str, str], Endorsed] = {}
    for value, is_url in requests.documents(words):
        never = RECIPIENTS if is_url or not may_name_recipient else frozenset[Kind]()
        kinds = tuple(kind for kind in Kind if kind in needed_kinds - never)
        for offer in offers if kinds else ():
            if _opens(offer.tool, is_url=is_url) and len(by_document) < MAX_ENDORSED:
                if (offer.id, value) not in by_document:
                    warns = ", and the author of the document chooses the recipients" if RECIPIENTS & {*kinds} else ""
                    lines.append(DraftLine("endorsed", f"{offer.id} {value}", f"the words name this document{warns}"))
                by_document[offer.id, value] = Endorsed(offer.id, value, kinds)
    return tuple(by_document.values())


def _opens(tool: Tool, *, is_url: bool) -> bool:
    """Return whether the tool returns the content of a document that an argument names."""
    kind = Kind.ADDRESS if is_url else Kind.OBJECT
    reads = tool.effect is Effect.READ or (is_url and tool.effect is Effect.SEND and len(tool.argument_kinds) == 1)
    return reads and kind in tool.argument_kinds.values()

"""Suggestion of scopes and bounds from calls. See the package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from ostiary.authorization.bounds import Condition, ToolDetail
from ostiary.authorization.bounds.details import MAX_ARGUMENTS, MAX_DETAILS
from ostiary.authorization.catalogue import Catalogue, Effect
from ostiary.catalogue_advisor.suggest.conditions import infer
from ostiary.protocol.errors import Invalid

GRAVE = frozenset({Effect.DESTROY, Effect.PAY, Effect.ADMINISTER})
LASTING = frozenset({"bad_arguments", "forbidden_by_policy", "no_permit", "policy_error"})
"""Reasons that no scope and no bound takes away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One call that happened, as its entry tells. `uri`: its resource's identifier. `codes`: why it would be denied."""

    index: int
    uri: str
    tool: str
    arguments: Mapping[str, Any] | None
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that is suggested, or is not, and what it rests on."""

    what: Literal["scope", "tool", "argument", "left out"]
    subject: str
    says: str
    calls: int
    example: int
    """an entry of the ledger"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    scopes: tuple[str, ...]
    bounds: tuple[ToolDetail, ...]
    tools: tuple[tuple[str, str], ...]
    """URI and name of each tool that was seen and may be had"""
    lines: tuple[Line, ...]


def counted(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls} calls"


def seen_call(entry: Mapping[str, Any]) -> Seen | None:
    """Return the call that an entry records; None for an entry without a call."""
    if entry["action"] not in ("tool.call", "tool.undecided") or entry["outcome"] != "allow":
        return None
    codes = tuple(reason["code"] for reason in entry.get("reasons", ()))
    name = str(entry["tool"]).partition("/")[2]
    return Seen(index=entry["index"], uri=entry["resource"], tool=name, arguments=entry.get("arguments"), codes=codes)


def suggest(calls: Iterable[Seen], catalogues: Mapping[str, Catalogue]) -> Suggestion:
    """`catalogues` by the URI of their resource. Raises Invalid for more than bounds can say."""
    lines, details = list[Line](), list[tuple[int, ToolDetail]]()
    tools, scopes = list[tuple[str, str]](), dict[str, list[Seen]]()
    ordered = sorted(calls, key=lambda call: (call.uri, call.tool, call.index))
    for (uri, name), group in groupby(ordered, key=lambda call: (call.uri, call.tool)):
        some = list(group)
        catalogue = catalogues.get(uri)
        tool = catalogue.tools.get(name) if catalogue is not None else None
        subject = f"{catalogue.resource if catalogue is not None else uri}/{name}"
        lasting = [call for call in some if LASTING & set(call.codes)]
        if catalogue is None or tool is None:
            lines.append(_line("left out", subject, "is not in the catalogue of its server", some))
            continue
        if lasting:
            codes = ", ".join(sorted({code for call in lasting for code in call.codes} & LASTING))
            lines.append(_line("left out", subject, f"would be denied whatever its scopes: {codes}", lasting))
            some = [call for call in some if call not in lasting]
        if not some:
            continue
        scopes.setdefault(catalogue.scope(tool), []).extend(some)
        tools.append((uri, name))
        effect = f"{tool.effect} (destructive: review)" if tool.effect in GRAVE else str(tool.effect)
        lines.append(_line("tool", subject, f"does: {effect}", some))
        conditions = _conditions(subject, some, lines)
        details.append((len(some), ToolDetail(locations=(uri,), actions=(name,), arguments=conditions)))
    granted = [_line("scope", scope, "is what these tools need", scopes[scope]) for scope in sorted(scopes)]
    bounds = _fit(details, lines)
    return Suggestion(scopes=tuple(sorted(scopes)), bounds=bounds, tools=tuple(tools), lines=(*granted, *lines))


def _conditions(subject: str, calls: Sequence[Seen], lines: list[Line]) -> dict[str, Condition]:
    """On each argument that every call has; one that a call may leave out cannot be bounded, since bounds demand it."""
    if any(call.arguments is None for call in calls):
        lines.append(_line("left out", subject, "has calls whose arguments are not recorded", calls))
        return {}
    found = dict[str, Condition]()
    for path in sorted({path for call in calls for path in call.arguments or ()}):
        having = [call for call in calls if path in (call.arguments or ())]
        if len(having) < len(calls):
            says = f"is in {len(having)} of {len(calls)} calls only, so that a bound would refuse the others"
            lines.append(_line("left out", f"{subject} {path}", says, having))
            continue
        condition, why = infer([(call.arguments or {})[path] for call in having])
        if condition is None or len(found) == MAX_ARGUMENTS:
            lines.append(_line("left out", f"{subject} {path}", why, having))
        else:
            found[path] = condition
            lines.append(_line("argument", f"{subject} {path}", why, having))
    return found


def _fit(details: Sequence[tuple[int, ToolDetail]], lines: list[Line]) -> tuple[ToolDetail, ...]:
    """In as many details as bounds may have: tools without conditions share one, then those that were called least."""
    bare = [detail for _, detail in details if not detail.arguments]
    rest = sorted((entry for entry in details if entry[1].arguments), key=lambda entry: (-entry[0], str(entry[1])))
    while len(_merge(bare)) + len(rest) > MAX_DETAILS:
        if not rest:
            raise Invalid(f"these calls went to more than {MAX_DETAILS} servers", hint="shorten the time with --since")
        _, detail = rest.pop()
        bare.append(detail)
        says = f"is bounded by its name alone: bounds have {MAX_DETAILS} parts at most"
        lines.append(Line(what="left out", subject=(detail.actions or ("",))[0], says=says, calls=0, example=0))
    conditioned = sorted((detail for _, detail in rest), key=lambda detail: (detail.locations, detail.actions or ()))
    return (*conditioned, *_merge(bare))


def _merge(bare: Sequence[ToolDetail]) -> list[ToolDetail]:
    names = dict[str, set[str]]()
    for detail in bare:
        names.setdefault(detail.locations[0], set()).update(detail.actions or ())
    return [ToolDetail(locations=(uri,), actions=tuple(sorted(names[uri]))) for uri in sorted(names)]


def _line(
    what: Literal["scope", "tool", "argument", "left out"], subject: str, says: str, calls: Sequence[Seen]
) -> Line:
    return Line(what=what, subject=subject, says=says, calls=len(calls), example=min(call.index for call in calls))

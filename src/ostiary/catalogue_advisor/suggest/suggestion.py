"""Suggestion of scopes and bounds from recorded calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from ostiary.authorization.bounds import Condition, ToolDetail
from ostiary.authorization.bounds.details import MAX_ARGUMENTS, MAX_DETAILS
from ostiary.authorization.catalogue import GRAVE, Catalogue
from ostiary.catalogue_advisor.suggest.conditions import infer
from ostiary.protocol.errors import Invalid

LASTING = frozenset({"bad_arguments", "forbidden_by_policy", "no_permit", "policy_error"})
"""Reasons for a denial that no additional scope and no wider bound removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """A call that passed, as the ledger recorded it. `index`: the index of the entry. `uri`: the identifier of the
    resource. `arguments`: a summary by dotted path; None if none was recorded. `codes`: the reasons for which
    enforcement would deny the call.
    """

    index: int
    uri: str
    tool: str
    arguments: Mapping[str, Any] | None
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionLine:
    """A line of the suggestion, or access that the suggestion leaves out, with the calls that support the line."""

    kind: Literal["scope", "tool", "argument", "left out"]
    subject: str
    says: str
    calls: int
    example: int
    """index of a ledger entry with such a call"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    scopes: tuple[str, ...]
    bounds: tuple[ToolDetail, ...]
    tools: tuple[tuple[str, str], ...]
    """URI and name of each called tool to which a scope can give access"""
    lines: tuple[SuggestionLine, ...]


def count_in_words(calls: int) -> str:
    """Return a number of calls as text: `1 call`, `3 calls`."""
    return "1 call" if calls == 1 else f"{calls} calls"


def recorded_call(entry: Mapping[str, Any]) -> RecordedCall | None:
    """Return the call in a ledger entry about a call that passed; None for any other entry, such as that of a denied
    call.
    """
    if entry["action"] not in ("tool.call", "tool.undecided") or entry["outcome"] != "allow":
        return None
    codes = tuple(reason["code"] for reason in entry.get("reasons", ()))
    name = str(entry["tool"]).partition("/")[2]
    return RecordedCall(
        index=entry["index"], uri=entry["resource"], tool=name, arguments=entry.get("arguments"), codes=codes
    )


def suggest(calls: Iterable[RecordedCall], catalogues: Mapping[str, Catalogue]) -> Suggestion:
    """Return the scopes and bounds that the recorded calls need. `catalogues` maps the URI of a resource to its
    catalogue. Raises Invalid if the calls went to more servers than bounds can contain.
    """
    lines, details = list[SuggestionLine](), list[tuple[int, ToolDetail]]()
    tools, scopes = list[tuple[str, str]](), dict[str, list[RecordedCall]]()
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


def _conditions(subject: str, calls: Sequence[RecordedCall], lines: list[SuggestionLine]) -> dict[str, Condition]:
    """Return a condition for each argument that is present in every call. An optional argument gets no
    condition, since bounds require each argument that they name.
    """
    if any(call.arguments is None for call in calls):
        lines.append(_line("left out", subject, "has calls whose arguments are not recorded", calls))
        return {}
    conditions = dict[str, Condition]()
    for path in sorted({path for call in calls for path in call.arguments or ()}):
        having = [call for call in calls if path in (call.arguments or ())]
        if len(having) < len(calls):
            says = f"is in only {len(having)} of {len(calls)} calls, so a bound would deny the other calls"
            lines.append(_line("left out", f"{subject} {path}", says, having))
            continue
        condition, why = infer([(call.arguments or {})[path] for call in having])
        if condition is None or len(conditions) == MAX_ARGUMENTS:
            lines.append(_line("left out", f"{subject} {path}", why, having))
        else:
            conditions[path] = condition
            lines.append(_line("argument", f"{subject} {path}", why, having))
    return conditions


def _fit(details: Sequence[tuple[int, ToolDetail]], lines: list[SuggestionLine]) -> tuple[ToolDetail, ...]:
    """Return the bounds with at most the permitted number of details (`authorization_details`). Tools without
    conditions share one detail per server. If there are still too many details, the tools with the fewest calls lose
    their conditions. Raises Invalid if the calls went to too many resources.
    """
    bare = [detail for _, detail in details if not detail.arguments]
    rest = sorted((entry for entry in details if entry[1].arguments), key=lambda entry: (-entry[0], str(entry[1])))
    while len(_merge(bare)) + len(rest) > MAX_DETAILS:
        if not rest:
            raise Invalid(
                f"these calls went to more than {MAX_DETAILS} resources, the most that bounds may name",
                hint="choose a later start with --since",
            )
        _, detail = rest.pop()
        bare.append(detail)
        says = f"is bounded by its name alone: bounds have {MAX_DETAILS} parts at most"
        lines.append(
            SuggestionLine(kind="left out", subject=(detail.actions or ("",))[0], says=says, calls=0, example=0)
        )
    conditioned = sorted((detail for _, detail in rest), key=lambda detail: (detail.locations, detail.actions or ()))
    return (*conditioned, *_merge(bare))


def _merge(bare: Sequence[ToolDetail]) -> list[ToolDetail]:
    names = dict[str, set[str]]()
    for detail in bare:
        names.setdefault(detail.locations[0], set()).update(detail.actions or ())
    return [ToolDetail(locations=(uri,), actions=tuple(sorted(names[uri]))) for uri in sorted(names)]


def _line(
    kind: Literal["scope", "tool", "argument", "left out"], subject: str, says: str, calls: Sequence[RecordedCall]
) -> SuggestionLine:
    return SuggestionLine(
        kind=kind, subject=subject, says=says, calls=len(calls), example=min(call.index for call in calls)
    )

"""`ostiary enforce`: switch resources between watch mode and enforcement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from ostiary import ambient
from ostiary.authorization.bounds import ToolDetail, explain, parse_details
from ostiary.catalogue_advisor.suggest import count_in_words, recorded_call
from ostiary.cli.files import read_json
from ostiary.cli.names import Names
from ostiary.cli.output import out, progress
from ostiary.cli.recorded_calls import Resource, entries, resource
from ostiary.cli.session import PAGE, Here, Session, decoded
from ostiary.cli.spans import parse_time
from ostiary.cli.usage import Usage
from ostiary.protocol import canonical
from ostiary.protocol.errors import Refused
from ostiary.run.enlist import is_own

MAX_ASKED = 10_000
"""Maximum number of different recorded calls that are evaluated again. If there are more, the newest are evaluated."""
BATCH = 500
MAX_STAND_IN = 1000
WITHOUT_ARGUMENTS = frozenset({"agent_not_active", "narrowed", "outside_task", "stopped", "throttled", "unknown_tool"})
"""Reasons for a denial by the decision point that do not depend on the arguments of the call."""


def enforce(
    name: str,
    /,
    *,
    since: str = "24h",
    bounds: Path | None = None,
    yes: bool = False,
    off: bool = False,
    session: Here,
) -> None:
    """Switch between watch mode and enforcement.

    The command works on a resource, or on all resources that `ostiary run` registered for an agent. First it shows the
    recorded calls that the present scopes and policies would deny. If you then confirm, each resource is enforced, and
    its catalogue counts as confirmed if it was only proposed.

    Args:
        name: Name or id of a resource or an agent.
        since: Start of the period: a span before now (90s, 15m, 24h, 7d) or a time.
        bounds: JSON file of the bounds with which the agent will run; recorded calls are compared with them too.
        yes: Enforce without a question.
        off: Switch to watch mode: allow every call, and record it.
    """
    targets = _targets(session, name)
    if off:
        changed = [_set_mode(session, target, "watch") for target in targets]
        session.show({"resources": changed}, lambda value: _print_modes(value["resources"]))
        return
    details = () if bounds is None else parse_details(read_json(bounds))
    report = _judge(session, targets, since=parse_time(since, now=ambient.now()), details=details)
    if not session.as_json:
        _print(report, targets, Names(session))
    if not yes:
        session.confirm("enforce?", change="calls would be denied")
    changed = [_enforce(session, target) for target in targets]
    session.show({"resources": changed, **report.value()}, lambda value: _print_modes(value["resources"]))


def _targets(session: Session, name: str) -> list[Resource]:
    """Return the resources for `name`: one resource, or those of an agent. Raises Usage for a name that is
    unknown or ambiguous.
    """
    candidates = _find(session, f"/resources/{name}"), _find(session, f"/agents/{name}")
    match candidates:
        case None, None:
            raise Usage(
                f"no resource and no agent is called `{name}`",
                hint="list the names: ostiary resource list, ostiary agent list",
            )
        case dict(), None:
            return [resource(session, name)]
        case None, dict() as agent:
            listed = session.pages("/resources", "resources", limit=100 * PAGE)
            own = [resource(session, one["name"]) for one in listed if is_own(one["uri"], agent["name"])]
            if not own:
                raise Usage(
                    f"`ostiary run` has registered no resource for the agent `{agent['name']}`",
                    hint="name a resource, or: ostiary run -- COMMAND",
                )
            return own
        case _:
            raise Usage(
                f"`{name}` is the name of a resource and of an agent", hint="give the id instead: rs_.. or ag_.."
            )


def _find(session: Session, path: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = session.api("GET", path)
    except Refused as refusal:
        if refusal.code != "not_found":
            raise
        return None
    return value


@dataclass(frozen=True, slots=True)
class _Call:
    """A group of equal recorded calls: the same agent, tool and recorded arguments."""

    agent: str
    target: Resource
    tool: str
    arguments: Mapping[str, Any]
    example: int
    count: int

    @property
    def is_whole(self) -> bool:
        """Return whether the value of every argument was recorded, so that the present policies give this call a
        certain verdict.
        """
        return not any(isinstance(value, dict) for value in self.arguments.values())


@dataclass(slots=True)
class _Report:
    """The result of the evaluation: calls that would be allowed, calls that would be denied, and calls whose
    verdict depends on values that were not recorded.
    """

    calls: int = 0
    allowed: int = 0
    denied: list[tuple[_Call, str]] = field(default_factory=list)
    unclear: list[tuple[_Call, str]] = field(default_factory=list)

    def value(self) -> dict[str, Any]:
        """Return the report as JSON."""

        def rows(calls: Sequence[tuple[_Call, str]]) -> list[dict[str, Any]]:
            return [
                {
                    "agent": call.agent,
                    "tool": f"{call.target.name}/{call.tool}",
                    "calls": call.count,
                    "why": why,
                    "example": call.example,
                }
                for call, why in calls
            ]

        return {
            "calls": self.calls,
            "allowed": self.allowed,
            "denied": rows(self.denied),
            "unclear": rows(self.unclear),
        }


def _judge(session: Session, targets: Sequence[Resource], *, since: int, details: tuple[ToolDetail, ...]) -> _Report:
    """Evaluate each different call again, and return the report. This function checks the bounds; the server checks
    scopes and policies.
    """
    report = _Report()
    for call, answer in _answers(session, _different(session, targets, since)):
        report.calls += call.count
        why = _outside(call, details) or _reason(answer)
        if not why:
            report.allowed += call.count
        elif call.is_whole or not _rests_on_arguments(answer, details):
            report.denied.append((call, why))
        else:
            report.unclear.append((call, why))
    return report


def _different(session: Session, targets: Sequence[Resource], since: int) -> list[_Call]:
    counts = dict[tuple[str, str, str, str], list[Any]]()
    for target in targets:
        for entry in entries(session, since=since, resource=target.uri):
            call, agent = recorded_call(entry), entry.get("agent")
            if call is None or agent is None:
                continue
            arguments = call.arguments or {}
            key = agent, target.name, call.tool, canonical.digest(dict(arguments), floats=True)
            counts.setdefault(key, [target, arguments, call.index, 0])[3] += 1
    calls = [_Call(key[0], target, key[2], *rest) for key, (target, *rest) in counts.items()]
    return sorted(calls, key=lambda call: -call.example)[:MAX_ASKED]


def _answers(session: Session, calls: Sequence[_Call]) -> Iterator[tuple[_Call, dict[str, Any]]]:
    with progress() as shown:
        bar = shown.add_task("evaluating", total=len(calls))
        for start in range(0, len(calls), BATCH):
            batch = calls[start : start + BATCH]
            body = {"action": {"name": "call"}, "evaluations": [_question(call) for call in batch]}
            answers = decoded(session.request("POST", "/access/v1/evaluations", body))["evaluations"]
            yield from zip(batch, answers, strict=True)
            shown.update(bar, advance=len(batch))


def _question(call: _Call) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": call.agent},
        "resource": {"type": "tool", "id": f"{call.target.name}/{call.tool}"},
        "context": {"arguments": _nested(call.arguments)},
    }


def _nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded arguments, whose keys are paths such as `to.name`, as nested objects. A text of the same
    length takes the place of a text that was not recorded.
    """
    whole: dict[str, Any] = {}
    for path, value in arguments.items():
        match value:
            case {"type": "string", "length": int() as length}:
                value = "x" * min(length, MAX_STAND_IN)
            case {"type": "array"}:
                value = []
            case dict():
                continue
        *before, last = path.split(".")
        inner = whole
        for name in before:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return whole


def _outside(call: _Call, details: tuple[ToolDetail, ...]) -> str:
    """Return why the bounds do not allow the call; an empty text if the bounds allow the call, or without bounds."""
    if not details:
        return ""
    catalogue, arguments = call.target.catalogue, _nested(call.arguments)
    tool = None if catalogue is None else catalogue.tools.get(call.tool)
    classes = frozenset[str]() if catalogue is None or tool is None else catalogue.classes(tool)
    return explain(details, resource_uri=call.target.uri, tool=call.tool, arguments=arguments, classes=classes)


def _reason(answer: Mapping[str, Any]) -> str:
    """Return why enforcement would deny the call; an empty text if it would not.

    A resource in watch mode allows a call that its rules deny: the decision is an allow with the reasons of the deny.
    """
    reasons: Iterable[Mapping[str, Any]] = answer.get("context", {}).get("reasons", ())
    why = "; ".join(str(reason["message"]) for reason in reasons)
    return why or ("" if answer["decision"] else "denied")


def _rests_on_arguments(answer: Mapping[str, Any], details: tuple[ToolDetail, ...]) -> bool:
    """Return whether values that were not recorded could change the verdict."""
    codes = {reason["code"] for reason in answer.get("context", {}).get("reasons", ())}
    return bool(details) or not codes <= WITHOUT_ARGUMENTS


def _enforce(session: Session, target: Resource) -> dict[str, Any]:
    if target.facts["catalogue_proposed"] and target.catalogue is not None:
        session.api("PUT", f"/resources/{target.name}/catalogue", {"catalogue": target.catalogue.render()})
    return _set_mode(session, target, "enforce")


def _set_mode(session: Session, target: Resource, mode: str) -> dict[str, Any]:
    changed: dict[str, Any] = session.api("PUT", f"/resources/{target.name}/mode", {"mode": mode})
    return changed


def _print(report: _Report, targets: Sequence[Resource], names: Names) -> None:
    for target in targets:
        if target.facts["catalogue_proposed"] and target.catalogue is not None:
            out.print(f"unconfirmed catalogue that `{target.name}` proposed:", markup=False)
            for name, tool in sorted(target.catalogue.tools.items()):
                out.print(f"  {name}: {tool.effect}, needs {target.catalogue.scope(tool)}", markup=False)
    for heading, calls in (("would be denied", report.denied), ("not known", report.unclear)):
        for call, why in calls:
            evidence = f"{count_in_words(call.count)}, e.g. entry {call.example}"
            described = f"{names(call.agent)} {call.target.name}/{call.tool}: {evidence}"
            out.print(f"[yellow]{heading}[/] {escape(described)}: {escape(why)}")
    out.print(f"{report.allowed} of {report.calls} calls would be allowed")


def _print_modes(changed: Sequence[Mapping[str, Any]]) -> None:
    for one in changed:
        out.print(f"`{one['name']}` is in mode {one['mode']}", markup=False)

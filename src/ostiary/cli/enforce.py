"""`ostiary enforce`: whether what is decided is carried out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.authorization.bounds import ToolDetail, explain, parse_details
from ostiary.catalogue_advisor.suggest import counted, seen_call
from ostiary.cli.files import read_json
from ostiary.cli.names import Names
from ostiary.cli.paper import out
from ostiary.cli.seen import Resource, entries, resource
from ostiary.cli.session import PAGE, Here, Session, Usage, decoded
from ostiary.cli.spans import parse_time
from ostiary.protocol import canonical
from ostiary.run.enlist import stdio_uri

MAX_ASKED = 10_000
"""Different calls that are judged again: the newest."""
BATCH = 500
MAX_STAND_IN = 1000


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

    For one resource, or for all stdio servers of an agent. First says what would be denied of the calls that were
    seen, as scopes and policies are now. A catalogue that the server proposed of itself counts as confirmed by whoever
    says yes.

    Args:
        name: Name or id of a resource or an agent.
        since: How far to look back: a span (90s, 15m, 24h, 7d) or a time.
        bounds: JSON file of the bounds with which the agent will run, to be judged as well.
        yes: Do not ask.
        off: Let every call through again, and go on recording.
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
        _ask(session)
    changed = [_enforce(session, target) for target in targets]
    session.show({"resources": changed, **report.value()}, lambda value: _print_modes(value["resources"]))


def _targets(session: Session, name: str) -> list[Resource]:
    """Raises Usage for a name that is of both or of nothing."""
    found = _find(session, f"/resources/{name}"), _find(session, f"/agents/{name}")
    match found:
        case None, None:
            raise Usage(f"there is no resource and no agent `{name}`")
        case dict(), None:
            return [resource(session, name)]
        case None, dict() as agent:
            uri = stdio_uri(agent["name"])
            listed = session.pages("/resources", "resources", limit=100 * PAGE)
            own = [resource(session, one["name"]) for one in listed if one["uri"].startswith(uri)]
            if not own:
                raise Usage(
                    f"`{agent['name']}` has no stdio server", hint="name a resource, or: ostiary run -- COMMAND"
                )
            return own
        case _:
            raise Usage(f"`{name}` is a resource and an agent", hint="give the id: rs_.. or ag_..")


def _find(session: Session, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = session.api("GET", path)
    except ServerRefused as refusal:
        if refusal.code != "not_found":
            raise
        return None
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls that are the same: agent, tool, arguments as far as they are known."""

    agent: str
    target: Resource
    tool: str
    arguments: Mapping[str, Any]
    example: int
    count: int

    @property
    def is_whole(self) -> bool:
        """Return whether every argument is known."""
        return not any(isinstance(value, dict) for value in self.arguments.values())


@dataclass(slots=True)
class _Report:
    calls: int = 0
    allowed: int = 0
    denied: list[tuple[_Call, str]] = field(default_factory=list)
    unclear: list[tuple[_Call, str]] = field(default_factory=list)

    def value(self) -> dict[str, Any]:
        def rows(found: Sequence[tuple[_Call, str]]) -> list[dict[str, Any]]:
            return [
                {"agent": call.agent, "tool": f"{call.target.name}/{call.tool}", "calls": call.count, "why": why,
                 "example": call.example} for call, why in found
            ]  # fmt: skip

        return {
            "calls": self.calls, "allowed": self.allowed, "denied": rows(self.denied), "unclear": rows(self.unclear),
        }  # fmt: skip


def _judge(session: Session, targets: Sequence[Resource], *, since: int, details: tuple[ToolDetail, ...]) -> _Report:
    """Each different call once more: by the bounds here, by scopes and policies at the decision point."""
    report = _Report()
    for call, answer in _answers(session, _different(session, targets, since)):
        report.calls += call.count
        why = _outside(call, details) or ("" if answer["decision"] else _reason(answer))
        if not why:
            report.allowed += call.count
        elif call.is_whole or not _rests_on_arguments(answer, details):
            report.denied.append((call, why))
        else:
            report.unclear.append((call, why))
    return report


def _different(session: Session, targets: Sequence[Resource], since: int) -> list[_Call]:
    counted = dict[tuple[str, str, str, str], list[Any]]()
    for target in targets:
        for entry in entries(session, since=since, resource=target.uri):
            call, agent = seen_call(entry), entry.get("agent")
            if call is None or agent is None:
                continue
            arguments = call.arguments or {}
            key = agent, target.name, call.tool, canonical.digest(dict(arguments), floats=True)
            counted.setdefault(key, [target, arguments, call.index, 0])[3] += 1
    calls = [_Call(key[0], target, key[2], *rest) for key, (target, *rest) in counted.items()]
    return sorted(calls, key=lambda call: -call.example)[:MAX_ASKED]


def _answers(session: Session, calls: Sequence[_Call]) -> Iterator[tuple[_Call, dict[str, Any]]]:
    for start in range(0, len(calls), BATCH):
        some = calls[start : start + BATCH]
        asked = {"action": {"name": "call"}, "evaluations": [_question(call) for call in some]}
        answered = decoded(session.request("POST", "/access/v1/evaluations", asked))["evaluations"]
        yield from zip(some, answered, strict=True)


def _question(call: _Call) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": call.agent},
        "resource": {"type": "tool", "id": f"{call.target.name}/{call.tool}"},
        "context": {"arguments": _nested(call.arguments)},
    }


def _nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As they were, from paths; a text that was not recorded is stood in for by one as long."""
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
    """Why the bounds do not allow it; empty where they do, or there are none."""
    if not details:
        return ""
    catalogue, arguments = call.target.catalogue, _nested(call.arguments)
    tool = None if catalogue is None else catalogue.tools.get(call.tool)
    classes = frozenset[str]() if catalogue is None or tool is None else catalogue.classes(tool)
    return explain(details, resource_uri=call.target.uri, tool=call.tool, arguments=arguments, classes=classes)


def _reason(answer: Mapping[str, Any]) -> str:
    reasons: Iterable[Mapping[str, Any]] = answer.get("context", {}).get("reasons", ())
    return "; ".join(str(reason["message"]) for reason in reasons) or "it is denied"


def _rests_on_arguments(answer: Mapping[str, Any], details: tuple[ToolDetail, ...]) -> bool:
    """Return whether what is not known of the arguments might have made it another answer."""
    codes = {reason["code"] for reason in answer.get("context", {}).get("reasons", ())}
    return bool(details) or not codes <= {"outside_task", "unknown_tool", "agent_not_active"}


def _ask(session: Session) -> None:
    """Raises Usage where nobody can be asked, or the answer is no."""
    if session.as_json or not sys.stdin.isatty():
        raise Usage("not a terminal", hint="confirm with `--yes`")
    if input("enforce? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Usage("nothing is changed")


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
            out.print(f"`{target.name}` says of itself, and nobody has confirmed:", markup=False)
            for name, tool in sorted(target.catalogue.tools.items()):
                out.print(f"  {name}: {tool.effect}, needs {target.catalogue.scope(tool)}", markup=False)
    for heading, found in (("would be denied", report.denied), ("cannot be told", report.unclear)):
        for call, why in found:
            what = (
                f"{names(call.agent)} {call.target.name}/{call.tool}: {counted(call.count)}, e.g. entry {call.example}"
            )
            out.print(f"[yellow]{heading}[/] {escape(what)}: {escape(why)}")
    out.print(f"{report.allowed} of {report.calls} calls would be allowed")


def _print_modes(changed: Sequence[Mapping[str, Any]]) -> None:
    for one in changed:
        out.print(f"`{one['name']}` is in mode {one['mode']}", markup=False)

"""`ostiary suggest`: the least scopes, bounds and policy that an agent needs, from its recorded calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from ostiary import ambient
from ostiary.authorization.bounds import render_details
from ostiary.catalogue_advisor.suggest import (
    RecordedCall,
    Suggestion,
    SuggestionLine,
    count_in_words,
    policy_files,
    recorded_call,
    suggest,
)
from ostiary.cli.output import out
from ostiary.cli.policy import active_files
from ostiary.cli.recorded_calls import Resource, entries, resources
from ostiary.cli.session import Here, Session
from ostiary.cli.spans import parse_time
from ostiary.cli.usage import Usage

BOUNDS, POLICIES, WHY = "bounds.json", "policies", "why.txt"
_COLOURS = {"scope": "green", "tool": "cyan", "argument": "cyan", "left out": "yellow"}


def suggest_least(
    agent: str, /, *, since: str = "24h", task: str | None = None, write: Path | None = None, session: Here
) -> None:
    """Suggest the least scopes, bounds and policy for an agent.

    The suggestion is made from recorded calls, and changes nothing. Each line shows the number of its calls and names
    an entry of the ledger. Recorded calls include everything that an attacker made the agent do: review the lines.

    Args:
        agent: Name or id.
        since: Start of the period: a span before now (90s, 15m, 24h, 7d) or a time.
        task: Id of a task; without it, all calls count.
        write: New folder for bounds.json, policies/ (the active set with one more policy) and why.txt.
    """
    shown = session.api("GET", f"/agents/{agent}")
    started = parse_time(since, now=ambient.now())
    recorded = entries(session, since=started, agent=shown["agent_id"], task=task)
    calls = [call for entry in recorded if (call := recorded_call(entry)) is not None]
    if not calls:
        raise Usage(
            f"no allowed call of `{shown['name']}` is recorded since {since}",
            hint="choose an earlier --since, or record calls: ostiary run -- COMMAND",
        )
    registered = resources(session, {call.uri for call in calls})
    catalogues = {uri: one.catalogue for uri, one in registered.items() if one.catalogue is not None}
    suggestion = suggest(calls, catalogues)
    if write is not None:
        _write(session, write, suggestion, shown, registered)
    session.show(_value(suggestion, shown, calls, write), lambda value: _print(value, suggestion.lines))


def _value(
    suggestion: Suggestion, agent: dict[str, Any], calls: list[RecordedCall], write: Path | None
) -> dict[str, Any]:
    lines = [
        {"what": line.kind, "subject": line.subject, "says": line.says, "calls": line.calls, "example": line.example}
        for line in suggestion.lines
    ]
    more = sorted(set(suggestion.scopes) - set(agent["scopes"]))
    unused = sorted(set(agent["scopes"]) - set(suggestion.scopes))
    return {
        "agent": agent["name"],
        "calls": len(calls),
        "scopes": list(suggestion.scopes),
        "missing": more,
        "unused": unused,
        "bounds": render_details(suggestion.bounds),
        "lines": lines,
        "folder": None if write is None else str(write),
    }


def _write(
    session: Session, folder: Path, suggestion: Suggestion, agent: dict[str, Any], registered: dict[str, Resource]
) -> None:
    """Write the suggestion into a new folder. Raises Usage for a folder that exists, FileExistsError if another process
    creates a file in the folder meanwhile.
    """
    if folder.exists():
        raise Usage(f"{folder} exists", hint="name a new folder")
    (folder / POLICIES).mkdir(parents=True)
    (folder / BOUNDS).write_text(json.dumps(render_details(suggestion.bounds), indent=2) + "\n", "utf-8")
    (folder / WHY).write_text("".join(f"{_words(line)}\n" for line in suggestion.lines), "utf-8")
    if suggestion.tools:
        catalogues = {uri: one.catalogue for uri, one in registered.items() if one.catalogue is not None}
        segments = {uri: str(one.facts["segment"]) for uri, one in registered.items()} | {
            agent["agent_id"]: agent["segment"]
        }
        own = policy_files(suggestion, catalogues, agent_id=agent["agent_id"], name=agent["name"], segments=segments)
        for name, text in {**active_files(session), **own}.items():
            place = folder / POLICIES / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8")


def _words(line: SuggestionLine) -> str:
    basis = f"  [{count_in_words(line.calls)}, e.g. entry {line.example}]" if line.calls else ""
    return f"{line.kind:9} {line.subject} {line.says}{basis}"


def _print(value: dict[str, Any], lines: tuple[SuggestionLine, ...]) -> None:
    for line in lines:
        colour = _COLOURS[line.kind]
        out.print(f"[{colour}]{line.kind:9}[/] {escape(_words(line)[10:])}")
    name, folder = value["agent"], value["folder"]
    if value["unused"]:
        out.print(f"not used: {escape(' '.join(value['unused']))}", style="dim")
    steps = [f"ostiary agent allow {name} {' '.join(value['missing'])}"] if value["missing"] else []
    if folder is None:
        steps.append(f"ostiary suggest {name} --write DIR")
    else:
        steps += [f"ostiary policy put {folder}/{POLICIES}", f"ostiary run --bounds {folder}/{BOUNDS} -- COMMAND"]
    for step in (*steps, f"ostiary enforce {name}"):
        out.print(f"next: {step}", markup=False)

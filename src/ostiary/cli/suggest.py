"""`ostiary suggest`: the least that an agent needs, from what was seen of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from ostiary import ambient
from ostiary.authorization.bounds import render_details
from ostiary.catalogue_advisor.suggest import Line, Seen, Suggestion, counted, policy_files, seen_call, suggest
from ostiary.cli.paper import out
from ostiary.cli.policy import active_files
from ostiary.cli.seen import Resource, entries, resources
from ostiary.cli.session import Here, Session, Usage
from ostiary.cli.spans import parse_time

BOUNDS, POLICIES, WHY = "bounds.json", "policies", "why.txt"
_COLOURS = {"scope": "green", "tool": "cyan", "argument": "cyan", "left out": "yellow"}


def suggest_least(
    agent: str, /, *, since: str = "24h", task: str | None = None, write: Path | None = None, session: Here
) -> None:
    """The least that an agent needs, from what was seen of it.

    Suggests scopes, bounds and a policy, and changes nothing. Each line says how many calls it rests on and names an
    entry of the ledger. What an agent was talked into while it was watched is in there as well: read before you allow.

    Args:
        agent: Name or id.
        since: How far to look back: a span (90s, 15m, 24h, 7d) or a time.
        task: Only what it did under the task with this id.
        write: A new folder for bounds.json, policies/ (the active set with a policy more) and why.txt.
    """
    who = session.api("GET", f"/agents/{agent}")
    started = parse_time(since, now=ambient.now())
    told = entries(session, since=started, agent=who["agent_id"], task=task)
    calls = [call for entry in told if (call := seen_call(entry)) is not None]
    if not calls:
        raise Usage(f"no call of `{who['name']}` was let through since {since}", hint="ostiary run -- COMMAND")
    known = resources(session, {call.uri for call in calls})
    catalogues = {uri: one.catalogue for uri, one in known.items() if one.catalogue is not None}
    found = suggest(calls, catalogues)
    if write is not None:
        _write(session, write, found, who, known)
    session.show(_value(found, who, calls, write), lambda value: _print(value, found.lines))


def _value(found: Suggestion, who: dict[str, Any], calls: list[Seen], write: Path | None) -> dict[str, Any]:
    lines = [
        {"what": line.what, "subject": line.subject, "says": line.says, "calls": line.calls, "example": line.example}
        for line in found.lines
    ]
    more = sorted(set(found.scopes) - set(who["scopes"]))
    unused = sorted(set(who["scopes"]) - set(found.scopes))
    return {
        "agent": who["name"], "calls": len(calls), "scopes": list(found.scopes), "missing": more, "unused": unused,
        "bounds": render_details(found.bounds), "lines": lines, "folder": None if write is None else str(write),
    }  # fmt: skip


def _write(session: Session, folder: Path, found: Suggestion, who: dict[str, Any], known: dict[str, Resource]) -> None:
    """Raises Usage for a folder that is there, FileExistsError."""
    if folder.exists():
        raise Usage(f"{folder} exists", hint="name a new folder")
    (folder / POLICIES).mkdir(parents=True)
    (folder / BOUNDS).write_text(json.dumps(render_details(found.bounds), indent=2) + "\n", "utf-8")
    (folder / WHY).write_text("".join(f"{_words(line)}\n" for line in found.lines), "utf-8")
    if found.tools:
        catalogues = {uri: one.catalogue for uri, one in known.items() if one.catalogue is not None}
        segments = {uri: str(one.facts["segment"]) for uri, one in known.items()} | {who["agent_id"]: who["segment"]}
        own = policy_files(found, catalogues, agent_id=who["agent_id"], name=who["name"], segments=segments)
        for name, text in {**active_files(session), **own}.items():
            place = folder / POLICIES / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8")


def _words(line: Line) -> str:
    basis = f"  [{counted(line.calls)}, e.g. entry {line.example}]" if line.calls else ""
    return f"{line.what:9} {line.subject} {line.says}{basis}"


def _print(value: dict[str, Any], lines: tuple[Line, ...]) -> None:
    for line in lines:
        colour = _COLOURS[line.what]
        out.print(f"[{colour}]{line.what:9}[/] {escape(_words(line)[10:])}")
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

"""`ostiary activity`: decisions, findings and actions as they happen, and the agents with the highest risk scores."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ostiary.cli.names import Names
from ostiary.cli.output import moment, out, spell_out
from ostiary.cli.session import PAGE, Here, Session

EVERY_S = 0.5
LINES = 20
BAR = 20
ACTIONS = (
    "agent",
    "approval",
    "elevation",
    "incident",
    "key",
    "kill",
    "owner",
    "policy",
    "respond",
    "signal",
    "task",
    "webhook",
)
"""First parts of names of ledger actions, such as `kill` in `kill.start`. Entries of these actions are shown as
`action`.
"""


def activity(*, all: bool = False, once: bool = False, limit: int = LINES, session: Here) -> None:
    """Follow decisions, findings, actions and risk scores live.

    Ends with Ctrl-C.

    Args:
        all: Show every entry of the ledger, not only decisions, findings and actions.
        once: Show the present state, and end.
        limit: Number of lines to begin with.
    """
    names, lines = Names(session), deque[dict[str, Any]](maxlen=limit)
    now = session.api("GET", "/activity")
    before = session.api("GET", "/audit", query={"limit": PAGE})["entries"]
    for entry in reversed(before):
        _add(lines, entry, all=all)
    after = int(before[0]["index"])
    if session.as_json or not out.is_terminal:
        session.show(now | {"entries": [*lines]}, lambda _: _print(lines, names))
        while not once:
            after = _follow(session, names, after, all=all)
        return
    with Live(_page(now, lines, names), console=out, refresh_per_second=4, transient=False) as live:
        while not once:
            time.sleep(EVERY_S)
            fresh = _fresh(session, after)
            for entry in fresh:
                _add(lines, entry, all=all)
            after = fresh[-1]["index"] if fresh else after
            live.update(_page(session.api("GET", "/activity"), lines, names))


def kind_of(entry: Mapping[str, Any]) -> str:
    """Return the kind of a ledger entry: `decision`, `finding` or `action`; an empty text for any other entry."""
    first = entry["action"].partition(".")[0]
    if entry["action"] == "watch.find":
        return "finding"
    if entry.get("outcome") in ("allow", "deny"):
        return "decision"
    return "action" if first in ACTIONS else ""


def _follow(session: Session, names: Names, after: int, *, all: bool) -> int:
    """Wait for one polling interval, print the entries after the index `after`, and return the index of the newest
    entry; without a new entry, `after`.
    """
    time.sleep(EVERY_S)
    fresh = _fresh(session, after)
    shown = [entry for entry in fresh if all or kind_of(entry)]
    if shown:
        session.show({"entries": shown}, lambda _: _print(shown, names))
    return int(fresh[-1]["index"]) if fresh else after


def _fresh(session: Session, after: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = session.api("GET", "/audit", query={"after": after, "limit": PAGE})["entries"]
    return entries


def _add(lines: deque[dict[str, Any]], entry: dict[str, Any], *, all: bool) -> None:
    if all or kind_of(entry):
        lines.append(entry)


def _page(now: Mapping[str, Any], lines: deque[dict[str, Any]], names: Names) -> Group:
    head = Text(f"{now['waiting']} incidents wait for a person, {now['stops']} stops are in force", style="bold")
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("AGENT", "RISK", "", "STATE", "RESTRICTED TO", "INCIDENT"):
        grid.add_column(heading)
    for one in now["doubted"]:
        bar = "█" * (one["risk"] * BAR // 100)
        limits = " ".join(one["held"])
        grid.add_row(*map(_plain, (one["agent"], one["risk"], bar, one["state"], limits, one["incident"] or "")))
    return Group(
        head,
        grid if now["doubted"] else Text("no agent has a risk score", style="dim"),
        *(_line(x, names) for x in lines),
    )


def _print(entries: Iterable[Mapping[str, Any]], names: Names) -> None:
    for entry in entries:
        out.print(_line(entry, names))


_STYLE = {"decision": "", "finding": "yellow", "action": "cyan", "": "dim"}


def _line(entry: Mapping[str, Any], names: Names) -> Text:
    detail, kind = entry.get("detail") or {}, kind_of(entry)
    subject = names(entry.get("agent") or entry.get("person") or entry.get("reporter") or "")
    object = entry.get("tool") or names(entry.get("object") or "") or entry.get("resource") or ""
    why = [one["code"] for one in entry.get("reasons", ())]
    if kind == "finding":
        object, why = "", [f"{detail.get('detector', '')}, {detail.get('points', '')} points"]
    elif isinstance(detail.get("did"), list):
        why = detail["did"]
    words = (
        f"{moment(entry['at'] / 1e6)}Z",
        entry["action"],
        entry.get("outcome", "ok"),
        subject,
        object,
        "; ".join(map(str, why)),
    )
    red = kind == "decision" and entry.get("outcome") == "deny"
    return Text(
        "  ".join(filter(None, map(_plain, words))),
        style="red" if red else _STYLE[kind],
        no_wrap=True,
        overflow="ellipsis",
    )


def _plain(value: object) -> str:
    """Return a value on one line, without control characters: third parties choose some names, which could move
    the cursor.
    """
    return spell_out(str(value))

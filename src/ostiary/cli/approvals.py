"""`ostiary approvals`: what agents ask people, and their answers.

Whatever an agent has had a hand in is shown as text: a character that would move the cursor, hide, or turn the
direction of what is written is spelled out, and so is the end of a line, so that nothing looks like a line of ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.agent import ServerRefused
from ostiary.cli.paper import facts, moment, out, table
from ostiary.cli.session import PAGE, Here, Session
from ostiary.core.origins.links import links

approvals = App(name="approvals", help="What agents ask people: list, show, approve, deny.")
EVERY_S = 1.0
BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters of which nothing is seen."""
COLUMNS = {
    "approval_id": "ID", "state": "STATE", "agent": "AGENT", "tool": "TOOL", "needs": "NEEDS", "times": "ASKED",
    "ends_at": "UNTIL",
}  # fmt: skip


@approvals.command(name="list")
def list_approvals(
    *, all: bool = False, watch: bool = False, limit: int = PAGE, as_: Path | None = None, session: Here
) -> None:
    """List what waits for an answer.

    Args:
        all: The settled ones too.
        watch: Go on, and show each new question whole as it comes; ends with Ctrl-C.
        limit: How many at most.
        as_: Credential of the person who asks; the administrator's otherwise.
    """
    session.act_as(as_)
    if watch:
        for question in _coming(session):
            session.show(question, _show)
        return
    found = session.pages("/approvals", "approvals", limit=limit, query={"state": "all" if all else "open"})
    session.show(found, lambda rows: table(rows, COLUMNS, empty="nobody asks"))


@approvals.command(name="show")
def show(approval: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Show a question: what exactly is asked, by whom, and why.

    Args:
        approval: Its id, `ap_..`.
        as_: Credential of the person who asks; the administrator's otherwise.
    """
    session.act_as(as_)
    session.show(session.api("GET", f"/approvals/{approval}"), _show)


@approvals.command(name="approve")
def approve(
    approval: str,
    /,
    *,
    reason: str,
    covers: Literal["call", "task"] | None = None,
    as_: Path | None = None,
    session: Here,
) -> None:
    """Say yes to a call.

    Args:
        approval: Its id, `ap_..`.
        reason: Why; it goes on record.
        covers: `call`: just this call, once; `task`: calls like it too, until the task ends; else as the question says.
        as_: Credential of the person who says it (`ostiary person create`); else that of OSTIARY_CREDENTIAL.
    """
    _answer(session, approval, "approve", {"reason": reason} | ({"covers": covers} if covers else {}), as_)


@approvals.command(name="deny")
def deny(approval: str, /, *, reason: str, as_: Path | None = None, session: Here) -> None:
    """Say no.

    Args:
        approval: Its id, `ap_..`.
        reason: Why; the agent hears it, and it goes on record.
        as_: Credential of the person who says it (`ostiary person create`); else that of OSTIARY_CREDENTIAL.
    """
    _answer(session, approval, "deny", {"reason": reason}, as_)


def _answer(session: Session, approval: str, says: str, said: dict[str, str], credential: Path | None) -> None:
    session.act_as(credential)
    try:
        answered = session.api("POST", f"/approvals/{approval}/{says}", said)
    except ServerRefused as refusal:
        if refusal.code != "insufficient_scope":
            raise
        hint = "--as FILE: what `ostiary person create NAME --generate-key FILE` wrote"
        raise ServerRefused("only a person answers", hint=hint, code=refusal.code) from None
    session.show(answered, facts)


def _coming(session: Session) -> Iterator[Any]:
    """Each question that waits, once, as it comes."""
    seen: set[str] = set()
    while True:
        found = session.pages("/approvals", "approvals", limit=PAGE, query={"state": "open"})
        for id in reversed([one["approval_id"] for one in found]):
            if id not in seen:
                yield session.api("GET", f"/approvals/{id}")
        seen = {one["approval_id"] for one in found}
        time.sleep(EVERY_S)


def _show(question: Mapping[str, Any]) -> None:
    asks, flood = question["asks"], question["flood"]
    for line in question["words"]:
        out.print(_plain(line), markup=False)
    facts(
        {
            "id": question["approval_id"],
            "state": question["state"],
            "until": moment(question["ends_at"]) + "Z",
            "needs": question["needs"],
            "said_yes": question["said_yes"],
            "agent": f"{asks['agent']} ({asks['state']}), of {asks['owner']}",
            "purpose": asks["purpose"],
            "task": f"{asks['task']}: {asks['task_purpose']}",
            "on_behalf_of": asks["on_behalf_of"],
            "through": [link["agent"] for link in asks["chain"]],
            "wants": question["tool"],
        }
    )
    _part("with", question["arguments"], question["origins"])
    for name in question["hidden"]:
        _line(name, "(hidden: it is part of what you say yes to)")
    for name, text in question["outgoing"].items():
        _outgoing(name, text, question["foreign"])
    _part("since", {why["policy"]: why.get("message", "") for why in question["reasons"]}, {})
    waiting = f"{flood['open_of_agent']} of this agent wait, {flood['within_an_hour']} came within an hour"
    _heading(f"asked {flood['times']} times; {waiting}")
    _heading("before, the newest first")
    for entry in question["before"]:
        _line(
            f"{moment(entry['at'])}Z",
            f"{entry['action']} {entry['outcome']} {entry['tool']} {' '.join(entry['reasons'])}",
        )
    for one in question["answers"]:
        _heading(f"{one['person']} said {one['says']}: {json.dumps(one['reason'], ensure_ascii=False)}")
    out.print()


def _outgoing(name: str, text: Any, foreign: Mapping[str, list[str]]) -> None:
    """The whole text, with a mark at each line that has a link or an address which is not the person's."""
    others = {one for path, found in foreign.items() if path.partition(".")[0] == name for one in found}
    _heading(f"{name} goes out as this text")
    for line in (text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)).split("\n"):
        _line("|" if others.isdisjoint(links(line)) else "!", line)
    for one in sorted(others):
        _line("!", f"neither the person's nor of a record: {one}")


def _part(heading: str, lines: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    _heading(heading)
    for name, value in lines.items():
        origin = f"   (from: {origins[name]})" if name in origins else ""
        _line(name, json.dumps(value, ensure_ascii=False) + origin)
        for path in origins:
            if path.startswith(f"{name}."):
                _line(" " * len(name), f"({path} from: {origins[path]})")
        if (spelled := json.dumps(value)) != json.dumps(value, ensure_ascii=False):
            _line(" " * len(name), f"(spelled {spelled})")  # letters that look like others


def _heading(text: str) -> None:
    out.print(_plain(text), style="bold", markup=False)


def _line(name: str, text: str) -> None:
    out.print(f"    {_plain(name)}  {_plain(text)}", markup=False)


def _plain(text: str) -> str:
    """On one line, each character that is not plainly seen spelled out."""
    return "".join(c if c.isprintable() and c not in BLANK else ascii(c)[1:-1] for c in text)

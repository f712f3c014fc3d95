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
from ostiary.catalogue_advisor.suggest import exempt
from ostiary.cli.paper import facts, moment, out, table
from ostiary.cli.policy import active_files, active_set
from ostiary.cli.session import PAGE, Here, Session, Usage
from ostiary.provenance.origins.links import links

approvals = App(name="approvals", help="What agents ask people: list, show, approve, deny.")
EVERY_S = 1.0
BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters of which nothing is seen."""
ANSWERED = {"approval_id": "ID", "state": "STATE", "tool": "TOOL", "error": "ERROR", "message": "WHY"}
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
    session.show(found, lambda rows: table(rows, COLUMNS, empty="no approvals waiting"))


@approvals.command(name="show")
def show(approval: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Show a question: what exactly is asked, by whom, and why; or all of a task that wait, as one.

    Args:
        approval: Its id, `ap_..`, or that of a task, `tk_..`.
        as_: Credential of the person who asks; the administrator's otherwise.
    """
    session.act_as(as_)
    if approval.startswith("tk_"):
        session.show(session.api("GET", f"/tasks/{approval}/approvals"), _show_all)
    else:
        session.show(session.api("GET", f"/approvals/{approval}"), _show)


@approvals.command(name="approve")
def approve(
    approval: str,
    /,
    *more: str,
    reason: str,
    covers: Literal["call", "task"] | None = None,
    strike: tuple[int, ...] = (),
    deny: tuple[str, ...] = (),
    as_: Path | None = None,
    session: Here,
) -> None:
    """Say yes to a call, to several, or to the plan of a task.

    Args:
        approval: Its id, `ap_..`.
        more: Other questions to which the yes is, too.
        reason: Why; it goes on record.
        covers: `call`: just this call, once; `task`: calls like it too, until the task ends; else as the question says.
        strike: A line of a plan, by its number, to which the yes is not; may be given several times.
        deny: A question that is denied in the same go; may be given several times.
        as_: Credential of the person who says it (`ostiary person create`); else that of OSTIARY_CREDENTIAL.
    """
    said = {"reason": reason} | ({"covers": covers} if covers else {})
    if more or deny:
        if strike:
            raise Usage("a plan is answered alone", hint="leave the other questions out, or `--strike`")
        body = said | {"approve": [approval, *more], "deny": list(deny)}
        session.show(_post(session, "answers", body, as_)["answers"], _show_answers)
        return
    session.show(_post(session, f"{approval}/approve", said | ({"strike": list(strike)} if strike else {}), as_), facts)


@approvals.command(name="deny")
def deny(approval: str, /, *more: str, reason: str, as_: Path | None = None, session: Here) -> None:
    """Say no.

    Args:
        approval: Its id, `ap_..`.
        more: Other questions to which the no is, too.
        reason: Why; the agent hears it, and it goes on record.
        as_: Credential of the person who says it (`ostiary person create`); else that of OSTIARY_CREDENTIAL.
    """
    if more:
        body = {"reason": reason, "deny": [approval, *more]}
        session.show(_post(session, "answers", body, as_)["answers"], _show_answers)
        return
    session.show(_post(session, f"{approval}/deny", {"reason": reason}, as_), facts)


@approvals.command(name="propose")
def propose(agent: str, /, *, write: Path | None = None, session: Here) -> None:
    """Propose a policy for what people always agree to; nothing is changed.

    Each proposal is exactly the agent, the tool and the counterpart, with no larger amount than was agreed to, and
    names the approvals it rests on. The setting `approvals_to_propose` says how often people must agree.

    Args:
        agent: Name or id.
        write: A new folder for the active set with the exceptions; read it, then `ostiary policy put` it.
    """
    proposals = session.api("GET", f"/agents/{agent}/proposals")["proposals"]
    files = active_files(session) if proposals else {}
    made = exempt(proposals, files, active_set(session)["extends"] if proposals else {})
    if write is not None and made.files:
        if write.exists():
            raise Usage(f"{write} exists", hint="name a new folder")
        for name, text in (files | made.files).items():
            (write / name).parent.mkdir(parents=True, exist_ok=True)
            (write / name).write_text(text, "utf-8")
    left_out = [{"words": one["words"], "why": why} for one, why in made.left_out]
    value = {"proposals": proposals, "files": made.files, "left_out": left_out}
    session.show(value | {"folder": None if write is None or not made.files else str(write)}, _show_proposals)


def _post(session: Session, path: str, said: dict[str, Any], credential: Path | None) -> Any:
    session.act_as(credential)
    try:
        return session.api("POST", f"/approvals/{path}", said)
    except ServerRefused as refusal:
        if refusal.code != "insufficient_scope":
            raise
        hint = "--as FILE: what `ostiary person create NAME --generate-key FILE` wrote"
        raise ServerRefused("only a person answers", hint=hint, code=refusal.code) from None


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


def _show_answers(rows: list[Any]) -> None:
    table(rows, ANSWERED, empty="nothing was answered")


def _show_all(found: Mapping[str, Any]) -> None:
    for line in found["words"]:
        out.print(_plain(line), markup=False)
    if ids := [one["approval_id"] for one in found["approvals"]]:
        out.print(f"next: ostiary approvals approve {' '.join(ids)} --reason .. [--deny ID]", markup=False)


def _show_proposals(value: Mapping[str, Any]) -> None:
    for one in value["proposals"]:
        out.print(_plain(one["words"]), markup=False)
        _line("since", " ".join(one["approvals"]))
    for one in value["left_out"]:
        out.print(_plain(f"no policy can say: {one['words']}: {one['why']}"), markup=False)
    if not value["proposals"]:
        out.print("nothing is agreed to often enough", style="dim")
    for name, text in value["files"].items():
        _heading(name)
        out.print(text, markup=False)
    if value["folder"] is not None:
        out.print(f"next: ostiary policy put {value['folder']}", markup=False)


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

"""`ostiary approvals`: the questions of agents to people, and the answers.

Text that an agent may have chosen is printed safely: a character that would move the cursor, be invisible, change the
direction of writing or begin a new line is printed as its escape sequence. No such text can look like a line of the
command.
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
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.policy import active_files, active_set
from ostiary.cli.session import PAGE, Here, Session, Word
from ostiary.cli.usage import Usage
from ostiary.provenance.origins.links import links

approvals = App(name="approvals", help="List, show, approve and deny the requests of agents.")
EVERY_S = 1.0
BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters that terminals print as a blank."""
ANSWERED = {"approval_id": "ID", "state": "STATE", "tool": "TOOL", "error": "ERROR", "message": "WHY"}
COLUMNS = {
    "approval_id": "ID",
    "state": "STATE",
    "agent": "AGENT",
    "tool": "TOOL",
    "needs": "NEEDS",
    "dangerous": "DANGER",
    "times": "ASKED",
    "ends_at": "UNTIL",
}


@approvals.command(name="list")
def list_approvals(
    *, all: bool = False, watch: bool = False, limit: int = PAGE, as_: Path | None = None, session: Here
) -> None:
    """List the approvals (requests of agents to people) that wait for an answer.

    Args:
        all: List answered and expired approvals too.
        watch: Show each new approval in full when it arrives, until Ctrl-C.
        limit: Largest number of rows.
        as_: Credential of the person who asks; by default, the administrator's.
    """
    session.act_as(as_)
    if watch:
        for question in _coming(session):
            session.show(question, _show)
        return
    rows = session.pages("/approvals", "approvals", limit=limit, query={"state": "all" if all else "open"})
    session.show(rows, lambda rows: table(rows, COLUMNS, empty="no approvals waiting"))


@approvals.command(name="show")
def show(approval: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Show an approval: the exact call, the agent, and the reason; or all open approvals of a task.

    Args:
        approval: Id of the approval, `ap_..`, or of a task, `tk_..`.
        as_: Credential of the person who asks; by default, the administrator's.
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
    uses: int | None = None,
    at_most: tuple[str, ...] = (),
    value: Word | None = None,
    deny: tuple[str, ...] = (),
    as_: Path | None = None,
    session: Here,
) -> None:
    """Approve a call, several calls, or the plan of a task.

    Args:
        approval: Id of the approval, `ap_..`.
        more: Ids of other approvals with the same answer.
        reason: Reason; it is recorded in the ledger.
        covers: `call`: this call, once; `task`: also similar calls, until the task ends. By default, `task` if the
            policies allow that and the call does not pay, destroy or administer.
        strike: Number of a plan's line that is not approved; may be given several times.
        uses: Number of further calls, or of calls of each line of a plan; the approval states the largest number.
        at_most: NAME=NUMBER: smaller limit of an amount in further calls, or of the `minutes` of an elevation; may be
            given several times.
        value: Value of the argument that the approval asks you to state, from a source that you trust.
        deny: Id of an approval that is denied at the same time; may be given several times.
        as_: Credential of the person who answers (`ostiary person create`); by default, that in OSTIARY_CREDENTIAL.
    """
    answer: dict[str, Any] = {"reason": reason} | ({"covers": covers} if covers else {})
    if more or deny:
        if strike or uses is not None or at_most or value is not None:
            options = "`--strike`, `--uses`, `--at-most` and `--value`"
            raise Usage(f"{options} can be given for only one approval", hint="leave out the other approvals")
        body = answer | {"approve": [approval, *more], "deny": list(deny)}
        session.show(_post(session, "answers", body, as_)["answers"], _show_answers)
        return
    answer |= {"strike": list(strike)} if strike else {}
    answer |= {"uses": uses} if uses is not None else {}
    answer |= {"at_most": dict(map(_limit, at_most))} if at_most else {}
    answer |= {"value": value} if value is not None else {}
    session.show(_post(session, f"{approval}/approve", answer, as_), facts)


@approvals.command(name="deny")
def deny(approval: str, /, *more: str, reason: str, as_: Path | None = None, session: Here) -> None:
    """Deny a call, several calls, or the plan of a task.

    Args:
        approval: Id of the approval, `ap_..`.
        more: Ids of other approvals with the same answer.
        reason: Reason; the agent receives it, and it is recorded in the ledger.
        as_: Credential of the person who answers (`ostiary person create`); by default, that in OSTIARY_CREDENTIAL.
    """
    if more:
        body = {"reason": reason, "deny": [approval, *more]}
        session.show(_post(session, "answers", body, as_)["answers"], _show_answers)
        return
    session.show(_post(session, f"{approval}/deny", {"reason": reason}, as_), facts)


@approvals.command(name="propose")
def propose(agent: str, /, *, write: Path | None = None, session: Here) -> None:
    """Propose a policy for calls that people approved often and never denied. The policies in force do not change.

    Each proposal is limited to one agent, one tool and one counterpart (recipient or payee), up to the largest approved
    amount, and names its approvals. The setting `approvals_to_propose` is the number of approvals that a proposal
    needs.

    Args:
        agent: Name or id.
        write: New folder for a copy of the active policy set with the proposals added; review the folder, then run
            `ostiary policy put FOLDER`.
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


def _limit(text: str) -> tuple[str, str]:
    name, separator, number = text.partition("=")
    if not separator:
        raise Usage(
            f"`--at-most {text[:60]}` is not NAME=NUMBER", hint="write a name and a number: --at-most amount=100"
        )
    return name, number


def _post(session: Session, path: str, body: dict[str, Any], credential: Path | None) -> Any:
    session.act_as(credential)
    try:
        return session.api("POST", f"/approvals/{path}", body)
    except ServerRefused as refusal:
        if refusal.code != "insufficient_scope":
            raise
        hint = (
            "--as FILE: the key of a person, from `ostiary person add-key NAME --generate-key FILE`, "
            "or from `ostiary person create NAME --generate-key FILE` for a new person"
        )
        raise ServerRefused("only a person can answer an approval", hint=hint, code=refusal.code) from None


def _coming(session: Session) -> Iterator[Any]:
    """Yield each open approval once, as soon as the server lists it."""
    shown: set[str] = set()
    while True:
        rows = session.pages("/approvals", "approvals", limit=PAGE, query={"state": "open"})
        for id in reversed([row["approval_id"] for row in rows]):
            if id not in shown:
                yield session.api("GET", f"/approvals/{id}")
        shown = {row["approval_id"] for row in rows}
        time.sleep(EVERY_S)


def _show_answers(rows: list[Any]) -> None:
    table(rows, ANSWERED, empty="no approval was answered")


def _show_all(waiting: Mapping[str, Any]) -> None:
    for line in waiting["words"]:
        out.print(_plain(line), markup=False)
    listed = [one["approval_id"] for one in waiting["approvals"] if not one["dangerous"]]
    if listed:
        out.print(f"next: ostiary approvals approve {' '.join(listed)} --reason .. [--deny ID]", markup=False)
    for one in waiting["approvals"]:
        if one["dangerous"]:
            value = " --value .." if one["must_state"] else ""
            out.print(f"next: ostiary approvals approve {one['approval_id']} --reason ..{value}", markup=False)


def _show_proposals(value: Mapping[str, Any]) -> None:
    for one in value["proposals"]:
        out.print(_plain(one["words"]), markup=False)
        _line("since", " ".join(one["approvals"]))
    for one in value["left_out"]:
        out.print(_plain(f"no policy can express this call: {one['words']}: {one['why']}"), markup=False)
    if not value["proposals"]:
        out.print("no call was approved often enough for a proposal", style="dim")
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
        _line(name, "(not shown to you; your answer applies to this argument too)")
    for name, text in question["outgoing"].items():
        _outgoing(name, text, question["foreign"])
    _part("since", {why["policy"]: why.get("message", "") for why in question["reasons"]}, {})
    waiting = f"approvals of this agent: {flood['open_of_agent']} open, {flood['within_an_hour']} within an hour"
    _heading(f"asked {flood['times']} {'time' if flood['times'] == 1 else 'times'}; {waiting}")
    _heading("before, the newest first")
    for entry in question["before"]:
        _line(
            f"{moment(entry['at'])}Z",
            f"{entry['action']} {entry['outcome']} {entry['tool']} {' '.join(entry['reasons'])}",
        )
    for one in question["answers"]:
        answered = {"approve": "approved", "deny": "denied"}.get(one["says"], one["says"])
        _heading(f"{one['person']} {answered}: {json.dumps(one['reason'], ensure_ascii=False)}")
    out.print()


def _outgoing(name: str, text: Any, foreign: Mapping[str, list[str]]) -> None:
    """Print the text of the argument `name`, which leaves the system. Mark with `!` each line with a link or an address
    in `foreign`: a link or address that comes neither from the person's words nor from a record.
    """
    others = {one for path, listed in foreign.items() if path.partition(".")[0] == name for one in listed}
    _heading(f"the argument `{name}`, which would be sent")
    for line in (text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)).split("\n"):
        is_marked = not others.isdisjoint(links(line)) or any(one in line for one in others)
        _line("!" if is_marked else "|", line)
    for one in sorted(others):
        _line("!", f"not in the person's words and not in a record: {one}")


def _part(heading: str, lines: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    _heading(heading)
    for name, value in lines.items():
        origin = f"   (from: {origins[name]})" if name in origins else ""
        _line(name, json.dumps(value, ensure_ascii=False) + origin)
        for path in origins:
            if path.startswith(f"{name}."):
                _line(" " * len(name), f"({path} from: {origins[path]})")
        if (spelled := json.dumps(value)) != json.dumps(value, ensure_ascii=False):
            _line(" " * len(name), f"(spelled {spelled})")  # shows letters that look like other letters


def _heading(text: str) -> None:
    out.print(_plain(text), style="bold", markup=False)


def _line(name: str, text: str) -> None:
    out.print(f"    {_plain(name)}  {_plain(text)}", markup=False)


def _plain(text: str) -> str:
    """Return `text` on one line, with each invisible character as its escape sequence."""
    return "".join(c if c.isprintable() and c not in BLANK else ascii(c)[1:-1] for c in text)

"""`ostiary catalogue`: the owner of a resource reviews what is read of its tools, in one sitting."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.markup import escape

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.authorization.catalogue import Catalogue
from ostiary.catalogue_advisor.review import Flow, Question, ToolReview, Usage, confirm_all, review
from ostiary.catalogue_advisor.suggest import seen_call
from ostiary.cli.files import read_json
from ostiary.cli.paper import out, table
from ostiary.cli.seen import entries, resource
from ostiary.cli.session import Here, Session
from ostiary.cli.session import Usage as BadUsage
from ostiary.cli.spans import parse_time

catalogue = App(name="catalogue", help="Review the catalogue of a resource: what its tools do and take.")

MEANINGS = {
    "read": "only reads", "write": "writes", "change": "changes something", "send": "sends something to somebody",
    "share": "lets somebody else see or use something", "pay": "moves money", "destroy": "deletes or cancels",
    "administer": "changes rights, secrets or the system", "yes": "yes", "no": "no, nobody outside",
    "principal": "a person or a group", "address": "where it goes, or is fetched from", "account": "an account",
    "object": "which thing", "text": "words", "secret": "a secret", "amount": "how much", "time": "when",
    "none": "nothing that matters", "unsure": "not sure: each value is judged by its form",
}  # fmt: skip
SKIP, STOP = "s", "q"


@catalogue.command(name="review")
def review_catalogue(name: str, /, *, answers: Path | None = None, since: str = "30d", session: Here) -> None:
    """Confirm what is read of the tools of a resource; each tool is asked about until its definition changes.

    Shows each unconfirmed tool with what was read, why, and how it was used, and asks at most three questions about it.
    Enter takes the suggestion, `s` skips the tool, `q` ends the review; what was answered is kept. A tool that is
    confirmed asks persons less, and its calls that only untrusted content names are denied.

    With --json, or where nobody is at the terminal, it lists the questions and changes nothing.

    Args:
        name: Name or id of the resource.
        answers: JSON of answers, by tool and member, as the list of questions has them:
            {"send": {"effect": "send", "kinds.to": "address"}}. Each tool in it is confirmed, with the suggestion
            where it answers nothing; tools that are not in it stay as they are.
        since: How far to look back for calls: a span (90s, 15m, 24h, 7d) or a time.
    """
    there = resource(session, name)
    if there.catalogue is None:
        raise BadUsage(f"`{name}` has no catalogue yet", hint="ostiary resource catalogue --help")
    flows = _flows(session, there.name)
    used = _usage(entries(session, since=parse_time(since, now=ambient.now()), resource=there.uri))
    found = review(there.catalogue, usage=used, flows=flows)
    if answers is not None:
        given = _parsed(read_json(answers))
    elif session.as_json or not sys.stdin.isatty():
        session.show([_rendered(one) for one in found], _print_questions)
        return
    else:
        given = _sitting(there.name, found)
    confirmed = confirm_all(there.catalogue, given, flows=flows)
    if given:
        body = {"catalogue": confirmed.render(), "was": there.facts["catalogue_hash"]}
        session.api("PUT", f"/resources/{there.name}/catalogue", body)
    session.show(_result(confirmed, given), _print_result)


def _flows(session: Session, name: str) -> dict[str, dict[str, Flow]]:
    """What the server has seen of where arguments came from, by tool and argument; the most frequent source counts."""
    try:
        listed = session.api("GET", f"/resources/{name}/flows")["flows"]
    except ServerRefused as refusal:
        if refusal.code != "not_found":
            raise
        return {}  # a server of an earlier version
    found = dict[str, dict[str, Flow]]()
    for one in sorted(listed, key=lambda one: int(one["tasks"])):
        source = str(one["source_tool"]).rpartition("/")[2]
        flow = Flow(source, str(one["source_field"]), int(one["tasks"]))
        found.setdefault(str(one["tool"]).rpartition("/")[2], {})[str(one["argument"])] = flow
    return found


def _usage(calls: Sequence[Mapping[str, Any]]) -> dict[str, Usage]:
    agents, counts = dict[str, set[str]](), dict[str, int]()
    for entry in calls:
        if (call := seen_call(entry)) is not None:
            counts[call.tool] = counts.get(call.tool, 0) + 1
            agents.setdefault(call.tool, set()).add(str(entry.get("agent")))
    return {tool: Usage(count, len(agents[tool])) for tool, count in counts.items()}


def _parsed(unverified: object) -> dict[str, dict[str, str]]:
    """Raises Usage."""
    if not isinstance(unverified, dict) or not all(
        isinstance(answers, dict) and all(isinstance(one, str) for one in answers.values())
        for answers in unverified.values()
    ):
        raise BadUsage("answers are not by tool and member", hint='write {"send": {"effect": "send"}}')
    return unverified


def _sitting(name: str, found: Sequence[ToolReview]) -> dict[str, dict[str, str]]:
    """Ask about one tool after the other; return the answers by tool."""
    given = dict[str, dict[str, str]]()
    for number, one in enumerate(found, 1):
        out.rule(f"[bold]{escape(one.tool.name)}[/bold]  {number} of {len(found)}, {escape(name)}", align="left")
        _print_tool(one)
        answers = dict[str, str]()
        for question in one.questions:
            if answers.get("effect") == "read" and question.member.startswith("kinds."):
                continue  # what a tool reads is no effect
            answer = _ask(question)
            if answer == STOP:
                return given
            if answer == SKIP:
                break
            answers[question.member] = answer
        else:
            given[one.tool.name] = answers
    return given


def _print_tool(one: ToolReview) -> None:
    if one.tool.description:
        out.print(one.tool.description.strip().partition("\n")[0], style="dim", markup=False)
    table([asdict(line) for line in one.lines], {"member": "READ AS", "value": "", "why": "BECAUSE"}, empty="")
    usage = one.usage
    seen = f"{usage.calls} calls by {usage.agents} agents" if usage.calls else "no calls"
    out.print(f"Seen: {seen}.", markup=False)


def _ask(question: Question) -> str:
    """Return one of the choices, SKIP or STOP."""
    out.print()
    out.print(escape(question.text), style="bold")  # a server names arguments: with markup, a name begins no line
    if question.why:
        out.print(escape(f"Suggested because: {question.why}."), style="dim")
    for number, choice in enumerate(question.choices, 1):
        mark = ">" if choice == question.suggestion else " "
        out.print(f"{mark}{number:2}  {choice:11} {MEANINGS[choice]}", markup=False)
    while True:
        try:
            said = input(f"[Enter: {question.suggestion}, {SKIP}: skip the tool, {STOP}: end] ").strip().lower()
        except EOFError:
            return STOP
        if not said:
            return question.suggestion
        if said in (SKIP, STOP, *question.choices):
            return said
        if said.isascii() and said.isdigit() and 0 < int(said) <= len(question.choices):
            return question.choices[int(said) - 1]
        out.print(f"Type a number from 1 to {len(question.choices)}, or a word of the list.", markup=False)


def _rendered(one: ToolReview) -> dict[str, Any]:
    return {
        "tool": one.tool.name,
        "usage": asdict(one.usage),
        "lines": [asdict(line) for line in one.lines],
        "flows": {path: asdict(flow) for path, flow in one.flows.items()},
        "questions": [asdict(question) for question in one.questions],
    }


def _print_questions(found: Sequence[Mapping[str, Any]]) -> None:
    rows = [question for one in found for question in one["questions"]]
    columns = {"tool": "TOOL", "member": "MEMBER", "text": "QUESTION", "suggestion": "SUGGESTED", "why": "BECAUSE"}
    table(rows, columns, empty="each tool is confirmed")


def _result(confirmed: Catalogue, given: Mapping[str, object]) -> dict[str, Any]:
    tools = confirmed.tools.values()
    return {
        "resource": confirmed.resource, "confirmed": sorted(given),
        "unconfirmed": sorted(tool.name for tool in tools if not tool.confirmed),
    }  # fmt: skip


def _print_result(value: Mapping[str, Any]) -> None:
    left = len(value["unconfirmed"])
    rest = f"; {left} are not confirmed, and ask persons more" if left else ""
    out.print(f"{len(value['confirmed'])} tools of {value['resource']} are confirmed{rest}", markup=False)

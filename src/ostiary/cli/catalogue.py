"""`ostiary catalogue`: the owner's review of the catalogue that Ostiary has proposed for a resource."""

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
from ostiary.catalogue_advisor.review import Flow, Question, ToolReview, ToolUsage, confirm_all, review
from ostiary.catalogue_advisor.suggest import recorded_call
from ostiary.cli.files import read_json
from ostiary.cli.output import out, table
from ostiary.cli.recorded_calls import entries, resource
from ostiary.cli.session import Here, Session, ask
from ostiary.cli.spans import parse_time
from ostiary.cli.usage import Usage

catalogue = App(name="catalogue", help="Review the catalogue of a resource: effects and arguments.")

MEANINGS = {
    "read": "only reads",
    "write": "writes",
    "change": "changes something",
    "send": "sends something out: to a person, a channel or an address",
    "share": "gives other people access to something",
    "pay": "moves money",
    "destroy": "deletes or cancels",
    "administer": "changes rights, secrets or the system",
    "yes": "yes",
    "no": "no, no third party writes it",
    "principal": "a person or a group",
    "address": "where the call sends to, or fetches from",
    "account": "an account",
    "object": "which thing",
    "text": "words",
    "secret": "a secret",
    "amount": "how much",
    "time": "when",
    "none": "not relevant",
    "unsure": "not sure: the form of each value decides",
}
SKIP, STOP = "s", "q"


@catalogue.command(name="review")
def review_catalogue(name: str, /, *, answers: Path | None = None, since: str = "30d", session: Here) -> None:
    """Review and confirm the proposed catalogue of a resource, tool by tool.

    Shows each unconfirmed tool with its proposal, the reasons and its use, and asks at most three questions about the
    tool.
    Enter accepts the suggestion, `s` skips the tool, `q` ends the review and keeps the answers. A confirmed tool needs
    fewer approvals, and its calls with values that only untrusted sources name are denied.

    With `--json`, or without a terminal, the command lists the questions and changes nothing.

    Args:
        name: Name or id of the resource.
        answers: JSON file of answers by tool and member, as in the list of questions:
            {"send": {"effect": "send", "kinds.to": "address"}}. Each tool in the file is confirmed; for a question
            that the file does not answer, the suggestion counts. Other tools stay as they are.
        since: Start of the period of recorded calls: a span before now (90s, 15m, 24h, 7d) or a time.
    """
    target = resource(session, name)
    if target.catalogue is None:
        raise Usage(f"`{name}` has no catalogue yet", hint="set a catalogue: ostiary resource catalogue --help")
    flows = _flows(session, target.name)
    used = _usage(entries(session, since=parse_time(since, now=ambient.now()), resource=target.uri))
    reviews = review(target.catalogue, usage=used, flows=flows)
    if answers is not None:
        answered = _parsed(read_json(answers))
    elif session.as_json or not sys.stdin.isatty():
        session.show([_rendered(one) for one in reviews], _print_questions)
        return
    else:
        answered = _interview(target.name, reviews)
    confirmed = confirm_all(target.catalogue, answered, flows=flows)
    if answered:
        body = {"catalogue": confirmed.render(), "was": target.facts["catalogue_hash"]}
        session.api("PUT", f"/resources/{target.name}/catalogue", body)
    session.show(_result(confirmed, answered), _print_result)


def _flows(session: Session, name: str) -> dict[str, dict[str, Flow]]:
    """Return the recorded source of the values of each argument, by tool and argument. If an argument has several
    sources, the most frequent source over all tasks is returned.
    """
    try:
        listed = session.api("GET", f"/resources/{name}/flows")["flows"]
    except ServerRefused as refusal:
        if refusal.code != "not_found":
            raise
        return {}  # an older server does not have this path
    flows = dict[str, dict[str, Flow]]()
    for one in sorted(listed, key=lambda one: int(one["tasks"])):
        source = str(one["source_tool"]).rpartition("/")[2]
        flow = Flow(source, str(one["source_field"]), int(one["tasks"]))
        flows.setdefault(str(one["tool"]).rpartition("/")[2], {})[str(one["argument"])] = flow
    return flows


def _usage(calls: Sequence[Mapping[str, Any]]) -> dict[str, ToolUsage]:
    agents, counts = dict[str, set[str]](), dict[str, int]()
    for entry in calls:
        if (call := recorded_call(entry)) is not None:
            counts[call.tool] = counts.get(call.tool, 0) + 1
            agents.setdefault(call.tool, set()).add(str(entry.get("agent")))
    return {tool: ToolUsage(count, len(agents[tool])) for tool, count in counts.items()}


def _parsed(unverified: object) -> dict[str, dict[str, str]]:
    """Return the answers in a file by tool and member. Raises Usage for other JSON."""
    if not isinstance(unverified, dict) or not all(
        isinstance(answers, dict) and all(isinstance(one, str) for one in answers.values())
        for answers in unverified.values()
    ):
        raise Usage(
            "the file with the answers is not a JSON object that gives each tool an object of texts",
            hint='write {"TOOL": {"effect": "send"}}',
        )
    return unverified


def _interview(name: str, reviews: Sequence[ToolReview]) -> dict[str, dict[str, str]]:
    """Ask the questions about each tool, and return the answers by tool."""
    answered = dict[str, dict[str, str]]()
    for number, one in enumerate(reviews, 1):
        out.rule(f"[bold]{escape(one.tool.name)}[/bold]  {number} of {len(reviews)}, {escape(name)}", align="left")
        _print_tool(one)
        answers = dict[str, str]()
        for question in one.questions:
            if answers.get("effect") == "read" and question.member.startswith("kinds."):
                continue  # the kinds of arguments do not matter for a tool that only reads
            answer = _ask(question)
            if answer == STOP:
                return answered
            if answer == SKIP:
                break
            answers[question.member] = answer
        else:
            answered[one.tool.name] = answers
    return answered


def _print_tool(one: ToolReview) -> None:
    if one.tool.description:
        out.print(one.tool.description.strip().partition("\n")[0], style="dim", markup=False)
    table([asdict(line) for line in one.lines], {"member": "MEMBER", "value": "VALUE", "why": "REASON"}, empty="")
    usage = one.usage
    recorded = f"{usage.calls} calls by {usage.agents} agents" if usage.calls else "no calls"
    out.print(f"Recorded: {recorded}.", markup=False)


def _ask(question: Question) -> str:
    """Ask one question, and return one of its choices, SKIP or STOP."""
    out.print()
    # An MCP server chooses the names in the text. Escaped, they are not read as markup.
    out.print(escape(question.text), style="bold")
    if question.why:
        out.print(escape(f"Reason for the suggestion: {question.why}."), style="dim")
    for number, choice in enumerate(question.choices, 1):
        mark = ">" if choice == question.suggestion else " "
        out.print(f"{mark}{number:2}  {choice:11} {MEANINGS[choice]}", markup=False)
    while True:
        typed = ask(f"[Enter: {question.suggestion}, {SKIP}: skip the tool, {STOP}: end] ").lower()
        if not typed:
            return question.suggestion
        if typed in (SKIP, STOP, *question.choices):
            return typed
        if typed.isascii() and typed.isdigit() and 0 < int(typed) <= len(question.choices):
            return question.choices[int(typed) - 1]
        out.print(f"Type a number from 1 to {len(question.choices)}, or a word of the list.", markup=False)


def _rendered(one: ToolReview) -> dict[str, Any]:
    return {
        "tool": one.tool.name,
        "usage": asdict(one.usage),
        "lines": [asdict(line) for line in one.lines],
        "flows": {path: asdict(flow) for path, flow in one.flows.items()},
        "questions": [asdict(question) for question in one.questions],
    }


def _print_questions(reviews: Sequence[Mapping[str, Any]]) -> None:
    rows = [question for one in reviews for question in one["questions"]]
    columns = {"tool": "TOOL", "member": "MEMBER", "text": "QUESTION", "suggestion": "SUGGESTED", "why": "REASON"}
    table(rows, columns, empty="every tool is confirmed")


def _result(confirmed: Catalogue, answered: Mapping[str, object]) -> dict[str, Any]:
    tools = confirmed.tools.values()
    return {
        "resource": confirmed.resource,
        "confirmed": sorted(answered),
        "unconfirmed": sorted(tool.name for tool in tools if not tool.confirmed),
    }


def _print_result(value: Mapping[str, Any]) -> None:
    left = len(value["unconfirmed"])
    rest = f"; {left} are not confirmed, and need more approvals" if left else ""
    out.print(f"{len(value['confirmed'])} tools of {value['resource']} are confirmed{rest}", markup=False)

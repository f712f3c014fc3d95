"""RFC 9396 sections 2, 3, 5, 6, 7: `authorization_details` of the type `tool`, narrowed to the bounds of the task."""

from __future__ import annotations

import json
from typing import Any

from ostiary.authorization.bounds import parse_details
from ostiary.authorization.classes import STANDARD
from ostiaryd.ledger.flows import act
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.conformance.table import check_table, row
from tests.support.api_fixtures import FILES, Answer, Client, claims_of

BAD, TARGET = "invalid_authorization_details", "invalid_target"
ELSEWHERE = "https://elsewhere.example/api"
READ = {"type": "tool", "locations": [FILES], "actions": ["read_file"]}
HEALTH = READ | {"datatypes": ["health"]}
REPORTS = READ | {"arguments": {"path": {"prefix": "/srv/reports/"}}}


TWICE = json.dumps([READ | {"datatypes": ["health"]}]).replace('"datatypes"', '"datatypes": ["public"], "datatypes"')


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


SHAPE = [
    row("one detail", details=[READ]),
    row("several", details=[READ, REPORTS]),
    row("none", details=[]),
    row("all tools of the resource", details=[{"type": "tool", "locations": [FILES]}]),
    row("an unknown type", BAD, details=[READ | {"type": "payment"}]),
    row("no type", BAD, details=[{"locations": [FILES]}]),
    row("an unknown member", BAD, details=[READ | {"privileges": ["admin"]}]),
    row("data of a class", details=[READ | {"datatypes": ["internal"]}]),
    row("data of all classes", details=[READ | {"datatypes": list(STANDARD)}]),
    row("data of an unknown class", BAD, details=[READ | {"datatypes": ["contacts"]}]),
    row("data of a class in capitals", BAD, details=[READ | {"datatypes": ["Health"]}]),
    row("data of a class that looks alike", BAD, details=[READ | {"datatypes": ["he\u0430lth"]}]),
    row("data of no class", BAD, details=[READ | {"datatypes": []}]),
    row("data of too many classes", BAD, details=[READ | {"datatypes": ["health"] * 33}]),
    row("data classes in a string", BAD, details=[READ | {"datatypes": "health"}]),
    row("data classes in two members", BAD, text=TWICE),
    row("a member of a wrong type", BAD, details=[READ | {"actions": "read_file"}]),
    row("a required member missing", BAD, details=[{"type": "tool"}]),
    row("an invalid value", BAD, details=[READ | {"locations": []}]),
    row("no tool at all", BAD, details=[READ | {"actions": []}]),
    row("an unknown condition", BAD, details=[READ | {"arguments": {"path": {"regex": ".*"}}}]),
    row("an empty condition", BAD, details=[READ | {"arguments": {"path": {}}}]),
    row("a condition of a wrong type", BAD, details=[READ | {"arguments": {"path": {"max_length": "3"}}}]),
    row("an object instead of an array", BAD, details=READ),
    row("null", BAD, details=None),
    row("a string", BAD, details="tool"),
    row("an array of strings", BAD, details=["tool"]),
    row("no JSON", BAD, text="[{"),
    row("two JSON texts", BAD, text="[][]"),
    row(
        "the same member twice",
        BAD,
        text='[{"type": "tool", "type": "tool", "locations": ["https://files.example/mcp"]}]',
    ),
    row("too deep", BAD, text=nested(9)),
    row("nothing of it at the resource", BAD, details=[READ | {"locations": [ELSEWHERE]}]),
    row("some of it at the resource", details=[READ, READ | {"locations": [ELSEWHERE]}]),
]


async def start(client: Client, *bounds: dict[str, Any]) -> Task:
    return await act(
        client.world,
        "task.start",
        lambda act: tasks.start(
            act, TaskSpec(agent=client.id, purpose="reads a report", bounds=parse_details(list(bounds)))
        ),
    )


async def test_each_rule_of_the_form_of_authorization_details_holds(client: Client) -> None:
    async def ask(*, details: Any = None, text: str | None = None) -> Answer:
        return await client.ask(authorization_details=json.dumps(details) if text is None else text)

    await check_table(SHAPE, ask)


async def test_details_lie_within_the_bounds_of_the_task(client: Client) -> None:
    task = await start(client, REPORTS)
    narrower = REPORTS | {"arguments": {"path": {"prefix": "/srv/reports/2026/"}}}
    exact = REPORTS | {"arguments": {"path": {"eq": "/srv/reports/a.txt"}, "encoding": {"eq": "utf-8"}}}
    wider = REPORTS | {"arguments": {"path": {"prefix": "/srv/"}}}

    async def ask(*details: dict[str, Any]) -> Answer:
        return await client.ask(task=task.task_id, authorization_details=json.dumps(details))

    async def run(details: list[dict[str, Any]]) -> Answer:
        return await ask(*details)

    await check_table(
        [
            row("the same", details=[REPORTS]),
            row("a part of it", details=[narrower]),
            row("one value of it, and one argument more bound", details=[exact]),
            row("more of it", BAD, details=[wider]),
            row("the tool without its bound", BAD, details=[READ]),
            row("another tool", BAD, details=[REPORTS | {"actions": ["write_file"]}]),
            row("all tools", BAD, details=[{"type": "tool", "locations": [FILES]}]),
            row("data of one class of it", details=[REPORTS | {"datatypes": ["internal"]}]),
            row("one within and one beyond", BAD, details=[narrower, wider]),
            row("at another resource too", BAD, details=[REPORTS | {"locations": [FILES, ELSEWHERE]}]),
        ],
        run,
    )


async def test_granted_details_are_in_the_response_and_token_and_are_for_the_resource(client: Client) -> None:
    cases: list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None, list[dict[str, Any]] | None]] = [
        ([HEALTH], None, [HEALTH]),
        ([HEALTH | {"locations": [FILES, ELSEWHERE]}], None, [HEALTH]),
        ([HEALTH | {"datatypes": ["health", "public"]}], [HEALTH], [HEALTH]),
        ([READ], [HEALTH], [HEALTH]),
        ([], None, None),
        ([], [READ], [READ]),
        ([REPORTS], None, [REPORTS]),
        ([REPORTS], [], [REPORTS]),
        ([READ], [REPORTS], [REPORTS]),
        ([READ, READ | {"locations": [ELSEWHERE]}], None, [READ]),
        ([READ | {"locations": [FILES, ELSEWHERE]}], None, [READ]),
    ]
    for bounds, asked, granted in cases:
        task = await start(client, *bounds)
        details = None if asked is None else json.dumps(asked)
        got = await client.token(task=task.task_id, authorization_details=details)
        assert got.get("authorization_details") == granted, bounds
        assert claims_of(got["access_token"]).get("authorization_details") == granted, bounds


async def test_data_classes_lie_within_those_of_the_task(client: Client) -> None:
    task = await start(client, READ | {"datatypes": ["health", "internal"]})

    async def ask(*, details: list[dict[str, Any]]) -> Answer:
        return await client.ask(task=task.task_id, authorization_details=json.dumps(details))

    await check_table(
        [
            row("the same", details=[READ | {"datatypes": ["internal", "health"]}]),
            row("one of them", details=[HEALTH]),
            row("each by itself", details=[HEALTH, READ | {"datatypes": ["internal"]}]),
            row("one more", BAD, details=[READ | {"datatypes": ["health", "internal", "public"]}]),
            row("another", BAD, details=[READ | {"datatypes": ["public"]}]),
            row("without saying", BAD, details=[READ]),
            row("one of them, and without saying", BAD, details=[HEALTH, READ]),
        ],
        ask,
    )


async def test_a_task_whose_bounds_omit_the_resource_gets_no_token_for_it(client: Client) -> None:
    """A token without bounds would be bounded by its scopes alone, and so be wider than the task."""
    task = await start(client, READ | {"locations": [ELSEWHERE]})
    assert (await client.ask(task=task.task_id, resource=FILES)).error == TARGET
    assert (await client.ask(task=task.task_id, resource=ELSEWHERE)).status == 200

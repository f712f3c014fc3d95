"""AuthZEN beyond its scenario: refusals and their form, permissions of registered agents, and ledger entries."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import newest_entry, register_agent, run_act
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol.jose import b64u
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.policy import wire_authzen
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Mode, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.policy_fixtures import Ask, put

QUESTION: dict[str, Any] = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "record", "id": "record-1"},
}
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"


def without(*path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(QUESTION))
    at = copy
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return copy


NO_QUESTIONS: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    b'{"a":NaN}',
    b"[" * 100_000,
    without("subject"),
    without("action"),
    without("resource"),
    without("subject", "id"),
    without("subject", "type"),
    without("action", "name"),
    without("resource", "type"),
    QUESTION | {"subject": None},
    QUESTION | {"subject": "alice"},
    QUESTION | {"subject": {"type": 1, "id": "x"}},
    QUESTION | {"action": "read"},
    QUESTION | {"context": []},
    QUESTION | {"context": "x"},
    QUESTION | {"resource": {"type": "record", "id": "r", "properties": []}},
]
NO_BATCHES: list[Any] = [
    {"evaluations": {}},
    {"evaluations": [], "subject": {}},
    {"evaluations": [QUESTION], "options": []},
    {"evaluations": [QUESTION], "options": {"evaluations_semantic": "any"}},
]


@pytest.mark.parametrize("url", [EVALUATION, EVALUATIONS])
async def test_a_malformed_evaluation_request_is_a_400_with_an_error_string(
    certified: World, ask: Ask, url: str
) -> None:
    for body in NO_QUESTIONS + (NO_BATCHES if url == EVALUATIONS else []):
        status, message = await ask(url, body)
        assert (status, type(message)) == (400, str), body
        assert message


TWICE = [
    json.dumps(QUESTION).replace('"id": "alice"', '"id": "bob", "id": "alice"'),
    json.dumps(QUESTION).replace('"id": "alice"', '"id": "bob","id"\t\n: "alice"'),
    json.dumps(QUESTION).replace('"id": "alice"', '"id": "b:o\\":b", "\\u0069d": "alice"'),
    json.dumps(QUESTION | {"more": 1}).replace('"more": 1', '"more": {"x": 1, "x": 2}'),
    json.dumps(QUESTION | {"more": 1}).replace('"more": 1', '"more": {"x": {}, "x": {"y": 2}}'),
    json.dumps(QUESTION)[:-1] + ', "subject": {"type": "user", "id": "alice"}}',
    json.dumps(QUESTION)[:-1] + ', "more": 1, "more": "\\u003a"}',
]
"""Requests that other JSON parsers read as QUESTION with further members."""


async def test_a_request_with_a_duplicate_member_is_refused(certified: World, ask: Ask) -> None:
    for body in TWICE:
        assert json.loads(body) | {"more": 0} == QUESTION | {"more": 0}
        status, message = await ask(EVALUATION, body.encode())
        assert (status, message) == (400, "an object of the JSON text has the same member twice"), body


SPELLINGS: list[Any] = [
    QUESTION | {"unknown": {"deep": [1, {"x": None}]}},
    QUESTION | {"context": None},
    QUESTION | {"subject": {"type": "user", "id": "alice", "properties": None, "more": 'a:b " : c'}},
    QUESTION | {"context": {"time": "12:30 :", "a\\": 1}},
    json.dumps(QUESTION, indent=4).encode(),
    json.dumps(QUESTION).replace('":', '" \t:').encode(),
]


async def test_unknown_members_and_any_json_formatting_are_accepted(certified: World, ask: Ask) -> None:
    for body in SPELLINGS:
        status, answer = await ask(EVALUATION, body)
        assert (status, answer["decision"]) == (200, True), body


async def test_a_response_states_the_policy_set_the_policies_and_the_reasons_of_the_decision(
    certified: World, ask: Ask
) -> None:
    _, allowed = await ask(EVALUATION, QUESTION)
    assert allowed["context"]["policies"] == ["all-read"]
    _, denied = await ask(EVALUATION, QUESTION | {"action": {"name": "fly"}})
    assert denied == {
        "decision": False,
        "context": {
            "policy": allowed["context"]["policy"],
            "reasons": [{"code": "no_permit", "message": "no policy permits the request"}],
            "reason_admin": {
                "403": f"denied under the policy set {allowed['context']['policy']}: no_permit: no policy permits the "
                f"request"
            },
            "reason_user": {"403": "You are not permitted to do this."},
        },
    }
    assert set(allowed["context"]) == {"policy", "policies"}


async def test_a_denial_has_a_detailed_reason_for_administrators_and_a_limited_reason_for_users(
    world: World, ask: Ask
) -> None:
    scope = '(principal, action == Action::"see", resource)'
    rules = {
        f"forbid {scope} when {{ context.x == 1 }};": ("policy `f` forbids the request", "f"),
        f'@reason("not on Sundays") @hint("come tomorrow") forbid {scope};': ("not on Sundays", "f"),
        f"permit {scope} when {{ context.x > 9223372036854775807 - context.x }};": (
            "The request could not be decided. Please tell your administrator.",
            "f",
        ),
    }
    schema = "entity user; action see appliesTo { principal: user, resource: user, context: { x: Long } };"
    user = {"type": "user", "id": "u"}
    question = {"subject": user, "action": {"name": "see"}, "resource": user, "context": {"x": 1}}
    for rule, (said, name) in rules.items():
        await put(world, {"a.cedarschema": schema, "a.cedar": f'@id("{name}") {rule}'})
        asked = question | ({"context": {"x": -2}} if rule.startswith("permit") else {})
        _, answer = await ask(EVALUATION, asked)
        assert answer["context"]["reason_user"] == {"403": said}
        admin = answer["context"]["reason_admin"]["403"]
        assert admin.startswith(f"denied under the policy set {answer['context']['policy']} by f: ")
        assert admin.endswith(": not on Sundays (come tomorrow)") is ("Sundays" in rule)


async def test_a_batch_item_without_a_subject_is_denied_and_the_other_items_are_decided(
    certified: World, ask: Ask
) -> None:
    _, answer = await ask(EVALUATIONS, without("subject") | {"evaluations": [{}, {"subject": QUESTION["subject"]}]})
    first, second = answer["evaluations"]
    assert first["decision"] is False
    assert first["context"]["error"]["status"] == 400
    assert second["decision"] is True


GOOD = QUESTION | {"context": {}}


async def test_an_invalid_item_or_default_denies_only_the_items_that_use_it(certified: World, ask: Ask) -> None:
    cases: list[tuple[dict[str, Any], list[bool]]] = [
        ({"evaluations": [GOOD, 1, None, [], {"subject": "alice"}, GOOD]}, [True, False, False, False, False, True]),
        (QUESTION | {"evaluations": [{"resource": {"type": "record"}}, {}]}, [False, True]),
        (QUESTION | {"evaluations": [{"resource": {"id": "record-1"}}, {}]}, [False, True]),
        (QUESTION | {"evaluations": [{"context": []}, {}]}, [False, True]),
        (QUESTION | {"resource": {}, "evaluations": [{"resource": QUESTION["resource"]}, {}]}, [True, False]),
        ({"subject": {}, "action": {}, "resource": {}, "context": {}, "evaluations": [GOOD]}, [True]),
        ({"subject": 1, "action": [], "resource": "x", "evaluations": [GOOD, {}]}, [True, False]),
        (QUESTION | {"context": [], "evaluations": [{"context": {}}, {}]}, [True, False]),
    ]
    for batch, decisions in cases:
        status, answer = await ask(EVALUATIONS, batch)
        assert (status, [one["decision"] for one in answer["evaluations"]]) == (200, decisions), batch
        assert all("error" in one["context"] for one in answer["evaluations"] if not one["decision"]), batch


async def test_a_batch_with_an_invalid_item_and_a_duplicate_member_is_refused(certified: World, ask: Ask) -> None:
    text = json.dumps({"evaluations": [GOOD, 1]})
    status, message = await ask(EVALUATIONS, text.replace('"id": "alice"', '"id": "bob", "id": "alice"').encode())
    assert (status, type(message)) == (400, str)


async def test_a_batch_has_at_most_a_thousand_evaluations(certified: World, ask: Ask) -> None:
    status, answer = await ask(EVALUATIONS, QUESTION | {"evaluations": [{}] * 1000})
    assert (status, len(answer["evaluations"])) == (200, 1000)
    status, message = await ask(EVALUATIONS, QUESTION | {"evaluations": [{}] * 1001})
    assert (status, message) == (400, "the request has 1001 evaluations; at most 1000 are allowed")


IDS = ["", "x" * 10_000, 'a"b\\', "\0", "\u202e", "😀", 'alice" || true || "', 'Agent::"ag_1"', "\ud7ff\ue000"]


async def test_an_id_of_any_text_is_treated_as_a_name_only(certified: World, ask: Ask) -> None:
    for id in IDS:
        somebody = QUESTION | {"subject": {"type": "user", "id": id}}
        assert (await ask(EVALUATION, somebody))[1]["decision"] is True
        assert (await ask(EVALUATION, somebody | {"action": {"name": "write"}}))[1]["decision"] is False
        assert (await ask(EVALUATION, QUESTION | {"action": {"name": id}}))[1]["decision"] is False


TYPES = ["", "a-b", "urn:x", "in", "user ", "user::", "usér", 'user"', "x" * 5000 + "-"]


async def test_a_request_with_a_type_that_no_policy_can_name_is_denied(world: World, ask: Ask) -> None:
    await put(world, {"a.cedar": "permit (principal, action, resource);"})
    for type in TYPES:
        for question in ({"subject": {"type": type, "id": "x"}}, {"resource": {"type": type, "id": "x"}}):
            status, answer = await ask(EVALUATION, QUESTION | question)
            assert (status, answer["decision"]) == (200, False)
            assert answer["context"]["reasons"][0]["code"] == "unanswerable"


CANNOT_HOLD: list[Any] = [
    2**63,
    -(2**63) - 1,
    10**300,
    0.00001,
    52.520008,
    1e300,
    [1, 1.00001],
    [[2**64]],
    [{"a": 0.00001}],
    json.loads("[" * 60 + "]" * 60),
    json.loads('{"a":' * 60 + "1" + "}" * 60),
]


async def test_a_value_that_cedar_cannot_hold_and_no_policy_reads_changes_nothing(certified: World, ask: Ask) -> None:
    for value in [*CANNOT_HOLD, None]:
        for part in ("subject", "action", "resource"):
            question = QUESTION | {part: QUESTION[part] | {"properties": {"x": value, "y": {"z": value}}}}
            assert (await ask(EVALUATION, question))[1]["decision"] is True, value
        for context in ({"x": value}, {"x": {"y": {"z": value}}}):
            assert (await ask(EVALUATION, QUESTION | {"context": context}))[1]["decision"] is True, value
            batch = QUESTION | {"context": context, "evaluations": [{}, {"context": {}}]}
            _, answer = await ask(EVALUATIONS, batch)
            assert [one["decision"] for one in answer["evaluations"]] == [True] * 2, value


READING = """
    permit (principal is user, action == Action::"see", resource) when { context.x.y == 1 };
    permit (principal is user, action == Action::"see", resource) when { context has x && context.x has y };
"""


async def test_a_value_that_cedar_cannot_hold_denies_with_its_path_if_a_policy_reads_it(world: World, ask: Ask) -> None:
    schema = """
        entity user = { id: String };
        action see appliesTo { principal: user, resource: user, context: { x?: { y?: Long } } };
    """
    question = {"subject": ALICE, "action": {"name": "see"}, "resource": ALICE}
    reading, asking = READING.strip().split("\n")
    await put(world, {"a.cedarschema": schema, "a.cedar": reading.replace("context.x.y == 1", GUARDED)})
    for value in CANNOT_HOLD[:-1]:
        _, answer = await ask(EVALUATION, question | {"context": {"x": {"y": value}}})
        assert answer["decision"] is False, value
        [reason] = answer["context"]["reasons"]
        assert reason["code"] == "policy_error", value
        assert "`context.x.y` " in reason["message"], value
    await put(world, {"a.cedarschema": schema, "a.cedar": asking})
    for value in CANNOT_HOLD[:-1]:
        assert (await ask(EVALUATION, question | {"context": {"x": {"y": value}}}))[1]["decision"] is True, value


GUARDED = "context has x && context.x has y && context.x.y == 1"
ALICE = {"type": "user", "id": "alice"}

SEE = {
    "a.cedarschema": """
        entity user = { id: String };
        action see appliesTo { principal: user, resource: user, context: { now: datetime } };
    """,
    "a.cedar": """
        permit (principal is user, action == Action::"see", resource)
        when { principal.id == "alice" && context.now >= datetime("2027-01-16") };
    """,
}


DO = {
    "a.cedarschema": """
        entity user;
        action do appliesTo { principal: user, resource: user, context: { action: { how: String }, sure: Bool } };
    """
}
DO_QUESTION = {
    "subject": {"type": "user", "id": "x"},
    "action": {"name": "do"},
    "resource": {"type": "user", "id": "y"},
}
PERMIT_DO = 'permit (principal, action == Action::"do", resource) '


async def test_sent_properties_and_context_do_not_replace_values_that_the_server_sets(
    world: World, ask: Ask, clock: Clock
) -> None:
    await put(world, SEE)
    in_time = {"now": {"__extn": {"fn": "datetime", "arg": "2030-01-01"}}}
    alice, bob = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob", "properties": {"id": "alice"}}
    question = {"action": {"name": "see"}, "resource": {"type": "user", "id": "x"}, "context": in_time}
    assert (await ask(EVALUATION, question | {"subject": alice}))[1]["decision"] is False
    clock.advance(86_400)
    assert (await ask(EVALUATION, question | {"subject": alice}))[1]["decision"] is True
    assert (await ask(EVALUATION, question | {"subject": bob}))[1]["decision"] is False


async def test_a_context_member_does_not_replace_the_properties_of_the_action(world: World, ask: Ask) -> None:
    await put(world, DO | {"a.cedar": PERMIT_DO + 'when { context.action.how == "kindly" };'})
    question, kindly = DO_QUESTION, {"how": "kindly"}
    assert (await ask(EVALUATION, question | {"action": {"name": "do", "properties": kindly}}))[1]["decision"] is True
    assert (await ask(EVALUATION, question | {"context": {"action": kindly}}))[1]["decision"] is False


async def test_the_context_of_a_batch_is_replaced_as_a_whole(world: World, ask: Ask) -> None:
    await put(world, DO | {"a.cedar": PERMIT_DO + "when { context.sure };"})
    batch = DO_QUESTION | {"context": {"sure": True}}
    _, answer = await ask(EVALUATIONS, batch | {"evaluations": [{}, {"context": {"other": True}}, {"context": {}}]})
    assert [one["decision"] for one in answer["evaluations"]] == [True, False, False]


# --- agents and tools -----------------------------------------------------------------------------------------------

TOOLS: list[dict[str, Any]] = [
    {"name": "read_file", "effect": "read", "arguments": {"properties": {"path": {"type": "string"}}}},
    {"name": "drop", "effect": "destroy"},
]


def catalogue(tools: list[dict[str, Any]]) -> Catalogue:
    return Catalogue.parse(json.dumps({"resource": "files", "tools": tools}))


async def stage(world: World, **agent: Any) -> str:
    """An agent that may read files, and the resource; the id of the agent."""
    made = await register_agent(world, **({"scopes": ["files:read"]} | agent))
    await run_act(world, lambda a: registry.create_resource(a, name="files", uri="https://files.example/mcp"))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue(TOOLS)))
    return made.agent_id


def calls(agent: str, tool: str = "files/read_file", **context: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": agent},
        "action": {"name": "call"},
        "resource": {"type": "tool", "id": tool},
        "context": context,
    }


def code(answer: dict[str, Any]) -> str:
    return "" if answer["decision"] else str(answer["context"]["reasons"][0]["code"])


async def test_the_starter_set_permits_an_agent_only_the_tools_that_its_scopes_name(world: World, ask: Ask) -> None:
    agent = await stage(world)
    _, answer = await ask(EVALUATION, calls(agent, arguments={"path": "/srv/x"}))
    assert (answer["decision"], answer["context"]["policies"]) == (True, ["call-within-segment"])
    _, by_name = await ask(EVALUATION, calls("bot"))
    assert by_name["decision"] is True
    spelled = calls(agent, "files/drop") | {"subject": {"type": "Agent", "id": agent}}
    for question, why in [
        (calls(agent, "files/drop"), "outside_task"),
        (spelled, "outside_task"),
        (spelled | {"resource": {"type": "Tool", "id": "files/drop"}}, "outside_task"),
        (calls(agent, "files/other"), "unknown_tool"),
        (calls(agent, "other/read_file"), "not_found"),
        (calls(agent, "files"), "unanswerable"),
        (calls("ag_" + "0" * 32), "not_found"),
        (calls("nobody"), "not_found"),
        (calls(agent, arguments={"path": 1}), "bad_arguments"),
        (calls(agent, arguments=[]), "unanswerable"),
        (calls(agent, task=1), "unanswerable"),
        (calls(agent, task="tk_1"), "not_found"),
    ]:
        _, answer = await ask(EVALUATION, question)
        assert code(answer) == why, question


async def test_sent_properties_do_not_override_attributes_from_the_registry(world: World, ask: Ask) -> None:
    agent = await stage(world, segment="lab")
    question = calls(agent)
    _, answer = await ask(EVALUATION, question)
    assert code(answer) == "no_permit"  # of another segment
    for kind in ("agent", "Agent"):
        question["subject"] = {"type": kind, "id": agent, "properties": {"segment": "default", "owner": "x"}}
        for tool in ("tool", "Tool"):
            question["resource"] = {"type": tool, "id": "files/read_file", "properties": {"segment": "lab"}}
            _, answer = await ask(EVALUATION, question)
            assert code(answer) == "no_permit"


async def test_the_effect_of_a_tool_is_read_from_its_catalogue_and_not_from_the_request(world: World, ask: Ask) -> None:
    await stage(world)
    schema = "entity user; action see appliesTo { principal: user, resource: Tool };"
    await put(world, {"a.cedarschema": schema, "a.cedar": READS})
    question = {"subject": {"type": "user", "id": "x"}, "action": {"name": "see"}}
    for tool, decision in (("read_file", True), ("drop", False)):
        thing = {"type": "tool", "id": f"files/{tool}", "properties": {"effect": "read"}}
        assert (await ask(EVALUATION, question | {"resource": thing}))[1]["decision"] is decision


READS = 'permit (principal, action == Action::"see", resource is Tool) when { resource.effect == "read" };'


async def test_an_agent_that_is_not_active_is_denied_every_action(world: World, ask: Ask) -> None:
    agent = await stage(world)
    await put(world, {"a.cedar": "permit (principal, action, resource);"})
    question = calls(agent)
    anything = question | {"action": {"name": "see"}, "resource": {"type": "record", "id": "x"}}
    for asked in (question, anything):
        assert (await ask(EVALUATION, asked))[1]["decision"] is True
    await run_act(world, lambda a: registry.set_agent_state(a, agent, Verb.SUSPEND))
    for asked in (question, anything):
        assert code((await ask(EVALUATION, asked))[1]) == "agent_suspended"
    as_resource = {**anything, "subject": {"type": "user", "id": "x"}, "resource": {"type": "agent", "id": agent}}
    assert code((await ask(EVALUATION, as_resource))[1]) == "agent_suspended"


async def test_a_call_is_bounded_by_its_task_and_denied_after_the_task_ended(world: World, ask: Ask) -> None:
    agent = await stage(world)
    details = parse_details(
        [{"type": "tool", "locations": ["https://files.example/mcp"], "arguments": {"path": {"prefix": "/srv/"}}}]
    )
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent=agent, purpose="to read", bounds=details)))
    inside, outside = {"path": "/srv/x"}, {"path": "/etc/x"}
    assert code((await ask(EVALUATION, calls(agent, task=task.task_id, arguments=inside)))[1]) == ""
    assert code((await ask(EVALUATION, calls(agent, task=task.task_id, arguments=outside)))[1]) == "outside_task"
    assert code((await ask(EVALUATION, calls(agent, arguments=outside)))[1]) == ""
    narrow = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent=agent, purpose="to do nothing", scopes=[])))
    assert code((await ask(EVALUATION, calls(agent, task=narrow.task_id)))[1]) == "outside_task"
    other = await register_agent(world, "other", scopes=["files:read"])
    assert code((await ask(EVALUATION, calls(other.agent_id, task=task.task_id)))[1]) == "not_found"
    await run_act(world, lambda a: tasks.end(a, task.task_id))
    assert code((await ask(EVALUATION, calls(agent, task=task.task_id, arguments=inside)))[1]) == "task_ended"


async def test_a_denied_call_to_a_resource_in_watch_mode_is_allowed_and_the_entry_has_the_verdict(
    world: World, ask: Ask
) -> None:
    agent = await stage(world)
    await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
    _, answer = await ask(EVALUATION, calls(agent, "files/drop"))
    assert answer["decision"] is True
    assert answer["context"]["reasons"][0]["code"] == "outside_task"
    assert answer["context"]["reason_admin"]["200"].startswith("allowed under the policy set ")
    entry = newest_entry(world)
    assert (entry.outcome, entry.detail and entry.detail["verdict"]) == ("allow", "deny")


async def test_a_new_catalogue_applies_from_the_next_request(world: World, ask: Ask) -> None:
    agent = await stage(world)
    assert code((await ask(EVALUATION, calls(agent)))[1]) == ""
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue(TOOLS[1:])))
    assert code((await ask(EVALUATION, calls(agent)))[1]) == "unknown_tool"


# --- entries --------------------------------------------------------------------------------------------------------


async def test_a_decision_leaves_one_entry_with_agent_tool_reasons_and_the_digest_of_the_request(
    world: World, ask: Ask
) -> None:
    agent = await stage(world)
    body = json.dumps(calls(agent, "files/drop", secret="not to be kept")).encode()
    await ask(EVALUATION, body)
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.agent, entry.resource, entry.tool) == (
        "decide",
        "deny",
        agent,
        "files",
        "drop",
    )
    assert [reason.code for reason in entry.reasons] == ["outside_task"]
    assert entry.digest == b64u(hashlib.sha256(body).digest())
    assert entry.detail == {"asked": ["agent", agent, "call", "tool", "files/drop"]}
    assert entry.policy
    assert b"not to be kept" not in ledger.search_entries(world.db.read(), {}, limit=1)[0][1]


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": action}, limit=1000)]


async def test_a_batch_is_one_entry_with_all_its_decisions(certified: World, ask: Ask) -> None:
    items = [{}, {"action": {"name": "fly"}}, {"subject": {"type": "user", "id": "bob"}}]
    await ask(EVALUATIONS, QUESTION | {"evaluations": items})
    [entry] = entries(certified, "decide.batch")
    assert entry.outcome == "deny"
    assert entry.detail == {
        "semantic": "execute_all",
        "decisions": [
            [True, "user", "alice", "read", "record", "record-1", ["all-read"]],
            [False, "user", "alice", "fly", "record", "record-1", ["no_permit"]],
            [True, "user", "bob", "read", "record", "record-1", ["all-read"]],
        ],
    }


async def test_a_batch_too_large_for_one_entry_is_recorded_in_several_entries_without_loss(
    certified: World, ask: Ask
) -> None:
    items = [{"resource": {"type": "record", "id": f"{number}" + "é" * 200}} for number in range(1000)]
    await ask(EVALUATIONS, QUESTION | {"evaluations": items})
    found = entries(certified, "decide.batch")
    assert len(found) > 1
    parts = {entry.detail["part"][0]: entry.detail for entry in found if entry.detail}
    assert sorted(parts) == list(range(1, len(found) + 1))
    assert {part["part"][1] for part in parts.values()} == {len(found)}
    told = [line[5] for number in sorted(parts) for line in parts[number]["decisions"]]
    assert told == [item["resource"]["id"] for item in items]


async def test_an_id_too_long_for_an_entry_is_truncated_in_the_entry(certified: World, ask: Ask) -> None:
    await ask(EVALUATIONS, QUESTION | {"evaluations": [{"resource": {"type": "record", "id": "r" * 100_000}}]})
    [entry] = entries(certified, "decide.batch")
    assert entry.detail is not None
    assert entry.detail["decisions"][0][5] == "r" * 256


def test_every_route_except_the_metadata_requires_the_decide_scope() -> None:
    assert {(route.path, route.scope) for route in wire_authzen.ROUTES} == {
        (EVALUATION, "ostiary:decide"),
        (EVALUATIONS, "ostiary:decide"),
        ("/.well-known/authzen-configuration", ""),
        ("/.well-known/authzen-configuration/{path:path}", ""),
    }


async def test_a_step_up_is_demanded_and_met_by_the_assurance_that_the_request_states(world: World, ask: Ask) -> None:
    agent = await stage(world)
    two = "urn:ostiary:acr:two-keys"
    policy = f"""
        permit (principal, action, resource);
        @step_up("{two}") @max_age("60") forbid (principal, action == Action::"call", resource)
        unless {{ context.acr == "{two}" && context has auth_time
                  && context.now.durationSince(context.auth_time) <= duration("60s") }};
    """
    await put(world, {"two.cedar": policy})
    now = world.now() // 1_000_000
    status, weak = await ask(EVALUATION, calls(agent, acr="urn:ostiary:acr:key", auth_time=now))
    (reason,) = weak["context"]["reasons"]
    assert (status, weak["decision"]) == (200, False)
    assert (reason["code"], reason["acr_values"], reason["max_age"]) == ("insufficient_user_authentication", two, 60)
    assert (await ask(EVALUATION, calls(agent, acr=two, auth_time=now - 60)))[1]["decision"] is True
    assert (await ask(EVALUATION, calls(agent, acr=two, auth_time=now - 61)))[1]["decision"] is False
    assert (await ask(EVALUATION, calls(agent)))[1]["decision"] is False
    for wrong in ({"acr": 1}, {"auth_time": "now"}, {"auth_time": -1}, {"auth_time": True}, {"auth_time": 1 << 60}):
        assert code((await ask(EVALUATION, calls(agent, **wrong)))[1]) == "unanswerable"

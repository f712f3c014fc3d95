"""Plans of tasks, the open requests of a task, and proposed policies: a single request in place of several."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, agent_caller, create_holding, newest_entry, register_agent, run_act
from ostiary.authorization.catalogue import Effect, Tool
from ostiary.protocol.errors import Forbidden, Invalid
from ostiary.provenance.intent import Intent, Planned
from ostiaryd.approvals import flows, store
from ostiaryd.approvals.flows.plan import MAX_LINES
from ostiaryd.approvals.flows.propose import Proposal, propose
from ostiaryd.approvals.flows.wording import HELD_BACK, hold_back
from ostiaryd.approvals.model import choose_stated, is_stated
from ostiaryd.ground.world import World
from ostiaryd.registry.model import APPROVE, Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.approvals.mail_fixtures import ANN, WHOM, mail, reads
from tests.support.approval_fixtures import URI, Bank

__all__ = ["mail"]

INTENT = Intent(words="Send the report", plan=(Planned("bank/send"), Planned("bank/pay")))
BOB = ANN | {"to": "bob@else.example"}
PAY: dict[str, Any] = {"to": "ann", "amount": 500}


async def begin(mail: Bank, token: str, intent: Intent = INTENT) -> Task:
    task = await run_act(mail.world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="mail", intent=intent)))
    await create_holding(mail.world, mail.agent, token, audience=URI, task=task.task_id, seconds=3600)
    return task


async def agree(mail: Bank, *calls: dict[str, Any], times: int = 2, says: str = "approve") -> list[str]:
    """Request and answer approvals for these calls in `times` earlier tasks; return the ids."""
    ids = []
    for _ in range(times):
        token = f"tok_{len(mail.people)}_{mail._thrown}"
        await begin(mail, token)
        for arguments in calls:
            tool = "pay" if "amount" in arguments else "send"
            asked = await mail.ask(arguments, **WHOM | {"token": token, "tool": tool})
            await mail.answer(asked.approval, says)
            ids.append(asked.approval)
    return ids


async def plan(mail: Bank, task: Task, by: Caller = ADMIN) -> Any:
    return await run_act(mail.world, lambda a: flows.ask_plan(a, task.task_id, by=by, config=mail.world.config))


async def test_a_plan_lists_calls_that_people_approved_before(world: World, mail: Bank) -> None:
    await agree(mail, ANN, BOB, PAY)
    task = await begin(mail, "tok_p")
    question = await plan(mail, task, by=agent_caller(mail.agent))
    assert [(line.tool, line.arguments, line.times) for line in question.about.lines] == [
        ("pay", {"to": "ann"}, 2),
        ("send", {"to": ANN["to"]}, 2),
        ("send", {"to": BOB["to"]}, 2),
    ]
    for body in ("1", "2"):
        assert (await mail.ask(BOB | {"body": body}, **WHOM | {"token": "tok_p"})).state == "open", "not agreed yet"
    await mail.answer(question.approval_id, strike=[2])
    answer = await mail.ask(BOB | {"body": "3"}, **WHOM | {"token": "tok_p"})
    assert (answer.state, answer.approval) == ("spent", question.approval_id)
    assert (await mail.ask(ANN, **WHOM | {"token": "tok_p"})).state == "open", "it was struck"
    pay = WHOM | {"token": "tok_p", "tool": "pay"}
    assert (await mail.ask(PAY | {"amount": 501}, **pay)).state == "open"
    assert (await mail.ask(PAY | {"amount": 499}, **pay)).state == "spent"
    assert (await mail.ask(PAY | {"amount": 498}, **pay)).state == "open", "what pays is good for one call"


async def test_a_person_approves_one_call_of_each_line_of_a_plan(mail: Bank) -> None:
    await agree(mail, ANN, BOB)
    question = await plan(mail, await begin(mail, "tok_p"))
    _, body, _ = await mail.http("GET", f"/api/v1/approvals/{question.approval_id}")
    assert [line.partition(" (")[0] for line in body["lines"]] == [
        f'send something with bank/send: to = "{one["to"]}"' for one in (ANN, BOB)
    ]
    await mail.answer(question.approval_id, uses=1)
    for arguments in (ANN, BOB):
        for text, state in (("1", "spent"), ("2", "open")):
            assert (await mail.ask(arguments | {"body": text}, **WHOM | {"token": "tok_p"})).state == state


async def test_a_mention_in_untrusted_content_does_not_end_an_approved_plan(mail: Bank) -> None:
    await agree(mail, ANN, BOB)
    mail.task = await begin(mail, "tok_p")
    await mail.answer((await plan(mail, mail.task)).approval_id)
    await reads(mail, "Write to bob@else.example")
    assert (await mail.ask(BOB, **WHOM | {"token": "tok_p"})).state == "spent"
    assert (await mail.ask(BOB | {"body": "2"}, **WHOM | {"token": "tok_p"}, warnings=["mentioned"])).state == "open"
    assert (await mail.ask(BOB | {"body": "3"}, **WHOM | {"token": "tok_p", "policies": ["what"]})).state == "open"


@pytest.mark.parametrize(
    ("intent", "lines"),
    [
        (INTENT, 2),
        (Intent(words="Send it", plan=()), 0),
        (Intent(words="Write to ann@else.example and bob@else.example", plan=()), 2),
        (Intent(words="Send it to ann@else.example", plan=(Planned("bank/send"),)), 0),
        (Intent(words="Pay ann", plan=(Planned("bank/pay"),)), 0),
    ],
)
async def test_a_plan_is_proposed_only_where_it_saves_approval_requests(mail: Bank, intent: Intent, lines: int) -> None:
    """Calls that need no approval or are unlikely are left out, and a plan with one line saves no request."""
    await agree(mail, ANN, BOB)
    found = await plan(mail, await begin(mail, "tok_p", intent))
    assert (0 if found is None else len(found.about.lines)) == lines
    assert (newest_entry(mail.world).action == "approval.plan") == (lines == 0), (
        "who is told of questions is told of none"
    )


async def test_a_plan_needs_two_earlier_approvals_and_no_denial(mail: Bank) -> None:
    await agree(mail, ANN, BOB, times=1)
    assert await plan(mail, await begin(mail, "tok_1p")) is None
    await agree(mail, ANN, BOB, times=1)
    assert await plan(mail, await begin(mail, "tok_2p")) is not None
    await agree(mail, BOB | {"body": "no"}, times=1, says="deny")
    assert await plan(mail, await begin(mail, "tok_3p")) is None


async def test_a_plan_has_at_most_the_maximum_number_of_lines(mail: Bank) -> None:
    everybody = [ANN | {"to": f"a{number}@else.example"} for number in range(5)]
    await agree(mail, *everybody)
    await agree(mail, *[one | {"to": f"b{one['to']}"} for one in everybody])
    assert len((await plan(mail, await begin(mail, "tok_p"))).about.lines) == MAX_LINES


async def test_a_plan_is_requested_by_its_agent_alone_and_not_all_lines_can_be_struck(world: World, mail: Bank) -> None:
    await agree(mail, ANN, BOB)
    task = await begin(mail, "tok_p")
    other = await register_agent(world, "other")
    with pytest.raises(Forbidden):
        await plan(mail, task, by=agent_caller(other))
    id = (await plan(mail, task)).approval_id
    assert (await plan(mail, task)).approval_id == id
    for says, strike in (("approve", [0]), ("approve", [3]), ("approve", [1, 2]), ("deny", [1])):
        with pytest.raises(Invalid):
            await mail.answer(id, says, strike=strike)
    assert mail.state(id) == "open"
    assert (await mail.http("GET", f"/api/v1/approvals/{id}"))[1]["words"] == [
        "Agent 'bot' of 'alice' will probably do the following in the task that begins now.",
        '1. send something with bank/send: to = "ann@else.example" (approved 2 times)',
        '2. send something with bank/send: to = "bob@else.example" (approved 2 times)',
        "Why: people approved each of these calls in earlier tasks of this agent.",
        "An approval covers each line that you do not strike, until the task ends: at most 20 calls of each line, but "
        "only one call of a line that pays, destroys or administers.",
    ]


async def test_a_task_without_a_memory_has_no_plan_question(mail: Bank) -> None:
    task = await run_act(mail.world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="mail")))
    assert await plan(mail, task) is None
    status, body, _ = await mail.http("POST", f"/api/v1/tasks/{task.task_id}/plan-question")
    assert (status, body) == (200, {"question": None})


# The open requests of a task, answered together


async def test_open_requests_of_a_task_are_listed_and_answered_together(mail: Bank, clock: Clock) -> None:
    ids = []
    for name in "abc":
        ids.append((await mail.ask(ANN | {"to": f"{name}@else.example"}, **WHOM)).approval)
        clock.advance(us=1)
    await mail.ask(ANN, **WHOM | {"token": "tok_1"})
    owner = replace(await mail.person("carol"), id=mail.agent.owner, name="alice")
    _, found, _ = await mail.http("GET", f"/api/v1/tasks/{mail.task.task_id}/approvals", by=owner)
    assert [one["approval_id"] for one in found["approvals"]] == ids
    assert found["words"][:3] == [
        "3 questions of one task wait.",
        f"[1] {ids[0]}: Agent 'bot' of 'alice' wants to send something with bank/send.",
        '    to = "a@else.example"',
    ]
    said = {"approve": ids[:2], "deny": [ids[2], "ap_unknown"], "reason": "as I said", "covers": "call"}
    status, body, _ = await mail.http("POST", "/api/v1/approvals/answers", said, by=owner)
    assert status == 200
    assert [(one["approval_id"], one.get("state"), one.get("error")) for one in body["answers"]] == [
        (ids[2], "denied", None),
        ("ap_unknown", None, "unknown_approval"),
        (ids[0], "approved", None),
        (ids[1], "approved", None),
    ]
    assert (await mail.ask(ANN | {"to": "a@else.example"}, **WHOM)).state == "spent"
    assert (await mail.ask(ANN | {"to": "b@else.example", "body": "2"}, **WHOM)).state == "open", "it covers the call"
    again = await mail.http("GET", f"/api/v1/tasks/{mail.task.task_id}/approvals", by=owner)
    assert again[1]["words"][0] == "1 question of the task waits."


@pytest.mark.parametrize(
    ("origins", "is_dangerous"),
    [
        ({"to": "outside", "body": "person", "at": "person"}, True),
        ({"to": "nowhere", "limit": "outside"}, True),
        ({"to": "outside", "limit": "person"}, False),
        ({"to": "known"}, False),
        ({"body": "outside"}, False),
        ({}, False),
    ],
)
async def test_a_dangerous_call_is_not_approved_together_with_others(
    mail: Bank, origins: dict[str, str], is_dangerous: bool
) -> None:
    one = (await mail.ask(ANN, **WHOM | {"origins": origins})).approval
    other = (await mail.ask(BOB, **WHOM | {"origins": {"to": "known"}})).approval
    owner = replace(await mail.person("carol"), id=mail.agent.owner, name="alice")
    _, found, _ = await mail.http("GET", f"/api/v1/approvals/{one}", by=owner)
    assert (found["dangerous"], found["words"][1].startswith("DANGER: ")) == (is_dangerous, is_dangerous)
    both = {"approve": [one, other], "reason": "all of them"}
    _, body, _ = await mail.http("POST", "/api/v1/approvals/answers", both, by=owner)
    errors = [answer.get("error") for answer in body["answers"]]
    assert errors == ["approve_alone" if is_dangerous else None, None]
    assert (mail.state(one), mail.state(other)) == ("open" if is_dangerous else "approved", "approved")
    if is_dangerous:
        third = (await mail.ask(BOB | {"to": "eve@else.example"}, **WHOM)).approval
        alone = {"approve": [one], "deny": [third], "reason": "checked"}
        await mail.http("POST", "/api/v1/approvals/answers", alone, by=owner)
        assert (mail.state(one), mail.state(third)) == ("approved", "denied")


# A value that a person states


def destructive(**kinds: str) -> Tool:
    return Tool(name="pay", effect=Effect.PAY, kinds=kinds)


@pytest.mark.parametrize(
    ("tool", "arguments", "origins", "chosen"),
    [
        (destructive(to="account", sum="amount"), {"sum": 5, "to": "DE1"}, {"to": "outside", "sum": "nowhere"}, "to"),
        (destructive(id="object", sum="amount"), {"sum": 5, "id": 7}, {"id": "nowhere", "sum": "nowhere"}, "id"),
        (
            destructive(to="account", sum="amount"),
            {"to": ["DE1", "DE2"], "sum": 5.5},
            {"to": "outside", "sum": "nowhere"},
            "sum",
        ),
        (destructive(to="account", sum="amount"), {"to": ["DE1"], "sum": 5}, {"to": "outside", "sum": "outside"}, "to"),
        (
            destructive(**{"party.iban": "account", "sum": "amount"}),
            {"party": {"iban": "DE1", "name": "Eve"}, "sum": 5},
            {"party.iban": "outside", "sum": "outside"},
            "party.iban",
        ),
        (
            destructive(**{"party.iban": "account", "sum": "amount"}),
            {"party": {"iban": "DE1"}, "party.iban": "DE2", "sum": 5},
            {"party.iban": "nowhere", "sum": "outside"},
            "sum",
        ),
        (
            destructive(sum="amount"),
            {"confirm": "yes", "sum": 5},
            {"confirm": "nowhere", "sum": "nowhere"},
            "sum",
        ),
        (destructive(), {"which": "x" * 256}, {"which": "outside"}, "which"),
        (destructive(), {"which": "x" * 257}, {"which": "outside"}, ""),
        (destructive(), {"which": "x" * 256 + " " * 300}, {"which": "outside"}, "which"),
        (destructive(), {"which": "two\nlines"}, {"which": "outside"}, "which"),
        (destructive(), {"which": "x\u200b"}, {"which": "outside"}, "which"),
        (destructive(), {"which": " \n"}, {"which": "outside"}, ""),
        (destructive(), {"which": ["a", "b"]}, {"which": "outside"}, ""),
        (destructive(), {"which": {"a": "b", "c": "d"}}, {"which": "outside"}, ""),
        (destructive(), {"which": True}, {"which": "outside"}, ""),
        (destructive(to="account", sum="amount"), {"to": "DE1", "sum": 5}, {"to": "outside", "sum": "endorsed"}, ""),
        (destructive(to="account"), {"to": "DE1"}, {}, ""),
        (Tool(name="mail", effect=Effect.SEND, kinds={"to": "address"}), {"to": "a@b.example"}, {"to": "outside"}, ""),
    ],
)
def test_a_person_states_a_value_of_a_dangerous_call_that_cannot_be_undone(
    tool: Tool, arguments: dict[str, Any], origins: dict[str, str], chosen: str
) -> None:
    assert choose_stated(tool, arguments, origins)[1] == chosen


@pytest.mark.parametrize(
    ("value", "wanted", "is_same"),
    [
        ("de893704X", "DE89 3704 x", True),
        ("DE893704Y", "DE89 3704 x", False),
        ("", "DE89 3704 x", False),
        ("12", "0012", False),
        ("x y", "X\n\u00a0Y", True),
        ("x", "x\u200b", False),
        ("DEK", "DE\u212a", False),
        ("ann@shop.example", "ann@\u017fhop.example", False),
        ("strasse", "straße", False),
        ("\u00e9", "e\u0301", False),
        ("1,200.00", 1200, True),
        ("0.1", 0.1, True),
        ("1200.01", 1200, False),
        ("1 200.50", 1200.5, True),
        ("0.00005", 5e-05, True),
        ("0.00006", 5e-05, False),
        ("all of it", 5e-05, False),
        ("", 1e300, False),
        ("all of it", 10**41, False),
        ("9007199254740992", 2**53 + 1, False),
        ("9007199254740993", 2**53 + 1, True),
        ("all of it", 1200, False),
        ("1200%x", 1200, False),
    ],
)
def test_a_stated_value_may_differ_in_case_and_spacing_alone(value: str, wanted: str | float, is_same: bool) -> None:
    assert is_stated(value, wanted) is is_same


@pytest.mark.parametrize(
    ("arguments", "state", "stated", "error"),
    [
        ({"to": "DE89 3704 x", "amount": 500}, "to", "de893704X", None),
        ({"to": "DE89 3704 x", "amount": 500}, "to", "DE893704Y", "value_differs"),
        ({"amount": 1200}, "amount", None, "value_needed"),
    ],
)
async def test_a_dangerous_payment_is_approved_only_by_stating_its_value(
    mail: Bank, arguments: dict[str, Any], state: str, stated: str | None, error: str | None
) -> None:
    asked = await mail.ask(arguments, **WHOM | {"tool": "pay", "origins": dict.fromkeys(arguments, "outside")})
    owner = replace(await mail.person("carol"), id=mail.agent.owner, name="alice")
    _, found, _ = await mail.http("GET", f"/api/v1/approvals/{asked.approval}", by=owner)
    assert found["must_state"] == state
    assert found["arguments"] == arguments | {state: HELD_BACK}
    assert not any(str(arguments[state]) in line for line in found["words"])
    approve = f"/api/v1/approvals/{asked.approval}/approve"
    listed = {"approve": [asked.approval], "reason": "yes to all"}
    _, body, _ = await mail.http("POST", "/api/v1/approvals/answers", listed, by=owner)
    assert (body["answers"][0]["error"], mail.state(asked.approval)) == ("value_needed", "open")
    _, body, _ = await mail.http("POST", approve, {"reason": "due", "value": stated}, by=owner)
    assert (body.get("error"), mail.state(asked.approval)) == (error, "open" if error else "approved")
    if error:
        assert newest_entry(mail.world).reasons[0].code == error
        await mail.http("POST", f"/api/v1/approvals/{asked.approval}/deny", {"reason": "no"}, by=owner)
        assert mail.state(asked.approval) == "denied"
        _, found, _ = await mail.http("GET", f"/api/v1/approvals/{asked.approval}", by=owner)
        assert found["arguments"] == arguments


@pytest.mark.parametrize(
    ("value", "stated", "held"),
    [
        ("to De 89\n3704, at once", "DE893704", f"to {HELD_BACK}, at once"),
        ("DE8937045 and toDE-89\u200b37_04", "DE893704", f"{HELD_BACK}5 and to{HELD_BACK}"),
        ("annalise, a-n-n", "ann", f"annalise, {HELD_BACK}"),
        ("IBAN99 9, 9990", "999", f"IBAN{HELD_BACK}, 9990"),
        ("a -- b", "--", "a -- b"),
        ({"DE89 3704": 1, "de893704": 2}, "DE893704", {HELD_BACK: 1, f"{HELD_BACK}'": 2}),
        ({"a": ["https://x.example/?to=a.b", True, 7]}, "a.b", {"a": [f"https://x.example/?to={HELD_BACK}", True, 7]}),
        ([7, 7.0, "7", True, 70], "7", [HELD_BACK, 7.0, HELD_BACK, True, 70]),
        ([1, True, 1.0, "1.00", None], 1, [HELD_BACK, True, HELD_BACK, HELD_BACK, None]),
        (
            "pay 1,200.00, 1.200,00 EUR1200 or 1 200. Not 1200.01, nor 11200 or 0.1200",
            1200,
            f"pay {HELD_BACK}, {HELD_BACK} EUR{HELD_BACK} or {HELD_BACK}. Not 1200.01, nor 11200 or 0.1200",
        ),
        ("0.00005 or 0.00006, not 0", 5e-05, f"{HELD_BACK} or 0.00006, not 0"),
        ("-900 and 800-900", 900, f"-{HELD_BACK} and 800-{HELD_BACK}"),
    ],
)
def test_the_value_to_state_is_hidden_wherever_arguments_repeat_it(value: Any, stated: str | float, held: Any) -> None:
    assert hold_back(value, stated) == held


async def test_an_open_request_does_not_show_the_value_to_state(mail: Bank) -> None:
    """Neither names of arguments, the limits of an approval, nor the reason of the first person repeat the value."""
    arguments: dict[str, Any] = {"amount": 1200, "memo": {"pay 1,200": "1 200"}, "x1200": "EUR1200"}
    both: dict[str, Any] = {"tool": "pay", "policies": ["both"], "token": "tok_m"}
    asked = await mail.ask(arguments, **both, origins=dict.fromkeys(arguments, "outside"))
    await mail.answer(asked.approval, value="1200", reason="1200 is right")
    for path in (f"/approvals/{asked.approval}", f"/tasks/{mail.task.task_id}/approvals", "/approvals"):
        _, found, _ = await mail.http("GET", f"/api/v1{path}")
        text = json.dumps(found)
        assert asked.approval in text
        assert not re.search(r"1[ ,.]?200\b", text), text
    await mail.answer(asked.approval, by="dave", value="1200")
    _, found, _ = await mail.http("GET", f"/api/v1/approvals/{asked.approval}")
    assert (found["arguments"], found["reason"]) == (arguments, "1200 is right")


async def test_dangerous_calls_are_denied_together(mail: Bank) -> None:
    ids = [(await mail.ask(one, **WHOM | {"origins": {"to": "outside"}})).approval for one in (ANN, BOB)]
    owner = replace(await mail.person("carol"), id=mail.agent.owner, name="alice")
    await mail.http("POST", "/api/v1/approvals/answers", {"deny": ids, "reason": "no"}, by=owner)
    assert [mail.state(id) for id in ids] == ["denied", "denied"]


async def test_each_answer_of_a_batch_is_checked_and_the_batch_is_limited(mail: Bank) -> None:
    asked = (await mail.ask(ANN, **WHOM)).approval
    mallory = await mail.person("mallory")
    _, body, _ = await mail.http(
        "POST", "/api/v1/approvals/answers", {"approve": [asked], "reason": "please"}, by=mallory
    )
    assert (body["answers"][0]["error"], mail.state(asked)) == ("not_your_agent", "open")
    for ids in ([], [asked, asked], [f"ap_{number}" for number in range(21)]):
        status, _, _ = await mail.http(
            "POST", "/api/v1/approvals/answers", {"approve": ids, "reason": "please"}, by=mallory
        )
        assert status == 422
    agent = agent_caller(mail.agent, APPROVE)
    status, _, _ = await mail.http(
        "GET", f"/api/v1/tasks/{mail.task.task_id}/approvals", by=replace(agent, scopes=frozenset())
    )
    assert status == 403


# Policies that are proposed


async def test_a_call_approved_on_five_occasions_without_a_denial_is_proposed_as_a_policy(
    world: World, mail: Bank
) -> None:
    ids = await agree(mail, PAY, times=4)

    def proposed() -> list[Proposal]:
        return propose(world.db.read(), "bot", now=world.now(), config=world.config)

    assert proposed() == [], "five occasions, as it is set"
    more = await agree(mail, PAY | {"amount": 600}, times=1)
    [one] = proposed()
    assert (one["tool"], one["named"], one["amounts"]) == ("bank/pay", {"to": "ann"}, {"amount": "600"})
    assert (one["policies"], one["occasions"], set(one["approvals"])) == (["whom"], 5, {*ids, *more})
    assert one["words"] == (
        '`bot` calls bank/pay with to = "ann", amount up to 600: '
        "people approved these calls on 5 occasions, and denied none"
    )
    await agree(mail, PAY | {"amount": 700}, times=1, says="deny")
    assert proposed() == [], "a no ends it"


async def test_many_approvals_in_one_task_propose_no_policy(world: World, mail: Bank, clock: Clock) -> None:
    for number in range(8):
        clock.advance(us=1)
        asked = await mail.ask(PAY | {"amount": 100 + number}, **WHOM | {"tool": "pay"})
        await mail.answer(asked.approval)
    assert propose(world.db.read(), "bot", now=world.now(), config=world.config) == []
    assert len(store.calls_since(world.db.read(), mail.agent.agent_id, since=0, limit=100)) == 8

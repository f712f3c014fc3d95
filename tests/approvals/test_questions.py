"""Approval requests within acts, on both databases: made, answered, spent, expired, and what is refused."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import agent_caller, create_holding, end_holdings, newest_entry, register_agent, run_act
from ostiary.decision.approval import MAX_ASKED as MAX_BYTES
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Malformed, Refused
from ostiaryd.approvals import flows, store
from ostiaryd.approvals.model import MAX_ASKED, MAX_OPEN_OF_AGENT, MAX_OPEN_OF_TASK
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, Caller, Root, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec, standing_id
from tests.support.approval_fixtures import PAY, URI, Bank

Args = dict[str, Any]


async def test_an_approval_is_spent_by_one_call(bank: Bank) -> None:
    asked = await bank.ask()
    assert (asked.state, bank.state(asked.approval)) == ("open", "open")
    entry = newest_entry(bank.world)
    assert (entry.action, entry.outcome, entry.agent, entry.task, entry.object, entry.tool) == (
        "approval.ask",
        "ok",
        bank.agent.agent_id,
        bank.task.task_id,
        asked.approval,
        "bank/pay",
    )
    assert (await bank.answer(asked.approval)).state_at(bank.world.now()) == "approved"
    entry = newest_entry(bank.world)
    assert (entry.action, entry.agent, entry.object) == ("approval.approve", bank.agent.agent_id, asked.approval)
    assert (entry.detail or {})["reason"] == "it is due"

    spent = await bank.ask()
    assert (spent.approval, spent.state, bank.state(asked.approval)) == (asked.approval, "spent", "spent")
    assert newest_entry(bank.world).action == "approval.spend"
    assert await bank.why() == "approval_spent"
    entry = newest_entry(bank.world)
    assert (entry.action, entry.outcome, entry.object) == ("approval.ask", "refused", asked.approval)


async def test_a_repeated_request_is_the_same_approval_request(bank: Bank) -> None:
    first = await bank.ask()
    assert (await bank.ask()).approval == first.approval
    assert newest_entry(bank.world).action == "approval.again", "who is told of questions is not told twice"
    found = store.get_question(bank.world.db.read(), first.approval)
    assert found is not None
    assert found.times == 2


async def test_a_denial_holds_until_the_expiry_of_the_request(bank: Bank, clock: Clock) -> None:
    short = await run_act(bank.world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="mail", ttl_s=7200)))
    await create_holding(bank.world, bank.agent, "tok_l", audience=URI, task=short.task_id, seconds=7200)
    asked = await bank.ask(token="tok_l")
    denied = await bank.answer(asked.approval, "deny")
    assert denied.state == "denied"
    clock.now = denied.ends_at - 1
    assert await bank.why(token="tok_l") == "approval_denied"
    clock.now = denied.ends_at
    assert (await bank.ask(token="tok_l")).state == "open"


async def test_an_approval_request_expires_at_its_date(bank: Bank, clock: Clock) -> None:
    asked = await bank.ask()
    found = store.get_question(bank.world.db.read(), asked.approval)
    assert found is not None
    clock.now = found.ends_at - 1
    assert (bank.state(asked.approval), await flows.expire_due(bank.world)) == ("open", 0)
    clock.now = found.ends_at
    assert bank.state(asked.approval) == "expired"  # before anybody has noted it
    with pytest.raises(Conflict) as refused:
        await bank.answer(asked.approval)
    assert refused.value.code == "question_settled"
    assert await flows.expire_due(bank.world) == 1
    assert (newest_entry(bank.world).action, newest_entry(bank.world).object) == ("approval.expire", asked.approval)
    assert await flows.expire_due(bank.world) == 0


async def test_an_approval_request_and_an_approval_do_not_outlast_their_task(world: World, bank: Bank) -> None:
    short = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="soon over", ttl_s=60)))
    await create_holding(world, bank.agent, "tok_short", audience=URI, task=short.task_id, seconds=60)
    asked = await bank.ask(token="tok_short")
    found = store.get_question(world.db.read(), asked.approval)
    assert found is not None
    assert found.ends_at == short.expires_at
    said = await bank.answer(asked.approval)
    assert said.until == short.expires_at


async def test_an_approval_is_valid_until_its_expiry(bank: Bank, clock: Clock) -> None:
    early, late = await bank.ask(PAY | {"to": "early"}), await bank.ask(PAY | {"to": "late"})
    until = (await bank.answer(early.approval)).until
    assert (await bank.answer(late.approval)).until == until
    assert until == clock() + bank.world.config.approval_lifetime_s * 1_000_000
    clock.now = until - 1
    assert (await bank.ask(PAY | {"to": "early"})).state == "spent"
    clock.now = until
    assert bank.state(late.approval) == "lapsed"
    again = await bank.ask(PAY | {"to": "late"})
    assert (again.state, again.approval == late.approval) == ("open", False)
    anew = await bank.ask(PAY | {"to": "early"})  # so is one that was spent
    assert (anew.state, anew.approval == early.approval) == ("open", False)


async def test_two_different_people_must_approve_where_a_policy_requires_two(bank: Bank) -> None:
    huge = {"amount": 20_000, "to": "ann"}
    both = ["huge", "large"]
    asked = await bank.ask(huge, policies=both)
    assert (await bank.answer(asked.approval, by="carol")).state == "open"
    assert (await bank.ask(huge, policies=both)).state == "open"
    with pytest.raises(Conflict) as refused:
        await bank.answer(asked.approval, by="carol")
    assert refused.value.code == "answered_already"
    assert (await bank.answer(asked.approval, by="dave")).state == "approved"
    assert (await bank.ask(huge, policies=both[::-1])).state == "spent"


async def test_one_denial_settles_a_request_that_needs_two_people(bank: Bank) -> None:
    asked = await bank.ask(policies=["huge"])
    await bank.answer(asked.approval, by="carol")
    assert (await bank.answer(asked.approval, "deny", by="dave")).state == "denied"
    with pytest.raises(Conflict):
        await bank.answer(asked.approval, by="erin")
    assert await bank.why(policies=["huge"]) == "approval_denied"


async def test_a_guard_cannot_reduce_two_required_approvals_to_one(bank: Bank) -> None:
    """The policy set of the server states the number of approvals; an approval for fewer policies does not count."""
    one = await bank.ask({"amount": 20_000}, policies=["large"])
    await bank.answer(one.approval)
    assert (await bank.ask({"amount": 20_000}, policies=["huge", "large"])).approval != one.approval


# Who may answer


async def test_an_agent_or_guard_cannot_answer_an_approval_request(world: World, bank: Bank) -> None:
    asked = await bank.ask()
    for by, code in (
        (agent_caller(bank.agent, APPROVE), "own_chain"),
        (agent_caller(await register_agent(world, "other"), APPROVE), "no_person"),
        (
            Caller(kind="guard", id=bank.resource.resource_id, name="bank", owner=None, scopes=frozenset({APPROVE})),
            "no_person",
        ),
    ):
        with pytest.raises(Forbidden) as refused:
            await bank.answer(asked.approval, by=by)
        assert refused.value.code == code
        entry = newest_entry(world)
        assert (entry.outcome, entry.object, entry.reasons[0].code) == ("refused", asked.approval, code)
    assert bank.state(asked.approval) == "open"


async def test_an_agent_in_the_delegation_chain_cannot_answer_the_approval_request(world: World, bank: Bank) -> None:
    helper = await register_agent(world, "helper", scopes=["bank:write"])
    part = await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent="helper", purpose="a part", parent=bank.task.task_id))
    )
    await create_holding(world, helper, "tok_part", audience=URI, task=part.task_id)
    asked = await bank.ask(token="tok_part")
    with pytest.raises(Forbidden) as refused:
        await bank.answer(asked.approval, by=agent_caller(bank.agent, APPROVE))
    assert refused.value.code == "own_chain"


@pytest.mark.parametrize("reason", ["", " \n", "x" * 501])
async def test_an_answer_needs_a_reason_of_at_most_500_characters(bank: Bank, reason: str) -> None:
    asked = await bank.ask()
    with pytest.raises(Invalid):
        await bank.answer(asked.approval, reason=reason)
    assert (await bank.answer(asked.approval, reason="x" * 500)).state == "approved"


async def test_an_approval_is_refused_after_the_task_ended_or_the_agent_was_suspended(world: World, bank: Bank) -> None:
    asked = await bank.ask()
    await run_act(world, lambda a: tasks.end(a, bank.task.task_id))
    with pytest.raises(Forbidden) as refused:
        await bank.answer(asked.approval)
    assert refused.value.code == "task_ended"

    other = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="another")))
    await create_holding(world, bank.agent, "tok_2", audience=URI, task=other.task_id)
    asked = await bank.ask(token="tok_2")
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))
    with pytest.raises(Forbidden) as refused:
        await bank.answer(asked.approval)
    assert refused.value.code == "agent_suspended"


@pytest.mark.parametrize("root", [Root.AGENT, Root.TASK])
async def test_an_approval_ends_with_its_agent_and_its_task(world: World, bank: Bank, root: Root) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    assert (await end_holdings(world, root, bank.agent.agent_id if root is Root.AGENT else bank.task.task_id))[
        "approval"
    ] == 1
    assert bank.state(asked.approval) == "lapsed"
    await create_holding(world, bank.agent, "tok_2", audience=URI, task=bank.task.task_id)
    again = await bank.ask(token="tok_2")
    assert (again.state, again.approval == asked.approval) == ("open", False)


# What an approval is bound to

OTHERS: dict[str, Args] = {
    "differs from the stated value": {"to": "eva"},
    "another case": {"to": "Ann"},
    "white space": {"to": "ann "},
    "a normal form": {"to": "a\u0301nn"},
    "the other normal form": {"to": "\u00e1nn"},
    "a look-alike": {"to": "\u0430nn"},
    "one more": {"note": "x"},
    "one that is null": {"note": None},
    "one that is empty": {"note": ""},
    "a string for a number": {"amount": "500"},
    "a larger number": {"amount": 500.5},
    "true for one": {"amount": True},
    "another secret": {"pin": "4711"},
}


@pytest.mark.parametrize("case", OTHERS)
async def test_an_approval_of_one_call_does_not_count_for_another_call(bank: Bank, case: str) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    other = await bank.ask(PAY | OTHERS[case])
    assert (other.state, other.approval == asked.approval) == ("open", False)
    assert await bank.why(PAY | OTHERS[case], approval=asked.approval) == "approval_mismatch"
    assert newest_entry(bank.world).reasons[0].code == "approval_mismatch"
    assert (await bank.ask()).state == "spent"


SAME = {
    "the order": b'{"to":"ann","amount":500}',
    "a fraction that is none": b'{"amount":500.0,"to":"ann"}',
    "an exponent": b'{"amount":5e2,"to":"ann"}',
    "an escape": b'{"amount":500,"to":"\\u0061nn"}',
    "how it looks": b'{"amount":500,"to":"ann","format":"table"}',
}


@pytest.mark.parametrize("case", SAME)
async def test_arguments_that_are_equal_as_json_make_the_same_call(bank: Bank, case: str) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    body = b'{"call":"%s","token":"tok_1","policy":"%s","policies":["large"],"tool":"pay","arguments":%s}' % (
        b"y" * 22,
        bank.policy.encode(),
        SAME[case],
    )
    answer = await bank.send(body, by=bank.resource)
    assert (answer.state, answer.approval) == ("spent", asked.approval)


async def test_an_absent_argument_differs_from_null_and_from_an_empty_text(bank: Bank) -> None:
    ids = {
        (await bank.ask(arguments)).approval
        for arguments in ({"amount": 500}, {"amount": 500, "to": None}, {"amount": 500, "to": ""})
    }
    assert len(ids) == 3


async def test_a_secret_argument_binds_the_approval_and_is_not_stored(world: World, bank: Bank) -> None:
    """The catalogue of the server decides, although the guard does not mark the argument as secret."""
    asked = await bank.ask(PAY | {"pin": "4711"})
    found = store.get_question(world.db.read(), asked.approval)
    assert found is not None
    assert (found.about.arguments, found.about.hidden) == (PAY, ["pin"])
    assert (await bank.ask(PAY | {"pin": "4712"})).approval != asked.approval
    assert (await bank.ask(PAY | {"pin": "4711"})).approval == asked.approval


async def test_an_approval_does_not_count_for_another_agent_task_or_policy(world: World, bank: Bank) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="another")))
    await create_holding(world, bank.agent, "tok_task", audience=URI, task=task.task_id)
    other = await register_agent(world, "other", scopes=["bank:write"])
    await create_holding(world, other, "tok_other", audience=URI, task=standing_id(other.agent_id))
    for changed in ({"token": "tok_task"}, {"token": "tok_other"}, {"policies": ["huge"]}):
        assert (await bank.ask(**changed)).state == "open"
        assert await bank.why(approval=asked.approval, **changed) == "approval_mismatch"


async def test_a_guard_requests_approvals_for_its_own_resource_and_a_live_token_alone(world: World, bank: Bank) -> None:
    shop = await run_act(world, lambda a: registry.create_resource(a, name="shop", uri="https://shop.example/mcp"))
    assert await bank.why(by=shop) == "foreign_token"
    assert await bank.why(token="tok_unknown") == "foreign_token"
    assert await bank.why(tool="no_such_tool") == "unknown_tool"
    assert await bank.why(policy="another-set") == "other_policies"
    assert await bank.why(policies=["never-eve"]) == "foreign_question"
    assert await bank.why(approval="ap_unknown") == "unknown_approval"
    assert await bank.why(secrets={"to": "x" * 43}) == "foreign_question"
    await end_holdings(world, Root.HOLDING, "tok_1")
    assert await bank.why() == "foreign_token"


async def test_a_malformed_approval_request_is_refused(bank: Bank) -> None:
    cases: list[Args] = [
        {"call": "short"},
        {"policies": []},
        {"policies": ["p"] * 65},
        {"secrets": {"pin": "4711"}},
        {"more": 1},
        {"tool": ""},
    ]
    for changed in cases:
        with pytest.raises(Malformed):
            await bank.ask(**changed)


async def test_an_approval_request_has_a_maximum_size(bank: Bank) -> None:
    assert (await bank.ask(PAY | {"note": "x" * (MAX_BYTES - 400)})).state == "open"
    with pytest.raises(Malformed):
        await bank.ask(PAY | {"note": "x" * MAX_BYTES})


# A flood


async def test_a_task_has_a_limited_number_of_open_approval_requests(bank: Bank) -> None:
    asked = [await bank.ask(PAY | {"amount": 1000 + n}) for n in range(MAX_OPEN_OF_TASK)]
    assert await bank.why(PAY | {"amount": 2000}) == "too_many_questions"
    entry = newest_entry(bank.world)
    assert (entry.outcome, entry.reasons[0].code) == ("refused", "too_many_questions")
    assert (await bank.ask(PAY | {"amount": 1000})).approval == asked[0].approval  # who waits may ask again
    await bank.answer(asked[0].approval, "deny")
    assert (await bank.ask(PAY | {"amount": 2000})).state == "open"


async def test_an_agent_has_a_limited_number_of_open_approval_requests(world: World, bank: Bank) -> None:
    said: list[str] = []
    for number in range(MAX_OPEN_OF_AGENT // MAX_OPEN_OF_TASK + 1):
        task = await run_act(world, _start)
        await create_holding(world, bank.agent, f"tok_f{number}", audience=URI, task=task.task_id)
        for amount in range(MAX_OPEN_OF_TASK):
            with suppress(Refused):
                said.append((await bank.ask({"amount": 1000 + amount}, token=f"tok_f{number}")).approval)
    assert len(set(said)) == MAX_OPEN_OF_AGENT
    assert newest_entry(world).reasons[0].code == "too_many_questions"


async def test_two_denials_of_a_tool_deny_further_requests_of_the_task(world: World, bank: Bank) -> None:
    waits = (await bank.ask({"amount": 1000})).approval
    for amount in (1001, 1002):
        assert (await bank.ask({"amount": amount - 500})).state == "open"
        await bank.answer((await bank.ask({"amount": amount})).approval, "deny")
    assert await bank.why({"amount": 1003}) == "approval_denied"
    assert (newest_entry(world).outcome, newest_entry(world).reasons[0].code) == ("refused", "approval_denied")
    await bank.answer(waits)
    assert (await bank.ask({"amount": 1000})).state == "spent", "what a person was asked before counts"
    other = await run_act(world, _start)
    await create_holding(world, bank.agent, "tok_other", audience=URI, task=other.task_id)
    assert (await bank.ask({"amount": 1003}, token="tok_other")).state == "open"


async def test_two_denials_of_a_tool_count_for_all_subtasks_of_a_task(world: World, bank: Bank) -> None:
    for number, name in enumerate(("one", "other", "more")):
        part = await run_act(
            world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="a part", parent=bank.task.task_id))
        )
        await create_holding(world, bank.agent, f"tok_{name}", audience=URI, task=part.task_id, seconds=3600)
        if number < 2:
            await bank.answer((await bank.ask({"amount": 1001 + number}, token=f"tok_{name}")).approval, "deny")
    assert await bank.why({"amount": 1003}, token="tok_more") == "approval_denied"
    assert await bank.why({"amount": 1003}) == "approval_denied"
    other = await run_act(world, _start)
    await create_holding(world, bank.agent, "tok_apart", audience=URI, task=other.task_id)
    assert (await bank.ask({"amount": 1003}, token="tok_apart")).state == "open"


async def test_denials_in_a_standing_task_count_until_their_requests_expire(bank: Bank, clock: Clock) -> None:
    standing = standing_id(bank.agent.agent_id)
    await create_holding(bank.world, bank.agent, "tok_s", audience=URI, task=standing, seconds=10_000)
    for amount in (1001, 1002):
        asked = await bank.ask({"amount": amount}, token="tok_s")
        await bank.answer(asked.approval, "deny")
    found = store.get_question(bank.world.db.read(), asked.approval)
    assert found is not None
    clock.now = found.ends_at - 1
    assert await bank.why({"amount": 1003}, token="tok_s") == "approval_denied"
    clock.now = found.ends_at
    assert (await bank.ask({"amount": 1003}, token="tok_s")).state == "open"


def _start(act: Act) -> Task:
    return tasks.start(act, TaskSpec(agent="bot", purpose="a flood"))


async def test_an_agent_makes_a_limited_number_of_approval_requests_in_an_hour(bank: Bank, clock: Clock) -> None:
    began = clock()
    for number in range(MAX_ASKED):
        says = "deny" if number == 0 else "approve"
        await bank.answer((await bank.ask({"amount": 1000 + number})).approval, says)
    clock.now = began + 3_600_000_000 - 1
    await create_holding(
        bank.world, bank.agent, "tok_2", audience=URI, task=standing_id(bank.agent.agent_id), seconds=60
    )
    assert await bank.why({"amount": 9}, token="tok_2") == "too_many_questions"
    clock.now = began + 3_600_000_000
    assert (await bank.ask({"amount": 9}, token="tok_2")).state == "open"


async def test_only_requests_that_ended_before_the_replay_period_are_deleted(
    world: World, bank: Bank, clock: Clock
) -> None:
    denied, approved, waits = [(await bank.ask({"amount": 1000 + n})).approval for n in range(3)]
    await bank.answer(denied, "deny")
    await bank.answer(approved)
    kept_us = world.config.replay_days * 86_400_000_000
    found = store.get_question(world.db.read(), denied)
    assert found is not None
    clock.now = found.ends_at + kept_us
    assert await flows.forget(world) == 0
    clock.advance(us=1)
    assert await flows.forget(world) == 2
    assert [store.get_question(world.db.read(), id) is None for id in (denied, approved, waits)] == [True, True, False]
    assert store.answers(world.db.read(), denied) == []
    await flows.expire_due(world)
    assert await flows.forget(world) == 1


# Two at once


async def test_concurrent_calls_spend_an_approval_once(bank: Bank) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    said = await asyncio.gather(*(bank.ask() for _ in range(8)), return_exceptions=True)
    spent = [one for one in said if not isinstance(one, BaseException)]
    assert [one.state for one in spent] == ["spent"]
    assert {one.code for one in said if isinstance(one, Refused)} == {"approval_spent"}


async def test_a_retry_with_the_same_call_id_passes_after_the_approval_was_spent(bank: Bank) -> None:
    """A guard whose connection broke retries with the same call id, and gets the same result."""
    asked = await bank.ask()
    await bank.answer(asked.approval)
    assert [(await bank.ask(call="z" * 22)).state for _ in range(2)] == ["spent", "spent"]
    assert await bank.why() == "approval_spent"


async def test_a_retry_with_the_same_call_id_passes_until_the_approval_expires(bank: Bank, clock: Clock) -> None:
    asked = await bank.ask()
    until = (await bank.answer(asked.approval)).until
    assert until is not None
    assert (await bank.ask(call="z" * 22)).state == "spent"
    clock.now = until - 1
    assert (await bank.ask(call="z" * 22)).state == "spent"
    assert await bank.why() == "approval_spent", "another number"
    clock.now = until
    again = await bank.ask(call="z" * 22)
    assert (again.state, again.approval == asked.approval) == ("open", False)


async def test_two_processes_spend_an_approval_once(bank: Bank, config: Any, clock: Clock) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    async with open_world(config, now=clock, random=bank.world.random) as other:
        there = Bank(other, bank.resource, bank.agent, bank.task, bank.policy, _thrown=500)
        said = await asyncio.gather(*(one.ask() for one in (bank, there) * 4), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in said) == 1
    assert {one.code for one in said if isinstance(one, Refused)} == {"approval_spent"}


async def test_an_approval_survives_a_restart(bank: Bank, config: Any, clock: Clock) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    async with open_world(config, now=clock, random=bank.world.random) as again:
        there = Bank(again, bank.resource, bank.agent, bank.task, bank.policy, _thrown=500)
        assert (await there.ask()).state == "spent"
        assert await there.why() == "approval_spent"

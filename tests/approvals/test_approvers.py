"""Approvers: persons responsible for the agent, the person of the task, and persons of policies or configuration."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from harness.registry_fixtures import create_holding, newest_entry, run_act
from ostiary.protocol.errors import Forbidden, Refused
from ostiaryd.approvals import flows
from ostiaryd.approvals.model import Question, Says
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.approval_fixtures import PAY, Bank
from tests.support.payment_fixtures import FILES
from tests.support.policy_fixtures import put


@pytest.fixture
async def own(bank: Bank) -> Bank:
    """The agent is of a team: `ann` is a member, `deputy` the agent's own deputy, `second` that of the team."""
    for name in ("ann", "ben", "deputy", "second", "eve"):
        await bank.person(name)
    second = bank.people["second"]
    await run_act(bank.world, lambda a: registry.create_team(a, name="payers", members=["ann"], deputy=second))
    await run_act(bank.world, lambda a: registry.create_team(a, name="finance", members=["ben"]))
    await run_act(bank.world, lambda a: registry.transfer_agent(a, "bot", "payers", deputy="deputy"))
    await create_holding(
        bank.world, bank.agent, "tok_2", audience=bank.resource.uri, task=bank.task.task_id, seconds=3600
    )
    return bank


async def said(bank: Bank, id: str, by: str, **config: Any) -> Question:
    """Approve the request as that person; return the changed request. Raises Refused."""
    caller, settings = await bank.person(by), replace(bank.world.config, **config)
    return await act(
        bank.world,
        "approval.approve",
        lambda a: flows.answer(a, id, Says.APPROVE, reason="it is due", by=caller, config=settings),
    )


async def refused(bank: Bank, id: str, by: str, **config: Any) -> str:
    with pytest.raises(Refused) as why:
        await said(bank, id, by, **config)
    assert bank.state(id) == "open", "nothing has changed"
    entry = newest_entry(bank.world)
    assert (entry.action, entry.outcome) == ("approval.approve", "refused")
    return why.value.code


@pytest.mark.parametrize("who", ["ann", "deputy", "second"])
async def test_a_person_responsible_for_the_agent_may_approve(own: Bank, who: str) -> None:
    asked = await own.ask(token="tok_2")
    assert await refused(own, asked.approval, "eve") == "not_your_agent"
    assert await refused(own, asked.approval, "ben") == "not_your_agent", "of another team"
    assert (await said(own, asked.approval, who)).state_at(own.world.now()) == "approved"


async def test_a_person_who_left_the_owning_team_may_no_longer_approve(own: Bank) -> None:
    asked = await own.ask(token="tok_2")
    await run_act(own.world, lambda a: registry.add_member(a, "payers", "eve"))
    await run_act(own.world, lambda a: registry.remove_member(a, "payers", "ann"))
    assert await refused(own, asked.approval, "ann") == "not_your_agent"
    assert (await said(own, asked.approval, "eve")).answered_at is not None


async def test_a_person_who_may_not_approve_may_not_deny(own: Bank) -> None:
    asked, caller = await own.ask(token="tok_2"), await own.person("eve")
    with pytest.raises(Forbidden):
        await act(
            own.world,
            "approval.deny",
            lambda a: flows.answer(a, asked.approval, Says.DENY, reason="no", by=caller, config=own.world.config),
        )
    assert own.state(asked.approval) == "open"


async def test_the_person_on_whose_behalf_the_task_runs_may_approve(own: Bank) -> None:
    task = await run_act(
        own.world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="for eve", on_behalf_of="eve"))
    )
    await create_holding(own.world, own.agent, "tok_eve", audience=own.resource.uri, task=task.task_id, seconds=3600)
    asked = await own.ask(token="tok_eve")
    assert await refused(own, asked.approval, "ben") == "not_your_agent"
    assert (await said(own, asked.approval, "eve")).answered_at is not None


@pytest.mark.parametrize("approvers", ["ben", "eve finance", "finance"])
async def test_a_person_named_in_the_configuration_may_approve_every_request(own: Bank, approvers: str) -> None:
    asked = await own.ask(token="tok_2")
    assert await refused(own, asked.approval, "ben", approvers="eve nobody") == "not_your_agent"
    assert (await said(own, asked.approval, "ben", approvers=approvers)).answered_at is not None


@pytest.mark.parametrize("named", ["finance", "eve, finance", " ben "])
async def test_only_an_approver_named_by_the_policy_may_approve(own: Bank, named: str) -> None:
    cedar = FILES["a.cedar"].replace(
        '@id("large") @ask("person")', f'@id("large") @ask("person") @approvers("{named}")'
    )
    own.policy = await put(own.world, FILES | {"a.cedar": cedar})
    asked = await own.ask(token="tok_2")
    for who in ("ann", "deputy", "second"):
        assert await refused(own, asked.approval, who) == "not_your_agent", "who owns it cannot wave it through"
    assert (await said(own, asked.approval, "ben")).answered_at is not None


async def test_an_approver_must_satisfy_every_policy_that_requires_approval(own: Bank) -> None:
    cedar = FILES["a.cedar"].replace('@id("strange")', '@id("strange") @approvers("finance")')
    own.policy = await put(own.world, FILES | {"a.cedar": cedar})
    asked = await own.ask(PAY | {"to": "mallory"}, policies=["large", "strange"], token="tok_2")
    for who in ("ann", "ben"):
        assert await refused(own, asked.approval, who) == "not_your_agent"
    await run_act(own.world, lambda a: registry.add_member(a, "finance", "ann"))
    assert (await said(own, asked.approval, "ann")).answered_at is not None


async def test_each_of_two_required_approvers_must_be_allowed_to_approve(own: Bank) -> None:
    asked = await own.ask(PAY | {"amount": 20_000}, policies=["huge", "large"], token="tok_2")
    assert (await said(own, asked.approval, "ann")).state_at(own.world.now()) == "open"
    assert await refused(own, asked.approval, "ben") == "not_your_agent"
    assert (await said(own, asked.approval, "deputy")).state_at(own.world.now()) == "approved"

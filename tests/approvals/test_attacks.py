"""Approvals that must no longer count, and text that a database or a terminal cannot hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.registry_fixtures import is_live
from ostiary.protocol.errors import Conflict, Invalid, Malformed, NotFound, Refused
from ostiaryd.approvals.model import MAX_REASON
from ostiaryd.ground.world import World
from tests.approvals.approvers import keyed, leave, revoke
from tests.approvals.evaluation_requests import evaluate, question
from tests.support.approval_fixtures import PAY, Bank
from tests.support.payment_fixtures import FILES
from tests.support.policy_fixtures import put

HUGE: dict[str, Any] = {"policies": ["huge"]}


# The policies were changed between the question and the call


async def two_are_asked(bank: Bank) -> None:
    """Store policies with the same ids that require two people."""
    bank.policy = await put(bank.world, FILES | {"a.cedar": FILES["a.cedar"].replace('@ask("person")', '@ask("two")')})


async def test_one_approval_is_not_enough_once_the_policy_requires_two_people(bank: Bank) -> None:
    asked = await bank.ask()
    await bank.answer(asked.approval)
    await two_are_asked(bank)
    again = await bank.ask()
    assert (again.state, again.approval == asked.approval) == ("open", False)
    shown = await evaluate(bank, question(bank, approval={"id": asked.approval}))
    assert (shown["decision"], shown["context"]["reasons"][0]["code"]) == (False, "approval_mismatch")
    await bank.answer(again.approval, by="dave")
    assert (await bank.ask()).state == "open"
    await bank.answer(again.approval, by="erin")
    assert (await bank.ask()).state == "spent"


async def test_an_open_request_does_not_count_once_the_policy_requires_two_people(bank: Bank) -> None:
    """The request was made while one approval was enough, and is answered after the policy changed."""
    asked = await bank.ask()
    await two_are_asked(bank)
    await bank.answer(asked.approval)
    assert (await bank.ask()).state == "open"


async def test_an_approval_for_one_policy_does_not_count_for_another_policy(bank: Bank) -> None:
    late = '@id("late") @ask("person") forbid (principal, action == Action::"call", resource);'
    bank.policy = await put(bank.world, FILES | {"a.cedar": FILES["a.cedar"] + late})
    asked = await bank.ask(policies=["large"])
    await bank.answer(asked.approval)
    for others in (["late"], ["large", "late"]):
        assert (await bank.ask(policies=others)).state == "open"
        assert await bank.why(policies=others, approval=asked.approval) == "approval_mismatch"
    assert (await bank.ask(policies=["large"])).state == "spent"


# The approver has lost the key, or has left


@pytest.mark.parametrize("end", [revoke, leave])
async def test_an_approval_ends_with_the_key_of_its_approver(world: World, bank: Bank, end: Any) -> None:
    carol = await keyed(bank, "carol")
    asked = await bank.ask()
    await bank.answer(asked.approval, by=carol)
    await end(bank, carol)
    assert (is_live(world, asked.approval), bank.state(asked.approval)) == (False, "lapsed")
    again = await bank.ask()
    assert (again.state, again.approval == asked.approval) == ("open", False)
    shown = await evaluate(bank, question(bank, approval={"id": asked.approval}))
    assert (shown["decision"], shown["context"]["reasons"][0]["code"]) == (False, "approval_ended")


@pytest.mark.parametrize("gone", ["carol", "dave"])
async def test_an_approval_by_two_people_ends_with_the_key_of_either(bank: Bank, gone: str) -> None:
    people = {name: await keyed(bank, name) for name in ("carol", "dave")}
    asked = await bank.ask(**HUGE)
    for who in people.values():
        await bank.answer(asked.approval, by=who)
    assert bank.state(asked.approval) == "approved"
    await revoke(bank, people[gone])
    assert bank.state(asked.approval) == "lapsed"


@pytest.mark.parametrize("end", [revoke, leave])
async def test_the_first_of_two_approvals_ends_with_the_key_of_its_approver(bank: Bank, end: Any) -> None:
    carol, dave, erin = [await keyed(bank, name) for name in ("carol", "dave", "erin")]
    asked = await bank.ask(**HUGE)
    await bank.answer(asked.approval, by=carol)
    await end(bank, carol)
    assert (await bank.answer(asked.approval, by=dave)).state == "open"
    assert (await bank.ask(**HUGE)).state == "open"
    assert (await bank.answer(asked.approval, by=erin)).state == "approved"


async def test_another_key_of_the_same_person_is_not_another_person(bank: Bank) -> None:
    asked = await bank.ask(**HUGE)
    carol = await keyed(bank, "carol")
    await bank.answer(asked.approval, by=carol)
    await revoke(bank, carol)
    with pytest.raises(Conflict) as refused:
        await bank.answer(asked.approval, by=await keyed(bank, "carol"))
    assert refused.value.code == "answered_already"


async def test_an_approval_survives_the_revocation_of_the_key_of_another_person(bank: Bank) -> None:
    carol, dave = await keyed(bank, "carol"), await keyed(bank, "dave")
    asked = await bank.ask()
    await bank.answer(asked.approval, by=carol)
    await revoke(bank, dave)
    assert (await bank.ask()).state == "spent"


# Words that a database does not hold


@pytest.mark.parametrize(
    "sent", [{"token": "tok_\0"}, {"approval": "ap_\0"}, {"tool": "\0"}, {"policies": ["\0"]}, {"policy": "\0"}]
)
async def test_a_request_with_a_nul_does_not_fail_other_requests_of_the_same_transaction(
    bank: Bank, sent: dict[str, Any]
) -> None:
    """Acts share a transaction: a text that one act cannot write must not fail the other acts."""
    before, bad, after = await asyncio.gather(
        bank.ask(PAY | {"to": "before"}), bank.ask(**sent), bank.ask(PAY | {"to": "after"}), return_exceptions=True
    )
    assert isinstance(bad, Refused)
    assert [getattr(one, "state", one) for one in (before, after)] == ["open", "open"]


async def test_an_approval_id_with_a_nul_is_refused(bank: Bank) -> None:
    with pytest.raises((NotFound, Malformed)):
        await bank.answer("ap_\0")


@pytest.mark.parametrize("reason", ["", " ", "x" * (MAX_REASON + 1), "due\0", "due\u202e", "due\x1b[2J", "\u200b"])
async def test_an_empty_overlong_or_unprintable_reason_is_refused(bank: Bank, reason: str) -> None:
    asked = await bank.ask()
    with pytest.raises(Invalid):
        await bank.answer(asked.approval, reason=reason)
    assert bank.state(asked.approval) == "open"
    assert (await bank.answer(asked.approval, reason="x" * MAX_REASON)).state == "approved"

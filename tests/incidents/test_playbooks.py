"""Playbooks: what they are, what they may say, and that they take no part in decisions."""

from __future__ import annotations

import pytest

from harness.registry_fixtures import get_agent, register_agent
from ostiary.authorization.cedar.ir import PolicyIR, Scope
from ostiary.authorization.cedar.values import Uid
from ostiary.decision.access.policy_kinds import RESPONSES, is_playbook
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.world import World
from ostiaryd.incidents import store
from ostiaryd.policy.model import load
from ostiaryd.policy.model.load import starter_files
from ostiaryd.policy.model.playbooks import LONGEST_MINUTES, MAX_CALLS
from ostiaryd.registry.model import AgentState
from tests.support.incident_fixtures import report_finding
from tests.support.policy_fixtures import put

CALL = 'permit (principal is Agent, action == Action::"call", resource is Tool);\n'
QUARANTINE = Uid("Action", "quarantine")


@pytest.mark.parametrize(
    ("scope", "is_one"),
    [
        (Scope(equals=QUARANTINE), True),
        (Scope(within=(QUARANTINE, Uid("Action", "alert"))), True),
        (Scope(), False),
        (Scope(within=()), False),
        (Scope(equals=Uid("Action", "call")), False),
        (Scope(within=(QUARANTINE, Uid("Action", "call"))), False),
        (Scope(equals=Uid("Other::Action", "quarantine")), False),
    ],
)
def test_a_policy_is_a_playbook_if_all_its_actions_are_responses(scope: Scope, is_one: bool) -> None:
    assert is_playbook(PolicyIR("p", "permit", action=scope)) is is_one


def test_a_playbook_takes_no_part_in_decisions() -> None:
    """The attributes that a playbook reads are not computed for decisions."""
    rule = 'forbid (principal, action == Action::"quarantine", resource) when { context.risk.score > 10 };'
    without, plain = load({"a.cedar": CALL + rule}).policies, load({"a.cedar": CALL}).policies
    assert (without.reads_risk, without.reads_history) == (plain.reads_risk, plain.reads_history) == (False, False)
    assert not starter_files().policies.reads_risk
    agent = Uid("Agent", "ag_1")
    assert not without.judge(agent, QUARANTINE, agent, {}, without.known).policies


@pytest.mark.parametrize("annotation", ['@ask("person")', '@step_up("urn:ostiary:acr:two-keys")', '@max_age("60")'])
def test_a_playbook_with_an_annotation_for_decisions_is_refused(annotation: str) -> None:
    condition = "when { context.points > 1 }"
    with pytest.raises(Invalid):
        load({"a.cedar": f'{CALL}{annotation} forbid (principal, action == Action::"narrow", resource) {condition};'})


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ('@minutes("0")', False),
        ('@minutes("1")', True),
        (f'@minutes("{LONGEST_MINUTES}")', True),
        (f'@minutes("{LONGEST_MINUTES + 1}")', False),
        ('@minutes("-1")', False),
        ('@minutes("x")', False),
        ('@calls("0")', False),
        ('@calls("1")', True),
        (f'@calls("{MAX_CALLS}")', True),
        (f'@calls("{MAX_CALLS + 1}")', False),
        ('@calls("")', False),
    ],
)
def test_the_minutes_and_the_calls_of_a_playbook_have_limits(said: str, fits: bool) -> None:
    files = {"a.cedar": f'{CALL}@id("slow") {said} permit (principal, action == Action::"throttle", resource);'}
    if fits:
        assert load(files).count == 2
    else:
        with pytest.raises(Invalid, match="slow"):
            load(files)


def test_a_playbook_that_reads_an_attribute_outside_its_schema_is_refused() -> None:
    with pytest.raises(Invalid, match="origin"):
        load({"a.cedar": f'{CALL}permit (principal, action == Action::"alert", resource) when {{ context.origin }};'})


def test_a_failing_test_case_of_a_playbook_refuses_the_policies() -> None:
    case = """
    [[case]]
    name = "stopped"
    subject = { type = "agent", id = "ag_1" }
    action = "quarantine"
    resource = { type = "agent", id = "ag_1" }
    context = { points = %d }
    expect = "allow"
    """
    rule = CALL + 'permit (principal, action == Action::"quarantine", resource) when { context.points > 5 };'
    assert load({"a.cedar": rule, "a.test.toml": case % 6}).tests == 1
    with pytest.raises(Invalid, match="expected allow, got deny"):
        load({"a.cedar": rule, "a.test.toml": case % 5})


@pytest.mark.parametrize("response", RESPONSES)
def test_the_schema_has_each_response(response: str) -> None:
    rule = f'permit (principal, action == Action::"{response}", resource) when {{ context.risk.agent > 1 }};'
    assert not load({"a.cedar": CALL + rule}).ready.playbooks.is_empty


async def test_a_failing_forbid_prevents_the_response_of_a_playbook(world: World) -> None:
    rules = """
    @id("stop") permit (principal, action == Action::"quarantine", resource);
    @id("unless") forbid (principal, action == Action::"quarantine", resource)
    when { context.points * 9223372036854775807 > 0 };
    """
    await put(world, {"a.cedar": CALL + rules})
    bot = await register_agent(world)
    opened = await report_finding(world, bot)
    assert opened is not None
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert [one.policies for one in store.list_responses(world.db.read(), opened.incident_id)] == [("unless",)]


async def test_the_strictest_limits_of_several_playbooks_apply(world: World) -> None:
    rules = """
    @minutes("5") @calls("9") permit (principal, action == Action::"throttle", resource);
    @minutes("7") @calls("4") permit (principal, action == Action::"throttle", resource);
    """
    await put(world, {"a.cedar": CALL + rules})
    opened = await report_finding(world, await register_agent(world))
    assert opened is not None
    [did] = store.list_responses(world.db.read(), opened.incident_id)
    assert did.says == "for 7 minutes the agent may make 4 calls per minute"

"""Elevation within acts, on both databases: never more than is eligible, never longer, and never handed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock
from harness.registry_fixtures import agent_caller, create_person, newest_entry
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Refused
from ostiaryd import doctor
from ostiaryd.approvals import flows
from ostiaryd.approvals.flows.elevate import MAX_MINUTES, MAX_MINUTES_OF_GLASS, MAX_SCOPES
from ostiaryd.approvals.model import Narrowing, Question, Says
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry
from ostiaryd.policy.model import decode_facts, load
from ostiaryd.policy.model.replay import Replay
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, Agent, Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.flows.elevating import MAX_ELEVATIONS
from ostiaryd.tasks.model import Task, TaskSpec
from ostiaryd.tasks.store import elevations
from tests.support.api_fixtures import SECOND, Client, claims_of, oauth_app, register
from tests.support.policy_fixtures import put

WRITE = "files:write"
BASE = """
permit (principal, action == Action::"issue_token", resource);
permit (principal, action == Action::"call", resource);
permit (principal, action == Action::"delegate", resource);
"""
PERMITS = 'permit (principal, action == Action::"elevate", resource) when { context.minutes <= 15 };'
FORBIDS = '@id("no") @reason("not today") forbid (principal, action == Action::"elevate", resource);'
ASKS = (
    '@id("asks") @ask("two") forbid (principal, action == Action::"elevate", resource) when { context.minutes > 60 };'
)


@dataclass
class Stage:
    world: World
    agent: Agent
    client: Client

    async def request(self, *, by: Caller | None = None, **wanted: Any) -> tuple[Task | None, Question | None]:
        right: dict[str, Any] = {"scopes": [WRITE], "reason": "to repair the report"}
        asked = flows.ElevationRequest(**right | wanted)
        who = by or agent_caller(self.agent)

        def flow(act: Act) -> tuple[Task | None, Question | None]:
            registry.record_caller(act, who)
            return flows.request(act, asked, by=who, config=self.world.config)

        return await act(self.world, "elevation.request", flow)

    async def granted(self, **wanted: Any) -> Task:
        task, question = await self.request(**wanted)
        if task is None:
            assert question is not None
            await self.answer(question)
            task, _ = await self.request(**wanted)
        assert task is not None
        return task

    async def answer(self, question: Question, by: str = "carol", says: str = "approve", **narrowing: Any) -> Question:
        id = await create_person(self.world, by) if by not in PEOPLE else PEOPLE[by]
        who = Caller(kind="person", id=id, name=by, owner=None, scopes=frozenset({APPROVE}), jkt="key")
        config = replace(self.world.config, approvers=by)

        def flow(act: Act) -> Question:
            parts = Narrowing(**narrowing)
            return flows.answer(
                act, question.approval_id, Says(says), reason="go", by=who, config=config, narrowing=parts
            )

        return await act(self.world, f"approval.{says}", flow)

    async def allow(self, *scopes: str) -> None:
        await act(self.world, "elevation.allow", lambda act: tasks.set_eligible(act, self.agent.agent_id, list(scopes)))

    def entry(self) -> Entry:
        return newest_entry(self.world)


PEOPLE: dict[str, str] = {}


@pytest.fixture
async def stage(world: World) -> Stage:
    """An agent that reads, and is eligible to write."""
    agent, key = await register(world, scopes=("files:read",))
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.ask()
    made = Stage(world, agent, client)
    await made.allow(WRITE)
    return made


async def code_of(awaitable: Any) -> str:
    try:
        await awaitable
    except Refused as refusal:
        return refusal.code
    return ""


# --------------------------------------------------------------------------------------- Policies permit, refuse or ask


async def test_a_policy_grants_an_elevation_at_once_and_tokens_have_the_scope_until_its_end(
    stage: Stage, clock: Clock
) -> None:
    await put(stage.world, {"a.cedar": BASE + PERMITS})
    task, question = await stage.request(minutes=15)
    assert question is None
    assert task is not None
    assert (stage.entry().action, stage.entry().task) == ("elevation.grant", task.task_id)
    assert task.expires_at == stage.world.now() + 15 * 60 * SECOND
    claims = claims_of((await stage.client.token(task=task.task_id, scope=WRITE))["access_token"])
    assert (claims["scope"], claims["task"]) == (WRITE, task.task_id)
    clock.advance(15 * 60 - 10)
    assert (await stage.client.token(task=task.task_id, scope=WRITE))["expires_in"] == 10
    clock.advance(10)
    assert (await stage.client.ask(task=task.task_id, scope=WRITE)).error == "invalid_grant"
    entry = stage.entry()
    assert (entry.outcome, [one.code for one in entry.reasons]) == ("refused", ["elevation_ended"])


async def test_an_approver_can_reduce_the_minutes_of_an_elevation(stage: Stage) -> None:
    _, question = await stage.request(minutes=60)
    assert question is not None
    for name, wrong in (("dan", "61"), ("eve", "0"), ("fay", "1.5")):
        with pytest.raises(Invalid, match="`minutes` must be a whole number from 1 to 60"):
            await stage.answer(question, by=name, at_most={"minutes": wrong})
    await stage.answer(question, at_most={"minutes": "5"})
    task, _ = await stage.request(minutes=60)
    assert task is not None
    assert task.expires_at == stage.world.now() + 5 * 60 * SECOND
    again, _ = await stage.request(minutes=60)
    assert again is not None
    assert again.task_id == task.task_id, "a repeated request returns the shorter elevation"
    entry = stage.entry()
    assert (entry.action, entry.object, entry.task) == ("approval.again", question.approval_id, task.task_id)


async def test_an_elevation_without_a_policy_needs_an_approval_that_is_spent_once(stage: Stage) -> None:
    task, question = await stage.request()
    assert task is None
    assert question is not None
    assert (question.kind, question.needs, stage.entry().action) == ("elevate", "person", "elevation.request")
    assert question.about.arguments == {
        "scopes": [WRITE],
        "minutes": 30,
        "reason": "to repair the report",
        "break_glass": False,
    }
    assert (await stage.client.ask(scope=WRITE)).error == "invalid_scope"
    waiting = await stage.request()
    assert waiting[1] is not None
    assert waiting[1].approval_id == question.approval_id
    await stage.answer(question)
    granted, _ = await stage.request()
    assert granted is not None
    entry = stage.entry()
    assert entry.action == "elevation.grant"
    assert entry.detail is not None
    assert (entry.detail["approval"], len(entry.detail["people"])) == (question.approval_id, 1)
    again, _ = await stage.request()
    assert again is not None
    assert again.task_id == granted.task_id, "who did not hear of it is told, and gets no second one"
    await act(stage.world, "task.end", lambda act: tasks.end(act, granted.task_id))
    assert await code_of(stage.request()) == "approval_spent"


async def test_two_concurrent_requests_get_one_elevation(stage: Stage) -> None:
    _, question = await stage.request()
    assert question is not None
    await stage.answer(question)
    both = await asyncio.gather(stage.request(), stage.request())
    assert len({task.task_id for task, _ in both if task is not None}) == 1
    assert all(task is not None for task, _ in both)


async def test_an_elevation_decision_can_be_replayed(stage: Stage) -> None:
    """What-if evaluates the request again; a request that people decide has no verdict to replay."""
    await stage.request()
    assert stage.entry().facts is None
    await put(stage.world, {"a.cedar": BASE + PERMITS})
    await stage.request(minutes=10)
    reader = stage.world.db.read()
    size = ledger.get_head(reader)[0].size
    ((_, _, kept),) = ledger.list_entries_with_facts(reader, size - 1, size)
    assert kept is not None
    facts = decode_facts(kept)
    for more, allowed in ((PERMITS, True), (FORBIDS, False)):
        loaded = load({"a.cedar": BASE + more})
        replay = Replay(loaded.policies, loaded.ir, catalogue=lambda _: None)
        (asked,) = facts.posed
        assert asked is not None
        assert replay.judge(asked, at=facts.at).allowed is allowed


async def test_an_approval_is_for_exactly_these_scopes_minutes_and_reason(stage: Stage) -> None:
    await stage.allow(WRITE, "files:admin")
    _, question = await stage.request()
    assert question is not None
    await stage.answer(question)
    for other in ({"minutes": 31}, {"reason": "other"}, {"scopes": [WRITE, "files:admin"]}):
        task, asked = await stage.request(**other)
        assert task is None
        assert asked is not None
        assert asked.approval_id != question.approval_id
    assert (await stage.request())[0] is not None


async def test_a_policy_can_forbid_an_elevation_or_require_two_people(stage: Stage) -> None:
    await put(stage.world, {"a.cedar": BASE + FORBIDS + ASKS})
    assert await code_of(stage.request()) == "access_denied"
    assert await code_of(stage.request(break_glass=True)) == "access_denied", "an emergency breaks no `forbid`"
    for permits in ("", 'permit (principal, action == Action::"elevate", resource);'):
        await put(stage.world, {"a.cedar": BASE + ASKS + permits})
        _, question = await stage.request(minutes=61)
        assert question is not None
        assert (question.needs, question.about.policies) == ("two", ["asks"])
    assert question is not None
    await stage.answer(question, "carol")
    assert (await stage.request(minutes=61))[0] is None, "one of two"
    await stage.answer(question, "dave")
    assert (await stage.request(minutes=61))[0] is not None


async def test_a_denied_elevation_request_stays_denied(stage: Stage) -> None:
    _, question = await stage.request()
    assert question is not None
    await stage.answer(question, says="deny")
    assert await code_of(stage.request()) == "approval_denied"


async def test_an_agent_cannot_approve_an_elevation(stage: Stage) -> None:
    _, question = await stage.request()
    assert question is not None
    config = stage.world.config
    for who in (agent_caller(stage.agent), agent_caller(stage.agent, APPROVE, "ostiary:admin")):

        def flow(act: Act, who: Caller = who) -> Question:
            return flows.answer(act, question.approval_id, Says.APPROVE, reason="go", by=who, config=config)

        assert await code_of(act(stage.world, "approval.approve", flow)) == "own_chain"
    other, _ = await register(stage.world, name="other")

    def by_other(act: Act) -> Question:
        return flows.answer(act, question.approval_id, Says.APPROVE, reason="go", by=agent_caller(other), config=config)

    assert await code_of(act(stage.world, "approval.approve", by_other)) == "no_person"


# ------------------------------------------------------------------------------------------------ Never more, or longer


async def test_an_agent_is_elevated_only_to_scopes_that_the_operator_listed(stage: Stage) -> None:
    with pytest.raises(Forbidden, match="is not eligible for files:admin") as refused:  # before anybody is asked
        await stage.request(scopes=[WRITE, "files:admin"])
    assert refused.value.code == "not_eligible"
    await put(stage.world, {"a.cedar": BASE + 'permit (principal, action == Action::"elevate", resource);'})
    assert await code_of(stage.request(scopes=[WRITE, "files:admin"])) == "not_eligible"
    other, _ = await register(stage.world, name="other", scopes=("files:read",))
    assert await code_of(stage.request(by=agent_caller(other))) == "not_eligible", "what another agent is eligible for"
    who = Caller(kind="person", id=await create_person(stage.world, "eve"), name="eve", owner=None, scopes=frozenset())
    assert await code_of(stage.request(by=who)) == "no_agent"


@pytest.mark.parametrize(
    ("most", "wanted"), [(MAX_MINUTES, {}), (MAX_MINUTES_OF_GLASS, {"break_glass": True})], ids=["usual", "glass"]
)
async def test_an_elevation_lasts_from_one_minute_to_the_maximum(
    stage: Stage, most: int, wanted: dict[str, Any]
) -> None:
    for minutes in (0, -1, most + 1):
        with pytest.raises(Invalid, match=f"an elevation must last 1 to {most} minutes"):
            await stage.request(minutes=minutes, **wanted)
    for minutes in (1, most):
        assert (await stage.request(minutes=minutes, **wanted))[1] is not None


async def test_an_invalid_elevation_request_is_refused(stage: Stage) -> None:
    many = [f"files:s{number}" for number in range(MAX_SCOPES + 1)]
    await stage.allow(*many)
    wishes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"scopes": []}, f"an elevation must have 1 to {MAX_SCOPES} scopes"),
        ({"scopes": many}, f"an elevation must have 1 to {MAX_SCOPES} scopes"),
        ({"scopes": ["files"]}, "the scope 'files' is not of the form"),
        ({"reason": " "}, "the reason must have 1 to"),
        ({"reason": "x" * 10_000}, "the reason must have 1 to"),
    )
    for wrong, message in wishes:
        with pytest.raises(Invalid, match=message):
            await stage.request(**wrong)
    assert (await stage.request(scopes=many[:-1]))[1] is not None


async def test_an_elevation_cannot_be_renewed(stage: Stage) -> None:
    task = await stage.granted()
    with pytest.raises(Conflict, match="elevation"):
        await act(stage.world, "task.renew", lambda act: tasks.renew(act, task.task_id, ttl_s=86_400))


async def test_an_elevation_cannot_be_delegated(stage: Stage) -> None:
    """An elevation passes on neither in a subtask nor in a token, even to an agent that has the scope itself."""
    task = await stage.granted()
    other, key = await register(stage.world, name="other", scopes=("files:read", WRITE))

    def part(agent: Agent, scopes: list[str] | None) -> Callable[[Act], Task]:
        return lambda act: tasks.start(
            act,
            TaskSpec(
                agent=agent.agent_id, purpose="a part", scopes=scopes, parent=task.task_id, by=agent_caller(stage.agent)
            ),
        )

    with pytest.raises(Forbidden):
        await act(stage.world, "task.start", part(stage.agent, [WRITE]))
    made = await act(stage.world, "task.start", part(other, [WRITE]))
    assert tasks.live(stage.world.db.read(), made.task_id, now=stage.world.now()).scopes == frozenset()
    own = await act(stage.world, "task.start", part(stage.agent, None))
    assert own.scopes == {"files:read"}

    handed = await stage.client.token(task=task.task_id, resource=f"https://ostiary.example.org/agents/{other.name}")
    acting = Client(stage.client.app, stage.world, other.agent_id, key, stage.client.nonce)
    kind = "urn:ietf:params:oauth:token-type:access_token"
    answer = await acting.ask(
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=handed["access_token"],
        subject_token_type=kind,
        scope=WRITE,
    )
    assert answer.error == "invalid_scope"


async def test_an_elevation_ends_once_its_scope_is_no_longer_eligible(stage: Stage) -> None:
    task = await stage.granted()
    await stage.client.token(task=task.task_id, scope=WRITE)
    await stage.allow(WRITE, "files:admin")
    assert tasks.find_task(stage.world.db.read(), task.task_id).is_live(stage.world.now())
    await stage.allow("files:admin")
    assert not tasks.find_task(stage.world.db.read(), task.task_id).is_live(stage.world.now())
    assert (await stage.client.ask(task=task.task_id)).error == "invalid_grant"


async def test_an_elevation_ends_with_its_agent(stage: Stage) -> None:
    end = stage.world.now() + 60 * SECOND
    await act(stage.world, "agent.change", lambda act: registry.set_end(act, stage.agent.agent_id, end))
    assert (await stage.granted()).expires_at == end


async def test_an_agent_has_a_limited_number_of_elevations_at_once(stage: Stage) -> None:
    await put(stage.world, {"a.cedar": BASE + PERMITS})
    for _ in range(MAX_ELEVATIONS):
        assert (await stage.request(minutes=1))[0] is not None
    assert await code_of(stage.request(minutes=1)) == "too_many_elevations"


# --------------------------------------------------------------------------------------------------------- Break-glass


async def examined(world: World) -> str:
    try:
        return await dict(doctor.EXPERIMENTS)["elevations"](world)
    except Refused as refusal:
        return f"{refusal.code}: {refusal.message}"


async def test_emergency_access_always_needs_two_people_and_the_doctor_reports_it(stage: Stage, clock: Clock) -> None:
    await put(stage.world, {"a.cedar": BASE + PERMITS})
    assert await examined(stage.world) == "no emergency access is in use"
    task, question = await stage.request(minutes=10, break_glass=True)
    assert task is None
    assert question is not None
    assert question.needs == "two"
    await stage.answer(question, "carol")
    assert (await stage.request(minutes=10, break_glass=True))[0] is None
    clock.advance(1)
    await stage.answer(question, "dave")
    assert (await stage.request(minutes=10))[0] is not None, "the usual one, which a policy permits, spends nothing"
    granted, _ = await stage.request(minutes=10, break_glass=True)
    assert granted is not None
    entry = stage.entry()
    assert entry.action == "elevation.break_glass"
    assert entry.detail is not None
    assert len(entry.detail["people"]) == 2
    assert "unprotected: `reader` has emergency access for files:write (by carol and dave), for 600 s more" in (
        await examined(stage.world)
    )
    (listed,) = [
        flows.show_elevation(stage.world.db.read(), one, now=stage.world.now())
        for one in elevations.list_emergency_elevations(stage.world.db.read(), now=stage.world.now(), limit=9)
    ]
    assert (listed["break_glass"], listed["people"], listed["scopes"]) == (True, ["carol", "dave"], [WRITE])
    clock.advance(600)
    assert await examined(stage.world) == "no emergency access is in use"


async def test_one_person_cannot_give_both_approvals_of_emergency_access(stage: Stage) -> None:
    _, question = await stage.request(break_glass=True)
    assert question is not None
    await stage.answer(question, "carol")
    PEOPLE["carol"] = (await stage.world.db.scan(lambda r: registry.find_person(r, "carol"))).person_id
    try:
        assert await code_of(stage.answer(question, "carol")) == "answered_already"
    finally:
        PEOPLE.clear()
    assert (await stage.request(break_glass=True))[0] is None

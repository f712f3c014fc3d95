"""A row that was changed behind the server's back is noticed, and stops the agent that it is about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from harness.client_certificates import TestAuthority
from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import create_holding, feed_messages, new_jwk, register_agent, run_act
from ostiary.decision.feed import TokenFact
from ostiary.protocol.errors import Conflict
from ostiaryd.app import build_app
from ostiaryd.certs.flows import acme, trust_domains, workloads
from ostiaryd.certs.model.workload import Selectors
from ostiaryd.feed.flows.snapshot import snapshot
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import sql
from ostiaryd.ground.database.guarded import GUARDED, digests, page
from ostiaryd.ground.world import World, open_world
from ostiaryd.incidents import store as incidents
from ostiaryd.incidents.flows import kills, state
from ostiaryd.incidents.flows.state import (
    StateCheck,
    check_at_start,
    check_deeply,
    check_state,
    describe,
    state_check,
)
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import MAX_ROWS, Entry, decode_entry
from ostiaryd.policy import store as policies
from ostiaryd.policy.model import load, starter_files
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentSpec, AgentState, Caller, Verb
from ostiaryd.registry.store import agents, stops
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.trust import flows as trust
from tests.support.acme_client import AcmeClient
from tests.support.database_changes import change_database, complete_state_check
from tests.support.pin_fixtures import add, rewind, saved

ADMIN = Caller(kind="agent", id="ag_admin", name="admin", owner=None, scopes=frozenset({"ostiary:admin"}))
URI = "https://files.example"


@pytest.fixture
async def bot(world: World) -> Agent:
    """An agent with a key and a task, in a world in which everything has been compared once."""
    await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))
    await register_agent(world, "bot")
    await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="work")))
    await complete_state_check(world)
    return registry.find_agent(world.db.read(), "bot")


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": action}, limit=100)]


async def suspend(world: World, bot: Agent) -> None:
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))


async def revoke_key(world: World, bot: Agent) -> None:
    row = world.db.read().one(sql("select jkt from agent_key where agent = :agent"), agent=bot.agent_id)
    assert row is not None
    await run_act(world, lambda a: registry.add_key(a, "bot", new_jwk()))
    await run_act(world, lambda a: registry.revoke_key(a, row[0]))


async def end_task(world: World, bot: Agent) -> None:
    row = world.db.read().one(sql("select task_id from task where agent = :agent"), agent=bot.agent_id)
    assert row is not None
    await run_act(world, lambda a: tasks.end(a, row[0]))


async def nothing(world: World, bot: Agent) -> None:
    pass


async def name_certificate(world: World, bot: Agent) -> None:
    subject = {"tls_client_auth_san_dns": "bot.example"}
    await run_act(world, lambda a: trust.set_certificate_client(a, "bot", subject=subject))


async def register_own_certificate(world: World, bot: Agent) -> None:
    pem = TestAuthority(at=datetime.fromtimestamp(world.now() // 1_000_000, UTC)).pem
    await run_act(world, lambda a: trust.set_certificate_client(a, "bot", subject={}, certificates=[pem]))


async def add_workload(world: World, bot: Agent) -> None:
    selectors = Selectors(uid=1000, path="/usr/bin/bot")
    await run_act(world, lambda a: workloads.add_workload(a, "bot", selectors, config=world.config))


async def federate(world: World, bot: Agent) -> None:
    url = "https://partner.example/bundle"
    await run_act(world, lambda a: trust_domains.add_trust_domain(a, "partner.example", url, config=world.config))
    await run_act(world, lambda a: trust_domains.allow_agent(a, "partner.example", "bot"))


async def create_acme_account(world: World, bot: Agent) -> None:
    made = await run_act(world, lambda a: acme.create_key(a, agent="bot", person=None, config=world.config))
    client = AcmeClient(build_app(world))
    assert (await client.register(made.key.kid, made.mac_key)).status == 201


Before = Callable[[World, Agent], Any]
CHANGES: dict[str, tuple[Before, str]] = {
    "a suspended agent set active": (suspend, "update agent set state = 'active' where agent_id = :agent"),
    "an epoch lowered": (suspend, "update agent set epoch = 0 where agent_id = :agent"),
    "scopes added": (nothing, "update agent set scopes = 'files:write' where agent_id = :agent"),
    "another owner": (nothing, "update agent set owner = 'pe_mallory' where agent_id = :agent"),
    "another segment": (nothing, "update agent set segment = 'inner' where agent_id = :agent"),
    "an end removed or moved": (nothing, "update agent set expires_at = 9000000000000000 where agent_id = :agent"),
    "a revoked key set unrevoked": (revoke_key, "update agent_key set revoked_at = null where agent = :agent"),
    "a key given to another agent": (nothing, "update agent_key set jwk = '{}' where agent = :agent"),
    "a key inserted": (
        nothing,
        "insert into agent_key (jkt, agent, alg, jwk, added_at) values ('forged', :agent, 'ES256', '{}', 0)",
    ),
    "a key deleted": (nothing, "delete from agent_key where agent = :agent"),
    "an ended task set live": (end_task, "update task set state = 'live', ended_at = null where agent = :agent"),
    "a task's end moved": (nothing, "update task set expires_at = expires_at + 1 where agent = :agent"),
    "a task's bounds removed": (nothing, "update task set bounds = '[{}]' where agent = :agent"),
    "a task deleted": (nothing, "delete from task where agent = :agent"),
    "a task inserted": (
        nothing,
        "insert into task (task_id, agent, purpose, scopes, bounds, state, created_at, expires_at)"
        " values ('tk_forged', :agent, 'x', '', '[]', 'live', 0, 9000000000000000)",
    ),
    "an exemption from bound tokens": (
        nothing,
        "insert into bearer_exemption (agent, resource, since) values (:agent, 'rs_x', 0)",
    ),
    "a client secret": (
        nothing,
        "insert into client_secret (id, agent, digest, created_at, expires_at)"
        " values ('cs_x', :agent, 'x', 0, 9000000000000000)",
    ),
    "the subject of a certificate": (
        name_certificate,
        "update certificate_client set value = 'x' where client = :agent",
    ),
    "no more authentication by certificate": (name_certificate, "delete from certificate_client where client = :agent"),
    "authentication by certificate": (
        nothing,
        "insert into certificate_client (client, method, kind, value, is_bound, since)"
        " values (:agent, 'tls_client_auth', 'tls_client_auth_san_dns', 'mallory.example', 0, 0)",
    ),
    "a certificate replaced": (
        register_own_certificate,
        "update client_certificate set certificate = 'x' where client = :agent",
    ),
    "a certificate deleted": (register_own_certificate, "delete from client_certificate where client = :agent"),
    "the processes of a workload": (add_workload, "update workload set selectors = '{}' where agent = :agent"),
    "a workload deleted": (add_workload, "delete from workload where agent = :agent"),
    "a workload inserted": (
        nothing,
        "insert into workload (workload_id, agent, selectors, created_at) values ('wl_x', :agent, '{}', 0)",
    ),
    "a trust domain no more trusted": (federate, "delete from trust_domain_agent where agent = :agent"),
    "the names of an ACME key": (create_acme_account, "update acme_key set names = '*' where holder = :agent"),
    "an ACME key deleted": (create_acme_account, "delete from acme_key where holder = :agent"),
    "the key of an ACME account": (create_acme_account, "update acme_account set jwk = '{}' where holder = :agent"),
    "an ACME account deleted": (create_acme_account, "delete from acme_account where holder = :agent"),
    "scopes to be elevated to": (nothing, "insert into eligible (agent, scopes) values (:agent, 'files:write')"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_by_hand_stops_the_agent_with_an_incident_and_an_entry(
    world: World, bot: Agent, change: str
) -> None:
    before, statement = CHANGES[change]
    await before(world, bot)
    assert "every guarded row" in describe(await complete_state_check(world))
    change_database(world, statement, agent=bot.agent_id)
    check = world.get_singleton(state_check)
    await check_state(world)
    await check_state(world)
    agent = registry.find_agent(world.db.read(), bot.agent_id)
    assert agent.state is (AgentState.SUSPENDED if change == "an epoch lowered" else AgentState.QUARANTINED)
    assert (
        stops.find_awaited_incident(world.db.read(), bot.agent_id) is not None
    )  # nothing but a person's word lets it go
    incident = incidents.find_open(world.db.read(), bot.agent_id)
    assert incident is not None
    assert "the state differs from the ledger" in incident.says
    assert len(entries(world, "state.differs")) == 1
    assert check.reported


SECRETS = {
    "inserted": "insert into client_secret (id, agent, digest, created_at, expires_at)"
    " select 'cs_x', resource_id, 'x', 0, 9000000000000000 from resource where name = 'files'",
    "changed": "update client_secret set expires_at = 9000000000000000",
    "deleted": "delete from client_secret",
}


@pytest.mark.parametrize("change", SECRETS)
async def test_the_secret_of_a_resource_that_is_changed_by_hand_stops_the_resource(
    world: World, bot: Agent, change: str
) -> None:
    await run_act(world, lambda a: trust.create_resource_secret(a, "files"))
    assert "every guarded row" in describe(await complete_state_check(world))
    change_database(world, SECRETS[change])
    await complete_state_check(world)
    assert [(one.target_kind, one.value) for one in registry.list_stops(world.db.read())] == [("resource", URI)]
    assert registry.find_agent(world.db.read(), "bot").state is AgentState.ACTIVE


REVOKED = {
    "set live": "update holding set ended_at = null where id = 'tok_x'",
    "deleted before its expiry": "delete from holding where id = 'tok_x'",
    "expired": "update holding set expires_at = 1 where id = 'tok_x'",
    "for another resource": "update holding set audience = 'https://other.example.org' where id = 'tok_x'",
    "of another kind": "update holding set kind = 'part' where id = 'tok_x'",
}


@pytest.mark.parametrize("change", REVOKED)
async def test_the_row_of_a_revoked_token_that_is_changed_or_deleted_stops_the_agent(
    world: World, bot: Agent, change: str
) -> None:
    await create_holding(world, bot, "tok_x", audience="https://files.example.org/mcp")
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.TOKEN, "tok_x"))
    assert "every guarded row" in describe(await complete_state_check(world))
    change_database(world, REVOKED[change])
    await check_state(world)
    await check_state(world)
    assert registry.find_agent(world.db.read(), bot.agent_id).state is AgentState.QUARANTINED


@pytest.mark.parametrize("late", [-1, 0])
async def test_the_row_of_a_revoked_token_may_be_deleted_once_it_has_expired(
    world: World, bot: Agent, clock: Clock, late: int
) -> None:
    await create_holding(world, bot, "tok_x", audience="https://files.example.org/mcp")
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.TOKEN, "tok_x"))
    await complete_state_check(world)
    row = world.db.read().one(sql("select expires_at from holding where id = 'tok_x'"))
    assert row is not None
    change_database(world, "delete from holding where id = 'tok_x'")
    clock.advance(us=row[0] - clock.now + late)
    await check_state(world)
    await check_state(world)
    state = registry.find_agent(world.db.read(), bot.agent_id).state
    assert state is (AgentState.QUARANTINED if late < 0 else AgentState.ACTIVE)


GLOBAL = {
    "a stop deleted": "delete from stop where what = 'segment'",
    "a stop inserted": "insert into stop (what, value, since, why) values ('model', 'm', 0, '')",
    "a policy set activated": """update policy_active set hash =
        (select min(hash) from policy_set where hash <> policy_active.hash)""",
    "a policy changed": "update policy_set set ir = ir || ' '",
    "a person changed": "update person set deputy = null, state = 'left'",
    "a person's key": """insert into person_key (jkt, person, alg, jwk, added_at)
        select 'forged', person_id, 'ES256', '{}', 0 from person limit 1""",
}


@pytest.mark.parametrize("change", GLOBAL)
async def test_a_change_by_hand_of_a_row_that_concerns_all_agents_stops_everything(
    world: World, bot: Agent, change: str
) -> None:
    await run_act(world, lambda a: kills.kill(a, "segment", "inner", why="a test", by=ADMIN))
    await run_act(world, put_policies)
    assert "every guarded row" in describe(await complete_state_check(world))
    change_database(world, GLOBAL[change])
    check = await complete_state_check(world)
    with pytest.raises(Conflict, match="without a ledger entry|was inserted"):
        describe(check)
    assert ("everything", "") in [(one.target_kind, one.value) for one in registry.list_stops(world.db.read())]


def put_policies(act: Any) -> None:
    loaded = load({"a.cedar": "permit (principal, action, resource);"})
    policies.insert(act.tx, loaded, by="a test")
    policies.insert(act.tx, starter_files(), by="a test")
    policies.activate(act.tx, loaded.hash)


async def test_a_resource_that_was_changed_by_hand_is_stopped(world: World, bot: Agent) -> None:
    change_database(world, "update resource set mode = 'watch' where uri = :uri", uri=URI)
    await complete_state_check(world)
    assert ("resource", URI) in [(one.target_kind, one.value) for one in registry.list_stops(world.db.read())]
    assert registry.find_agent(world.db.read(), "bot").state is AgentState.ACTIVE


async def test_a_difference_stops_everything_if_the_server_may_add_no_other_stop(
    world: World, bot: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.registry.model.stop.MAX_OURS", 1)
    await run_act(world, lambda a: kills.kill(a, "segment", "inner", why="a test", by=ADMIN))
    change_database(world, "update resource set mode = 'watch' where uri = :uri", uri=URI)
    await complete_state_check(world)
    stops = [(one.target_kind, one.value) for one in registry.list_stops(world.db.read())]
    assert sorted(stops) == [("everything", ""), ("segment", "inner")]


async def test_guards_learn_that_an_agent_deleted_by_hand_is_decommissioned(world: World) -> None:
    await run_act(world, lambda a: registry.create_person(a, name="ada", email="ada@example.org"))
    new = await run_act(world, lambda a: registry.create_agent(a, AgentSpec(name="new", owner="ada", purpose="x")))
    await complete_state_check(world)
    told = len(feed_messages(world))
    change_database(world, "delete from agent where name = 'new'")
    check = await complete_state_check(world)
    (difference,) = check.differences.values()
    assert str(difference).endswith("was deleted without a ledger entry")
    assert len(entries(world, "state.differs")) == 1
    agent = {"kind": "agent", "agent": new.agent_id, "state": "decommissioned", "epoch": state.LAST_EPOCH}
    assert feed_messages(world)[told:] == [agent]


async def test_the_tokens_of_an_agent_deleted_by_hand_are_refused_by_every_guard(world: World, bot: Agent) -> None:
    for verb in (Verb.SUSPEND, Verb.RESUME) * 2:
        await run_act(world, lambda a, verb=verb: registry.set_agent_state(a, "bot", verb))  # type: ignore[misc]
    await create_holding(world, bot, "tok_1", audience=URI)
    epoch = registry.find_agent(world.db.read(), "bot").epoch
    await complete_state_check(world)
    told = len(feed_messages(world))
    for table, column in (("agent_key", "agent"), ("task", "agent"), ("agent", "agent_id")):
        change_database(world, f"delete from {table} where {column} = :agent", agent=bot.agent_id)
    await complete_state_check(world)
    [change] = [message for message in feed_messages(world)[told:] if message["kind"] == "agent"]
    assert (change["agent"], change["state"]) == (bot.agent_id, "decommissioned")
    assert change["epoch"] > epoch > 1, "a guard that knows a higher epoch takes the message for an older one"
    resource = registry.find_resource(world.db.read(), "files")
    facts = snapshot(world.db.read(), world.keys, resource, now=world.now())
    assert [fact.jti for fact in facts if isinstance(fact, TokenFact)] == ["tok_1"], "a guard that starts later"


async def test_acts_of_the_server_cause_no_difference(world: World, bot: Agent) -> None:
    await suspend(world, bot)
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.RESUME))
    await run_act(world, lambda a: registry.set_scopes(a, "bot", ["files:read"]))
    await revoke_key(world, bot)
    await end_task(world, bot)
    await run_act(world, lambda a: kills.kill(a, "segment", "inner", why="a test", by=ADMIN))
    await run_act(world, lambda a: kills.let_go(a, "segment", "inner", why="a test"))
    assert "every guarded row" in describe(await complete_state_check(world))
    assert "every guarded row" in await check_deeply(world)


async def test_the_entry_of_a_refused_act_names_no_rows(world: World, bot: Agent) -> None:
    def refused(act: Any) -> None:
        registry.set_agent_state(act, "bot", Verb.SUSPEND)
        raise Conflict("no")

    with pytest.raises(Conflict):
        await run_act(world, refused, "test.refused")
    assert [list(entry.rows) for entry in entries(world, "test.refused")] == [[]]
    assert "every guarded row" in describe(await complete_state_check(world))


async def test_a_row_that_is_written_without_an_entry_fails_the_batch(world: World, bot: Agent) -> None:
    with pytest.raises(RuntimeError, match="without an entry"):
        await world.writer.submit(lambda tx: agents.set_state(tx, bot.agent_id, AgentState.ACTIVE, epoch=0))
    assert registry.find_agent(world.db.read(), "bot") == bot


async def test_rows_from_before_the_first_check_are_named_once_by_a_baseline_entry(world: World) -> None:
    change_database(world, "insert into team (team_id, name, created_at) values ('te_old', 'old', 0)")
    check = await complete_state_check(world)
    assert not check.differences
    baseline = entries(world, "state.baseline")
    assert [list(entry.rows) for entry in baseline] == [["team te_old"]]
    change_database(world, "insert into team (team_id, name, created_at) values ('te_new', 'new', 0)")
    assert list((await complete_state_check(world)).differences) == ["team te_new"]
    assert len(entries(world, "state.baseline")) == 1


async def test_a_row_that_matches_only_an_older_entry_is_a_difference(world: World, bot: Agent) -> None:
    """The row is exactly what an earlier entry said of it."""
    name = f"agent {bot.agent_id}"
    earlier = digests(world.db.read(), [name])
    await suspend(world, bot)
    change_database(
        world,
        "update agent set state = 'active', epoch = :epoch where agent_id = :agent",
        agent=bot.agent_id,
        epoch=bot.epoch,
    )
    assert digests(world.db.read(), [name]) == earlier
    assert name in {one.name for one in (await complete_state_check(world)).reported}


async def test_an_entry_that_was_changed_with_its_row_is_a_difference_of_the_ledger(world: World, bot: Agent) -> None:
    await suspend(world, bot)
    change_database(world, "update entry set body = :body where idx = 1", body=b'{"at":1,"action":"x"}')
    with pytest.raises(Conflict, match="do not lead to the signed checkpoint"):
        await check_deeply(world)
    assert ("everything", "") in [(one.target_kind, one.value) for one in registry.list_stops(world.db.read())]


@pytest.mark.parametrize("more", [0, 1, 2, 40])
async def test_another_copy_of_the_database_is_read_again_without_a_difference(
    config: Config, clock: Clock, more: int
) -> None:
    """A failover to a replica that lags: the copy has gone on since, to fewer, as many or more entries."""
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        await add(world, 3)
        older = saved(world)
        await add(world, 2)
        check = world.get_singleton(state_check)
        while check.is_behind:
            await check_state(world)
        await rewind(world, older)
        (config.folder / "ledger.pin").rename(config.folder / "kept.pin")  # the copy belongs to another server
        async with open_world(config, now=clock, random=SeededRandom("two")) as other:
            clock.advance(1)
            await add(other, more)
            for _ in range(4):
                await other.db.scan(lambda reader: check.step(reader, now=other.now()))
        assert (
            describe(check)
            == f"every guarded row matches the newest entry that names the row ({older[0] + more} entries)"
        )


@pytest.mark.parametrize("count", [MAX_ROWS - 1, MAX_ROWS, MAX_ROWS + 1, 3 * MAX_ROWS + 1])
async def test_the_rows_of_a_large_act_are_spread_over_entries(world: World, bot: Agent, count: int) -> None:
    def many(act: Any) -> None:
        for number in range(count):
            act.tx.touch("team", f"te_{number}")

    before = ledger.get_head(world.db.read())[0].size
    await run_act(world, many, "test.many")
    made = [decode_entry(body) for body in ledger.list_entry_bodies(world.db.read(), before, 100)]
    assert [entry.action for entry in made] == ["test.many", *["state.rows"] * ((count - 1) // MAX_ROWS)]
    assert sum(len(entry.rows) for entry in made) == count
    assert max(len(entry.rows) for entry in made) <= MAX_ROWS


async def test_a_difference_is_reported_once_and_found_again_after_a_restart(world: World, bot: Agent) -> None:
    change_database(world, "update agent_key set not_after = 9000000000000000 where agent = :agent", agent=bot.agent_id)
    await complete_state_check(world)
    await complete_state_check(world)
    assert len(entries(world, "state.differs")) == 1
    again = StateCheck(world.keys)
    while again.is_behind:
        await world.db.scan(lambda reader: again.step(reader, now=world.now()))
    assert again.differences


@pytest.mark.parametrize(("us", "found"), [(0, True), (state.REMEMBERED, True), (state.REMEMBERED + 1, False)])
async def test_the_row_of_an_ended_task_may_be_deleted_after_its_retention_time(
    world: World, bot: Agent, clock: Clock, us: int, found: bool
) -> None:
    await end_task(world, bot)
    change_database(world, "delete from task where agent = :agent", agent=bot.agent_id)
    clock.advance(us=us)
    check = StateCheck(world.keys)
    while check.is_behind:
        await world.db.scan(lambda reader: check.step(reader, now=world.now()))
    assert bool(check.differences) is found


async def test_every_kind_of_guarded_row_can_be_read_by_page_and_by_key(world: World, bot: Agent) -> None:
    reader = world.db.read()
    for kind in GUARDED:
        rows, _ = page(reader, kind, after="", limit=100)
        names = [row.name for row in rows]
        assert digests(reader, names) == {row.name: row.digest for row in rows}
        assert digests(reader, [f"{kind} nothing", f"{kind} none"]) == {f"{kind} nothing": "", f"{kind} none": ""}


@pytest.mark.parametrize("more", [0, 1])
async def test_the_state_check_at_start_takes_at_most_its_number_of_steps(
    world: World, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(state, "ENTRIES", 1)
    check = world.get_singleton(state_check)
    await add(world, state.START_STEPS + more - ledger.get_head(world.db.read())[0].size)
    await check_at_start(world)
    assert (check.position, check.is_behind) == (state.START_STEPS, bool(more))


def test_the_state_check_at_start_reads_at_most_40000_entries_and_20000_rows() -> None:
    assert (state.START_STEPS * state.ENTRIES, state.START_STEPS * state.ROWS) == (40_000, 20_000)

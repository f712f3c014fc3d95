"""Recovery: what is evidence of a loss, what a server in recovery does, which stops are replayed, how it ends."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.clock import START, Clock, SeededRandom
from harness.registry_fixtures import create_holding, new_jwk, register_agent, run_act
from ostiary.audit.entries import FAMILIES
from ostiary.decision.feed import (
    AgentFact,
    Fact,
    KeyFact,
    KeysFact,
    Message,
    StopFact,
    TaskFact,
    TokenFact,
    render_message,
)
from ostiary.protocol import jose
from ostiary.protocol.checkpoint import Checkpoint, sign_checkpoint
from ostiary.protocol.errors import Conflict, NotFound, Refused
from ostiary.protocol.note import NoteKey
from ostiaryd import recover
from ostiaryd.app import ROUTES, build_app
from ostiaryd.feed.flows import Streams, follow_history, replay_messages
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import sql
from ostiaryd.ground.database.pin import InRecovery
from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import act
from ostiaryd.notifications import flows as webhooks
from ostiaryd.notifications import wire_webhooks
from ostiaryd.notifications.model.webhooks import TITLES
from ostiaryd.recover import describe, replay_spool
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentState, Resource, Verb
from ostiaryd.registry.store import agents, holdings, keys, stops
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.tokens.model.consent import Consent
from ostiaryd.tokens.store import consents
from ostiaryd.trust.store import people
from ostiaryd.trust.store.people import sessions_of
from tests.support.feed_streams import Listener, listening
from tests.support.lost_history import AHEAD, finish, head_of, lose, note, seen
from tests.support.page_client import add_totp, invite, signed_in
from tests.support.webhook_receiver import receiving
from tests.support.world import PUBLIC_URL

URI = "https://files.example.org/mcp"
FAR = START + 3_600_000_000


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


def line(world: World, *facts: Fact, at: int = START, aud: str = "", head: str | None = None) -> bytes:
    """A message that the server sent in the lost part."""
    message = Message(
        iss=world.config.issuer,
        prev=1,
        seq=2,
        at=at,
        facts=list(facts),
        aud=aud,
        head=note(world, AHEAD) if head is None else head,
    )
    return render_message(world.keys.signer("feed"), message)


async def administrator(world: World) -> Agent:
    return await register_agent(world, "root", scopes=["ostiary:admin"])


@pytest.mark.parametrize("change", [-1, 0, 1])
async def test_a_head_ahead_of_the_ledger_is_a_loss_and_an_equal_or_earlier_one_is_not(
    world: World, change: int
) -> None:
    await register_agent(world)
    ours = head_of(world)
    if change <= 0:
        root = store.root_at(world.db.read(), ours.size + change)
        await ledger.examine_head(world, seen(world, ours.size + change, root=root), source="a guard")
    else:
        with pytest.raises(InRecovery):
            await ledger.examine_head(world, seen(world, ours.size + 1), source="a guard")
    assert world.pin.is_lost is (change > 0)


@pytest.mark.parametrize("back", [0, 1, 2])
async def test_another_root_at_a_known_size_is_a_loss(world: World, back: int) -> None:
    for name in ("one", "two", "three"):
        await register_agent(world, name)
    with pytest.raises(InRecovery):
        await ledger.examine_head(world, seen(world, head_of(world).size - back), source="a guard")


async def test_an_unknown_history_of_this_log_is_a_loss_at_any_size(world: World) -> None:
    await register_agent(world)
    root = store.root_at(world.db.read(), 1)
    with pytest.raises(InRecovery):
        await ledger.examine_head(world, seen(world, 1, root=root, history="ab" * 16), source="a guard")


async def test_a_checkpoint_without_a_history_id_counts(world: World) -> None:
    await register_agent(world)
    ours = head_of(world)
    await ledger.examine_head(world, seen(world, ours.size, root=ours.root, history=""), source="a file")
    with pytest.raises(InRecovery):
        await ledger.examine_head(world, seen(world, AHEAD, history=""), source="a file")


async def test_a_head_signed_by_another_key_is_not_evidence_of_a_loss(world: World) -> None:
    await register_agent(world)
    key = store.get_log_key(world.db.read(), world.keys)
    forged = jose.generate("EdDSA")
    own = NoteKey(key.name, jose.unb64u(forged.public.jwk["x"]))
    checkpoint = Checkpoint(key.name, AHEAD, b"l" * 32, ("history " + "ab" * 16,))
    unverified = sign_checkpoint(checkpoint, key=own, sign=forged.sign)
    with pytest.raises(Refused):
        ledger.read_head(unverified, reader=world.db.read(), keys=world.keys)
    assert not world.pin.is_lost


async def test_in_recovery_only_stops_are_carried_out(world: World, resource: Resource) -> None:
    agent, other = await register_agent(world), await register_agent(world, "other")
    await lose(world)
    with pytest.raises(InRecovery):
        await act(world, "agent.create", lambda act: None)
    with pytest.raises(InRecovery):
        await act(world, "task.start", lambda act: None)
    await act(world, "agent.revoke", lambda act: tasks.revoke(act, tasks.RevokedKind.AGENT, agent.agent_id))
    await act(world, "agent.suspend", lambda act: registry.set_agent_state(act, other.agent_id, Verb.SUSPEND))
    await act(world, "kill.start", lambda act: registry.stop(act, "model", "m-1", why="x", by=None))
    with pytest.raises(InRecovery):
        world.get_singleton(Streams).follow(resource, "a-number-that-a-guard-threw", None)
    assert store.search_entries(world.db.read(), {"action": "agent.create", "outcome": "refused"}, limit=9) == []


async def test_every_act_that_a_route_may_carry_out_in_recovery_stops_or_reads() -> None:
    grants = {
        "token.exchange",
        "token.backchannel",
        "task.start",
        "agent.resume",
        "agent.release",
        "kill.end",
        "approval.approve",
        "approval.ask",
        "elevation.request",
        "budget.draw",
        "policy.put",
        "policy.activate",
        "resource.set_mode",
        "agent.create",
        "agent.change",
        "key.add",
        "person.create",
        "bearer.allow",
        "secret.create",
        "incident.release",
        "task.renew",
        "access.evaluation",
        "decide.batch",
    }
    assert not grants & ledger.IN_RECOVERY


REFUSED_STOPS = {
    "account.end",
    "account.remove_provider",
    "acme.revoke_key",
    "agent.mutual_tls",
    "anchor.remove",
    "bearer.forbid",
    "client.delete",
    "client.set",
    "client.stop",
    "consent.withdraw",
    "federation.disallow",
    "federation.remove",
    "incident.rotate",
    "issuer.distrust",
    "lease.end",
    "pep.revoke",
    "person.suspend",
    "provider.remove",
    "role.revoke",
    "secret.delete_destination",
    "secret.revoke",
    "secret.revoke_access_key",
    "team.remove_member",
    "workload.remove",
}
"""Stops that a server in recovery refuses: it grants almost nothing of what these end, and the agent, the key, the
certificate or the person behind them can be stopped.
"""


def test_each_stop_is_carried_out_in_recovery_or_refused_on_purpose() -> None:
    """A new route that stops something has its action in one of the two lists."""
    action = re.compile(rf"(?:{'|'.join(FAMILIES)})\.[a-z][a-z_]*")
    stops = set()
    for route in ROUTES:
        if route.stops:
            tree = ast.parse(textwrap.dedent(inspect.getsource(route.wire)))
            texts = {str(one.value) for one in ast.walk(tree) if isinstance(one, ast.Constant)}
            stops |= {text for text in texts if action.fullmatch(text)}
    assert len(stops) > 30
    assert stops - ledger.IN_RECOVERY - {"authority.rotate"} == REFUSED_STOPS


async def test_a_webhook_without_chosen_actions_gets_the_recovery_events(world: World) -> None:
    await administrator(world)
    with receiving() as receiver:
        config = msgspec.structs.replace(world.config, private_hosts="127.0.0.1")
        open_to_here = dataclasses.replace(world, config=config)
        await act(
            world, "webhook.add", lambda act: webhooks.add(act, url=receiver.url, actions=(), private=config.private)
        )
        await lose(world)
        await finish(world, "root")
        await wire_webhooks.deliver_due(open_to_here)
        await asyncio.gather(*open_to_here.get_singleton(wire_webhooks.RunningDeliveries).running.values())
        types = [json.loads(body)["type"] for _, body in receiver.heard]
    assert types == ["history.lost", "history.recover"]
    assert {"history.lost", "history.replay", "history.recover"} <= TITLES.keys()


async def test_recovery_replaces_the_token_keys_and_survives_a_restart(config: Config, clock: Clock) -> None:
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        await register_agent(world)
        before = set(world.keys.public("token"))
        await lose(world)
        assert not before & set(world.keys.public("token"))
        assert world.pin.head == seen(world, AHEAD)
        detail = store.search_entries(world.db.read(), {"action": "history.lost"}, limit=1)
        assert len(detail) == 1
    async with open_world(config, now=clock, random=SeededRandom("two")) as world:
        await ledger.check_history(world)
        assert world.pin.is_lost
        with pytest.raises(InRecovery):
            await act(world, "agent.create", lambda act: None)


async def test_an_operator_can_begin_a_recovery_without_evidence_of_a_loss(config: Config, clock: Clock) -> None:
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        await administrator(world)
        before = set(world.keys.public("token"))
        await ledger.declare_loss(world)
        await ledger.declare_loss(world)  # a second declaration adds nothing
        assert not before & set(world.keys.public("token"))
        assert [loss.source for loss in store.list_losses(world.db.read())] == ["the operator"]
    async with open_world(config, now=clock, random=SeededRandom("two")) as world:
        await ledger.check_history(world)
        with pytest.raises(InRecovery):
            await act(world, "agent.create", lambda act: None)
        await finish(world, "root")
    async with open_world(config, now=clock, random=SeededRandom("three")) as world:
        await ledger.check_history(world)
        await act(world, "test.goes_on", lambda act: None)


async def test_a_restored_database_from_before_the_recorded_loss_is_detected_by_the_pin(
    config: Config, clock: Clock
) -> None:
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        await register_agent(world)
        await lose(world)
        await world.writer.submit(store.renew_history)  # as if the copy were from before the loss was known
        pinned = world.pin.head
    async with open_world(config, now=clock, random=SeededRandom("two")) as world:
        assert pinned is not None
        assert pinned.size == AHEAD
        await world.writer.submit(lambda tx: tx.run(FORGET_ENDS))
        await ledger.check_history(world)
        assert world.pin.is_lost


FORGET_ENDS = sql("delete from log_history where ended_at is not null")


async def test_every_server_of_the_database_is_in_recovery_and_leaves_it(config: Config, clock: Clock) -> None:
    async with (
        open_world(config, now=clock, random=SeededRandom("one")) as one,
        open_world(config, now=clock, random=SeededRandom("two")) as other,
    ):
        await administrator(one)
        await lose(one)
        with pytest.raises(InRecovery):
            await act(other, "agent.create", lambda act: None)  # it learns of it in its next batch
        assert other.pin.is_lost
        assert set(other.keys.public("token")) == set(one.keys.public("token"))
        await finish(one, "root")
        await follow_history(other)
        assert not other.pin.is_lost
        assert set(other.keys.public("token")) == set(one.keys.public("token"))
        await act(other, "test.goes_on", lambda act: None)
        await act(one, "test.goes_on", lambda act: None)


async def test_lost_stops_are_carried_out_again(world: World, resource: Resource) -> None:
    names = ["suspended", "quarantined", "decommissioned", "revoked", "holder"]
    made = {name: await register_agent(world, name) for name in names}
    id = {name: agent.agent_id for name, agent in made.items()}
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent=id["holder"], purpose="x", bounds=(), by=None)))
    await create_holding(world, made["holder"], "tok_lost", audience=URI)
    key = await run_act(world, lambda a: registry.add_key(a, id["holder"], new_jwk()))
    await lose(world)
    lines = [
        line(world, *(AgentFact(id[name], name, 1, FAR) for name in names[:3])),
        line(world, AgentFact(id["revoked"], "suspended", 1, FAR), at=START + 1),
        line(world, TaskFact(task.task_id, FAR), TokenFact("tok_lost", FAR), KeyFact(key.jkt, FAR), at=START + 2),
        line(world, StopFact("model", "m-9"), aud=resource.resource_id, at=START + 3),
        line(world, TaskFact("tk_lost_itself", FAR), AgentFact("ag_lost", "suspended", 1, FAR), at=START + 4),
    ]
    done = await replay_messages(world, lines, resource_id=resource.resource_id, source="a guard of files")
    assert done == (8, 0)
    reader = world.db.read()
    state = {name: agents.get_agent(reader, id[name]).state for name in names}  # type: ignore[union-attr]
    assert state == {
        "suspended": AgentState.SUSPENDED,
        "quarantined": AgentState.QUARANTINED,
        "decommissioned": AgentState.DECOMMISSIONED,
        "revoked": AgentState.SUSPENDED,
        "holder": AgentState.ACTIVE,
    }
    assert tasks.find_task(reader, task.task_id).state == "cancelled"
    held, revoked = holdings.get_holding(reader, "tok_lost"), keys.get_key(reader, key.jkt)
    assert held is not None
    assert not held.is_live(world.now())
    assert revoked is not None
    assert not revoked.is_active(world.now())
    assert ("model", "m-9") in [(stop.target_kind, stop.value) for stop in stops.list_stops(reader)]
    assert len(describe(world, reader)["replayed"]) == 10
    again = await replay_messages(world, lines, resource_id=resource.resource_id, source="another guard")
    assert again == (0, 0)


@pytest.mark.parametrize(("count", "says"), [(2, "a, b"), (3, "a, b and 1 more (ostiary agent list)")])
async def test_the_report_names_a_limited_number_of_agents_and_stops_and_counts_all(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch, count: int, says: str
) -> None:
    monkeypatch.setattr(recover, "SHOWN", 2)
    for name in "abc"[:count]:
        await register_agent(world, name)
    await lose(world)
    lines = [line(world, *(StopFact("model", f"m-{number}") for number in range(count)))]
    await replay_messages(world, lines, resource_id=resource.resource_id, source="a guard of files")
    report = {**describe(world, world.db.read()), "unverified": 0}
    assert (report["active"], report["active_count"]) == (["a", "b"], count)
    assert (len(report["replayed"]), report["replayed_count"]) == (2, count)
    shown = list(recover.report_lines(report))
    assert f"{count} agents are active: {says}" in shown
    assert ("replayed: 1 more stop" in shown) is (count > 2)


async def test_lost_stops_are_carried_out_beyond_the_limits_and_do_not_block_new_stops(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.registry.model.stop.MAX_OURS", 1)
    monkeypatch.setattr("ostiaryd.registry.model.stop.MAX_STOPS", 2)
    await lose(world)
    lines = [
        line(world, StopFact("model", f"m-{number}"), aud=resource.resource_id, at=START + number)
        for number in range(3)
    ]
    done = await replay_messages(world, lines, resource_id=resource.resource_id, source="a guard of files")
    assert done == (3, 0)
    assert {stop.value for stop in stops.list_stops(world.db.read())} == {"m-0", "m-1", "m-2"}
    await act(world, "kill.start", lambda act: registry.stop(act, "model", "m-3", why="test", by="pe_1"))
    assert ("model", "m-3") in [(stop.target_kind, stop.value) for stop in stops.list_stops(world.db.read())]


@pytest.mark.parametrize("why", ["forged", "for another guard", "known", "without a head", "lifted"])
async def test_a_message_without_a_lost_stop_changes_nothing(world: World, resource: Resource, why: str) -> None:
    agent = await register_agent(world)
    fact = AgentFact(agent.agent_id, "suspended", 1, FAR)
    known = store.get_head(world.db.read())[1]
    await lose(world)
    lines = {
        "forged": [render_message(jose.generate("EdDSA"), Message(iss="x", prev=1, seq=2, at=1, facts=[fact]))],
        "for another guard": [line(world, fact, aud="rs_other")],
        "known": [line(world, fact, head=known)],
        "without a head": [line(world, fact, head="")],
        "lifted": [line(world, fact), line(world, AgentFact(agent.agent_id, "active", 0, FAR), at=START + 1)],
    }[why]
    await replay_messages(world, lines, resource_id=resource.resource_id, source="a guard of files")
    now = agents.get_agent(world.db.read(), agent.agent_id)
    assert now is not None
    assert now.state is AgentState.ACTIVE


async def test_a_recovery_ends_earlier_holdings_and_tasks_and_suspends_unconfirmed_agents(
    world: World, resource: Resource
) -> None:
    await administrator(world)
    agent, left = await register_agent(world), await register_agent(world, "left")
    task = await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent=agent.agent_id, purpose="x", bounds=(), by=None))
    )
    await create_holding(world, agent, "tok_before")
    await lose(world)
    in_recovery, history = set(world.keys.public("token")), ledger.present_history(world.db.read())
    await finish(world, "root", agent.name)
    reader = world.db.read()
    assert not world.pin.is_lost
    load_keys(world.keys, reader)
    assert not in_recovery & set(world.keys.public("token"))
    assert ledger.present_history(reader) != history
    held, confirmed, unconfirmed = (
        holdings.get_holding(reader, "tok_before"),
        agents.get_agent(reader, agent.agent_id),
        agents.get_agent(reader, left.agent_id),
    )
    assert held is not None
    assert not held.is_live(world.now())
    assert confirmed is not None
    assert unconfirmed is not None
    assert (confirmed.state, unconfirmed.state) == (AgentState.ACTIVE, AgentState.SUSPENDED)
    assert confirmed.epoch > 1000
    assert tasks.find_task(reader, task.task_id).state == "cancelled"
    assert head_of(world).history != history
    await act(world, "agent.create", lambda act: None)
    assert world.pin.head == head_of(world)


async def test_a_session_from_before_a_loss_is_refused_and_no_consent_link_or_code_outlives_the_recovery(
    world: World, clock: Clock
) -> None:
    agent, app = await administrator(world), build_app(world)
    browser = await signed_in(world, app)
    await add_totp(browser, clock)
    link = (await invite(world, "ben")).removeprefix(PUBLIC_URL)
    reader = world.db.read()
    consent = Consent(
        consent_id="co_1",
        client_id=agent.agent_id,
        client_name="root",
        agent=agent.agent_id,
        resource="",
        person=registry.find_person(reader, "ann").person_id,
        scopes=frozenset({"openid"}),
        details=(),
        digest="",
        granted_at=START,
        expires_at=FAR,
    )
    await run_act(world, lambda a: consents.put(a.tx, consent))
    assert (await browser.get("/account")).status == 200
    await lose(world)
    browser.follows = False
    assert (await browser.get("/account")).status == 303
    await finish(world, "root")
    reader = world.db.read()
    assert (await browser.get("/account")).status == 303
    assert (await browser.get(link)).status == 404
    assert not sessions_of(reader, consent.person, now=world.now())
    assert not consents.list_consents(reader, consent.person)
    assert people.count_recovery_codes(reader, consent.person) == 0
    assert people.password(reader, consent.person) is not None


@pytest.mark.parametrize(("count", "is_right"), [(1, False), (2, True), (3, False)])
async def test_all_agents_are_confirmed_by_stating_their_exact_number(world: World, count: int, is_right: bool) -> None:
    await administrator(world)
    await register_agent(world)
    await lose(world)
    if is_right:
        await finish(world, count=count)
        assert not world.pin.is_lost
        return
    with pytest.raises(Conflict, match="2 agents are active"):
        await finish(world, count=count)
    assert world.pin.is_lost


async def test_a_recovery_without_an_administrator_does_not_end(world: World) -> None:
    await administrator(world)
    agent = await register_agent(world)
    await lose(world)
    with pytest.raises(Conflict, match="administrator"):
        await finish(world, agent.name)
    assert world.pin.is_lost


async def test_a_stop_that_a_late_guard_still_holds_is_carried_out_after_the_recovery(
    world: World, resource: Resource
) -> None:
    """The guard was down during the restore and the recovery, and agent and kill switch were let go meanwhile."""
    await administrator(world)
    agent, other = await register_agent(world), await register_agent(world, "other")
    await lose(world)
    late = [line(world, AgentFact(agent.agent_id, "suspended", 1, FAR), StopFact("model", "m-1"))]
    evidence = seen(world, AHEAD)
    await replay_messages(
        world, [line(world, StopFact("model", "m-1"))], resource_id=resource.resource_id, source="one"
    )
    await finish(world, "root", agent.name, other.name)
    await run_act(world, lambda a: registry.lift_stop(a, "model", "m-1"))
    await ledger.examine_head(world, evidence, source="a guard of files")  # accounted for: no second recovery
    await replay_messages(world, late, resource_id=resource.resource_id, source="a guard of files")
    now = agents.get_agent(world.db.read(), agent.agent_id)
    assert now is not None
    assert now.state is AgentState.SUSPENDED
    assert stops.list_stops(world.db.read()) == []  # replayed before, and lifted since


async def test_a_server_that_detects_a_recorded_loss_late_reads_the_new_keys(world: World) -> None:
    await lose(world)
    fresh = set(world.keys.public("token"))
    world.keys.refuse_tokens()  # what `check_after_loss` does before this server has seen the record
    await ledger.check_history(world)
    assert set(world.keys.public("token")) == fresh != set()


async def test_a_connection_to_a_lagging_copy_refuses_tokens_until_the_loss_is_recorded(world: World) -> None:
    world.pin.replace(seen(world, AHEAD))
    for _ in range(2):  # the monitor reads the stored keys on each new connection, and then compares
        load_keys(world.keys, world.db.read())
        ledger.check_after_loss(world, world.db.read())
        assert world.pin.is_lost
        assert world.keys.refuses_tokens
    await ledger.check_history(world)  # records the loss with new keys
    load_keys(world.keys, world.db.read())
    ledger.check_after_loss(world, world.db.read())
    assert not world.keys.refuses_tokens


async def test_a_feed_stream_is_closed_when_recovery_begins(world: World, resource: Resource) -> None:
    guard = Listener(world, resource)
    message = await guard.hear()
    assert message.head == store.get_head(world.db.read())[1]

    async def read_until_cut() -> None:
        async for _ in guard.lines:  # a beat may come first
            pass

    reading = asyncio.ensure_future(read_until_cut())
    world.get_singleton(Streams).connected[0].task = reading
    await asyncio.sleep(0)
    await lose(world)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert world.get_singleton(Streams).connected == []


async def test_the_head_in_messages_adds_no_query(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pump reads position and head in one statement, however many messages it makes of them."""
    ran = list[str]()
    async with listening(world, resource) as guard:
        await guard.hear()
        connection = world.db.read()._connection
        execute = connection.execute

        def note_statement(statement: Any, params: Any) -> Any:
            ran.append(statement.sqlite)
            return execute(statement, params)

        monkeypatch.setattr(connection, "execute", note_statement)
        world.get_singleton(Streams).pump()
        assert len(ran) == 1
        assert "log_head" in ran[0]
        before = head_of(world)
        ran.clear()
        world.get_singleton(Streams)._beat()
        assert len(ran) == 1
        monkeypatch.undo()
        assert ledger.read_head((await guard.hear()).head.encode(), reader=world.db.read(), keys=world.keys) == before


@pytest.mark.parametrize("announced", [True, False])
async def test_stops_signed_by_a_lost_key_are_carried_out_if_its_announcement_was_kept(
    world: World, resource: Resource, announced: bool
) -> None:
    agent = await register_agent(world)
    await lose(world)
    new, last = (jose.generate("EdDSA") for _ in range(2))
    old = world.keys.signer("feed")

    def says(key: jose.PrivateKey, fact: Fact, seq: int) -> bytes:
        message = Message(
            iss=world.config.issuer, prev=seq - 1, seq=seq, at=START + seq, facts=[fact], head=note(world, AHEAD)
        )
        return render_message(key, message)

    rotations = [
        says(old, KeysFact([], [dict(key.public.jwk) for key in (old, new)]), 1),
        says(new, KeysFact([], [dict(key.public.jwk) for key in (old, new, last)]), 2),
    ]
    stop = says(last, AgentFact(agent.agent_id, "suspended", 1, FAR), 3)
    lines = [*(rotations if announced else ()), stop]
    done = await replay_messages(world, lines, resource_id=resource.resource_id, source="a guard of files")
    assert done == ((1, 0) if announced else (0, 1))
    state = registry.find_agent(world.db.read(), agent.agent_id).state
    assert state is (AgentState.SUSPENDED if announced else AgentState.ACTIVE)


@pytest.mark.parametrize("announced", [True, False])
async def test_stops_of_a_guard_are_verified_with_a_key_that_another_guard_received(
    world: World, resource: Resource, tmp_path: Path, announced: bool
) -> None:
    agent = await register_agent(world)
    await lose(world)
    new, old = jose.generate("EdDSA"), world.keys.signer("feed")
    keys = KeysFact([], [dict(key.public.jwk) for key in (old, new)])
    stop = AgentFact(agent.agent_id, "suspended", 1, FAR)
    head = note(world, AHEAD)
    for name, key, fact in (("b", old, keys), ("a", new, stop)):
        if name == "a" or announced:
            message = Message(iss="https://x", prev=0, seq=1, at=START, facts=[fact], head=head)
            (tmp_path / resource.resource_id).mkdir(exist_ok=True)
            (tmp_path / resource.resource_id / f"{name}.stops").write_bytes(render_message(key, message))
    done = await replay_spool(world, tmp_path)
    assert done == ((1, 0) if announced else (0, 1))


@pytest.mark.parametrize("source", ["a guard of files", ledger.PIN])
async def test_a_recovery_with_a_copy_from_before_an_earlier_recovery_can_end(world: World, source: str) -> None:
    """The restored copy does not know the history in which a guard, or the pin, has seen the lost head."""
    admin = await administrator(world)
    lost = seen(world, AHEAD, history="ab" * 16)
    if source == ledger.PIN:
        world.pin.replace(lost)
        await ledger.check_history(world)
    else:
        with pytest.raises(InRecovery):
            await ledger.examine_head(world, lost, source=source)
    assert world.pin.is_lost
    await finish(world, admin.name)
    await ledger.examine_head(world, lost, source="a guard of files")
    await register_agent(world, "after")
    await ledger.check_history(world)
    assert not world.pin.is_lost
    other = seen(world, AHEAD, history="cd" * 16)  # what another guard has seen in a third history
    with pytest.raises(InRecovery):
        await ledger.examine_head(world, other, source="another guard")


async def test_a_repeated_head_is_recorded_once(world: World) -> None:
    await lose(world)
    size = store.get_head(world.db.read())[0].size
    for ahead in (AHEAD, AHEAD - 1):
        with pytest.raises(InRecovery):
            await ledger.examine_head(world, seen(world, ahead), source="a guard of files")
    assert store.get_head(world.db.read())[0].size == size
    with pytest.raises(InRecovery):
        await ledger.examine_head(world, seen(world, AHEAD + 1), source="a guard of files")
    assert store.get_head(world.db.read())[0].size == size + 1


async def test_an_unused_data_folder_is_not_opened_for_recovery(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no server has used"):
        async with open_world(Config(data_dir=str(tmp_path / "typo")), create=False):
            pass
    assert not (tmp_path / "typo").exists()


async def test_kept_messages_are_evidence_of_a_loss_without_a_readable_head_file(
    world: World, resource: Resource, tmp_path: Path
) -> None:
    agent = await register_agent(world)
    kept = line(world, AgentFact(agent.agent_id, "suspended", 1, FAR), aud=resource.resource_id)
    folder = tmp_path / resource.resource_id
    (folder / "a-folder.stops").mkdir(parents=True)
    (folder / "one.head").write_bytes(b"damaged")
    (folder / "one.stops").write_bytes(kept + b"\xff damaged.\n")
    assert await replay_spool(world, tmp_path) == (1, 0)
    assert world.pin.is_lost
    assert [loss.head[1:] for loss in store.list_losses(world.db.read())] == [seen(world, AHEAD)[1:]]


async def test_a_folder_without_stops_is_refused_for_replay(world: World) -> None:
    with pytest.raises(Refused, match="contains no files of a guard"):
        await replay_spool(world, world.config.folder)


def test_the_app_has_the_route_of_stops(world: World) -> None:
    assert "/feed/v1/stops" in {route.path for route in build_app(world).routes}  # type: ignore[attr-defined]

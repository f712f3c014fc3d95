"""A compromised identity provider: it floods the server with signals and names administrators."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import msgspec
import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_person, get_agent, new_jwk, register_agent, run_act
from ostiaryd.ground.http.buckets import FLOODING, SECOND, TooMuch
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as log
from ostiaryd.ledger.model.sampling import FULL_OF_NETWORK
from ostiaryd.notifications.model.webhooks import TITLES
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, AgentState
from ostiaryd.registry.store import restrictions
from ostiaryd.signals import wire_signals, wire_signals_poll
from ostiaryd.signals.store import issuers as store
from ostiaryd.signals.wire_signals import COST, SETS, IssuerBuckets
from tests.support.identity_provider import CAEP, RISC, Idp, providing
from tests.support.incident_fixtures import create_approver, entries_of
from tests.support.policy_fixtures import put
from tests.support.signal_fixtures import push, trust

SESSION = f"{CAEP}session-revoked"
ALICE = {"format": "email", "email": "alice@example.org"}
PER_SECOND = IssuerBuckets.per_second // COST


@pytest.fixture
def idp() -> Iterator[Idp]:
    with providing() as made:
        yield made


@pytest.fixture
async def home(world: World) -> World:
    """With alice, who has an agent; issuers may be on this machine."""
    world = dataclasses.replace(world, config=msgspec.structs.replace(world.config, private_hosts="127.0.0.1"))
    await create_person(world, "alice", email="alice@example.org")
    await register_agent(world)
    return world


def size(world: World) -> int:
    return log.get_head(world.db.read())[0].size


# ------------------------------------------------------------------------------------------------------ Without end


async def test_the_signals_of_an_issuer_are_rate_limited(home: World, idp: Idp, clock: Clock) -> None:
    made, nobody = await trust(home, idp), {"format": "email", "email": "nobody@example.org"}
    bucket = home.get_singleton(IssuerBuckets).of(made["issuer_id"])
    assert (bucket.left, bucket.has(SETS * COST), SETS) == (SETS * COST * SECOND, True, 2000)
    bucket.left = COST * SECOND
    assert await push(home, made, idp.token(SESSION, nobody)) == (202, "")
    before = size(home)
    token = idp.token(SESSION, ALICE)
    assert await push(home, made, token) == (429, "")
    assert (size(home), get_agent(home, "bot").epoch) == (before, 0), "and it leaves no entry"
    clock.advance(us=SECOND // PER_SECOND - 1)
    assert (await push(home, made, token))[0] == 429
    clock.advance(us=1)
    assert await push(home, made, token) == (202, ""), "what was refused is heard when it comes again"
    assert get_agent(home, "bot").epoch == 1


async def test_an_invalid_token_counts_toward_the_rate_limit(home: World, idp: Idp) -> None:
    made = await trust(home, idp)
    home.get_singleton(IssuerBuckets).of(made["issuer_id"]).left = COST * SECOND
    assert (await push(home, made, "nonsense"))[0] == 400
    assert (await push(home, made, "nonsense"))[0] == 429


async def test_a_rate_limited_issuer_receives_a_retry_after(home: World, idp: Idp) -> None:
    made = await trust(home, idp)
    home.get_singleton(IssuerBuckets).of(made["issuer_id"]).left = -SECOND * IssuerBuckets.per_second * 7
    with pytest.raises(TooMuch) as refused:
        await wire_signals.accept_token(home, store.issuers(home.db.read())[0], idp.token(SESSION, ALICE))
    answer = wire_signals.render(refused.value)
    assert (answer.status, answer.body, dict(answer.headers)[b"retry-after"]) == (429, b"", b"8")


async def test_a_signal_that_affects_many_agents_costs_more_of_the_rate_limit(home: World, idp: Idp) -> None:
    for number in range(4):
        await register_agent(home, f"more{number}")
    made = await trust(home, idp)
    bucket = home.get_singleton(IssuerBuckets).of(made["issuer_id"])
    assert await push(home, made, idp.token(SESSION, ALICE)) == (202, "")
    assert bucket.left == (SETS * COST - COST - 5) * SECOND


async def test_the_rate_limit_of_an_issuer_does_not_affect_another_issuer(home: World, idp: Idp) -> None:
    made = await trust(home, idp)
    home.get_singleton(IssuerBuckets).of(made["issuer_id"]).left = 0
    with providing() as second:
        other = await trust(home, second)
        assert await push(home, other, second.token(SESSION, ALICE)) == (202, "")


async def test_a_flood_of_signals_is_recorded_once_for_many_refusals(home: World, idp: Idp) -> None:
    made = await trust(home, idp)
    home.get_singleton(IssuerBuckets).of(made["issuer_id"]).left = -(10**15)
    for _ in range(2 * FLOODING):
        assert (await push(home, made, "whatever"))[0] == 429
    (told,) = entries_of(home, "signal.flood")
    assert told.object == made["issuer_id"]
    assert told.detail == {"issuer": idp.issuer, "refused": FLOODING}
    assert "signal.flood" in TITLES


async def test_unauthenticated_pushes_do_not_use_the_rate_limit_and_leave_few_entries(home: World, idp: Idp) -> None:
    made, before = await trust(home, idp), size(home)
    for _ in range(FULL_OF_NETWORK + 5):
        assert await push(home, made, "x", shows="Bearer of nothing") == (400, "authentication_failed")
    assert size(home) == before + FULL_OF_NETWORK
    assert await push(home, made, idp.token(SESSION, ALICE)) == (202, "")


async def test_an_issuer_is_not_polled_until_its_rate_limit_has_room(home: World, idp: Idp, clock: Clock) -> None:
    made = await trust(home, idp, method="poll", endpoint=f"{idp.issuer}/poll")
    issuer = store.get(home.db.read(), made["issuer_id"])
    assert issuer is not None
    idp.waiting = {"a": idp.token(SESSION, ALICE)}
    bucket = home.get_singleton(IssuerBuckets).of(issuer.issuer_id)
    bucket.left = wire_signals_poll.AT_ONCE * COST * SECOND - 1
    assert not await wire_signals_poll.poll_once(home, issuer)
    assert idp.paths("/poll") == 0
    clock.advance(us=1)
    assert await wire_signals_poll.poll_once(home, issuer)
    assert get_agent(home, "bot").epoch == 1


# --------------------------------------------------------------------------------------------------- What it may do


async def test_a_signal_stops_an_administrator_agent_only_while_a_person_could_release_it(
    home: World, idp: Idp
) -> None:
    """An agent that administers loses what it holds, and is stopped only while a person could let it go."""
    root = await register_agent(home, "root", scopes=[ADMIN])
    made = await trust(home, idp, agents=True)
    named = {"format": "iss_sub", "iss": home.config.issuer, "sub": root.agent_id}
    assert await push(home, made, idp.token(f"{RISC}account-disabled", named)) == (202, "")
    stopped = get_agent(home, "root")
    assert (stopped.state, stopped.epoch) == (AgentState.ACTIVE, 1)
    judith = await create_approver(home)
    await run_act(home, lambda a: registry.add_person_key(a, judith.name, new_jwk()))
    assert await push(home, made, idp.token(f"{RISC}account-disabled", named)) == (202, "")
    assert get_agent(home, "root").state is AgentState.QUARANTINED


async def test_a_high_risk_signal_runs_the_playbooks_at_once(home: World, idp: Idp, clock: Clock) -> None:
    made = await trust(home, idp)
    medium = idp.token(f"{CAEP}risk-level-change", ALICE, {"current_level": "MEDIUM", "principal": "USER"})
    assert await push(home, made, medium) == (202, "")
    assert get_agent(home, "bot").restricted_until == 0
    high = idp.token(f"{CAEP}risk-level-change", ALICE, {"current_level": "HIGH", "principal": "USER"})
    assert await push(home, made, high) == (202, "")
    assert [one.object for one in entries_of(home, "incident.open")] != []
    kept = restrictions.list_restrictions_of_agent(home.db.read(), get_agent(home, "bot").agent_id, now=clock())
    assert [one.kind for one in kept] == ["narrow"]


async def test_playbooks_run_by_a_signal_stop_a_limited_number_of_agents(home: World, idp: Idp) -> None:
    """An issuer that reports a high risk for all persons cannot stop all agents through the playbooks."""
    rule = 'permit (principal, action == Action::"quarantine", resource) when { context.detector == "signal" };'
    await put(home, {"a.cedar": 'permit (principal, action == Action::"call", resource);' + rule})
    for number in range(9):
        await register_agent(home, f"more{number}")
    made = await trust(home, idp)
    high = idp.token(f"{CAEP}risk-level-change", ALICE, {"current_level": "HIGH", "principal": "USER"})
    assert await push(home, made, high) == (202, "")
    names = ["bot", *(f"more{number}" for number in range(9))]
    assert [get_agent(home, name).state for name in names].count(AgentState.QUARANTINED) == 1

"""The kill switch: a stop denies every token that names its target, at guards and at the server, until it is lifted."""

from __future__ import annotations

from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import get_agent, new_jwk, register_agent, run_act
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import AccessClaims, Link
from ostiary.decision import access
from ostiary.decision.access.stops import names_of
from ostiary.decision.feed import StopFact
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import kills as flows
from ostiaryd.incidents.flows.respond import would_lock_out
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentState, Caller, Resource
from ostiaryd.registry.model.stop import MAX_OURS, MAX_STOPS, Stop, check_room
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.feed_streams import URI, listening

ADMIN = Caller(kind="agent", id="ag_admin", name="admin", owner=None, scopes=frozenset({"ostiary:admin"}))
CLAIMS = AccessClaims(
    iss="",
    sub="pe_anna",
    client_id="ag_1",
    aud=URI,
    iat=0,
    exp=1 << 40,
    jti="tok_1",
    scope="",
    task="tk_1",
    owner="pe_alice",
    segment="sales",
    model="m-1",
    epoch=0,
    chain=[Link("ag_0", 0, "tk_0", owner="pe_bob", segment="desk", model="m-0")],
)


async def kill(world: World, what: Any, name: str = "", why: str = "it is on fire") -> Any:
    return await run_act(world, lambda a: flows.kill(a, what, name, why=why, by=ADMIN), "kill.start")


async def let_go(world: World, what: Any, name: str = "") -> None:
    await run_act(world, lambda a: flows.let_go(a, what, name, why="it is out"), "kill.end")


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


@pytest.mark.parametrize(
    "stop",
    [
        ("task", "tk_1"),
        ("task", "tk_0"),
        ("owner", "pe_alice"),
        ("owner", "pe_bob"),
        ("owner", "pe_anna"),
        ("resource", URI),
        ("segment", "sales"),
        ("segment", "desk"),
        ("model", "m-1"),
        ("model", "m-0"),
        ("everything", ""),
    ],
)
def test_a_token_is_stopped_by_a_stop_of_each_thing_that_it_names(stop: tuple[str, str]) -> None:
    reason = access.check_liveness(access.Principal(CLAIMS), _facts(stop), 0)
    assert reason is not None
    assert reason.code == "stopped"


@pytest.mark.parametrize(
    "stop", [("task", "tk_2"), ("owner", "pe_eve"), ("model", ""), ("segment", "m-1"), ("task", "")]
)
def test_a_token_is_not_stopped_by_a_stop_of_a_thing_that_it_does_not_name(stop: tuple[str, str]) -> None:
    assert access.check_liveness(access.Principal(CLAIMS), _facts(stop), 0) is None


def _facts(stop: tuple[str, str]) -> access.Facts:
    resource = access.Protected(name="files", uri=URI, segment="default", catalogue=None)
    return access.Facts(resource, access.Policies("h", ir.PolicySetIR(())), stops={stop})


def test_a_token_without_a_task_a_segment_or_a_model_names_none_of_them() -> None:
    """A stop of an empty model name does not stop a token without a model."""
    bare = AccessClaims(iss="", sub="ag_1", client_id="ag_1", aud=URI, iat=0, exp=1, jti="t", scope="", epoch=0)
    assert names_of(bare) == {("everything", ""), ("resource", URI), ("owner", "ag_1")}


async def test_guards_receive_a_stop_at_once_and_in_their_snapshot(world: World, resource: Resource) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        await kill(world, "model", "m-1")
        assert await guard.facts() == [StopFact("model", "m-1")]
        await kill(world, "everything")
        await guard.facts()
        assert guard.feed.current().facts.stops == {("model", "m-1"), ("everything", "")}
        await let_go(world, "everything")
        assert await guard.facts() == [StopFact("everything", "", True)]
        assert guard.feed.current().facts.stops == {("model", "m-1")}
    async with listening(world, resource) as late:
        await late.hear()
        assert late.feed.current().facts.stops == {("model", "m-1")}


@pytest.mark.parametrize("stop", [("owner", "alice"), ("segment", "sales"), ("model", "m-1"), ("everything", "")])
async def test_a_stop_applies_to_present_and_later_agents_until_it_is_lifted(
    world: World, clock: Clock, stop: tuple[str, str]
) -> None:
    what, name = stop
    await register_agent(world, segment="sales", model="m-1")
    await register_agent(world, "other", owner="bob")
    await kill(world, what, name)
    late = await register_agent(world, "late", segment="sales", model="m-1")
    for agent in ("bot", "late"):
        with pytest.raises(Forbidden) as refused:
            registry.active_agent(world.db.read(), agent, now=clock())
        assert refused.value.code == "stopped"
    if what != "everything":
        assert registry.active_agent(world.db.read(), "other", now=clock()).name == "other"
    await let_go(world, what, name)
    assert registry.active_agent(world.db.read(), "late", now=clock()).agent_id == late.agent_id


async def test_an_administrator_is_stopped_only_by_name(world: World, clock: Clock) -> None:
    await register_agent(world, "root", scopes=["ostiary:admin"], segment="sales", model="m-1")
    for what, name in (("owner", "alice"), ("segment", "sales"), ("model", "m-1"), ("everything", "")):
        await kill(world, what, name)
    assert registry.active_agent(world.db.read(), "root", now=clock()).name == "root"
    opened = await kill(world, "agent", "root")
    assert get_agent(world, "root").state is AgentState.QUARANTINED
    assert opened.says == "stopped by hand: it is on fire"


async def test_a_kill_of_the_last_administrator_is_not_refused_although_no_person_could_release_the_agent(
    world: World,
) -> None:
    agent = await register_agent(world, "root", scopes=["ostiary:admin"])
    assert would_lock_out(world.db.read(), agent)
    await kill(world, "agent", "root")
    assert get_agent(world, "root").state is AgentState.QUARANTINED


async def test_a_stop_of_a_task_also_stops_its_child_tasks(world: World, clock: Clock) -> None:
    await register_agent(world)
    top = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="the whole")))
    part = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="a part", parent=top.task_id)))
    beside = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="another")))
    await kill(world, "task", top.task_id)
    for one in (top, part):
        with pytest.raises(Forbidden) as refused:
            tasks.live(world.db.read(), one.task_id, now=clock())
        assert refused.value.code == "stopped"
    assert tasks.live(world.db.read(), beside.task_id, now=clock()).task_id == beside.task_id
    await let_go(world, "task", top.task_id)
    assert tasks.live(world.db.read(), part.task_id, now=clock()).task_id == part.task_id


async def test_a_stop_of_a_person_stops_the_tasks_on_behalf_of_the_person(world: World, clock: Clock) -> None:
    await register_agent(world)
    await run_act(world, lambda a: registry.create_person(a, name="anna"))
    task = await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="for anna", on_behalf_of="anna"))
    )
    await kill(world, "owner", "anna")
    with pytest.raises(Forbidden):
        tasks.live(world.db.read(), task.task_id, now=clock())
    assert registry.active_agent(world.db.read(), "bot", now=clock()).name == "bot", "it is another's"


async def test_the_resource_of_the_server_itself_cannot_be_stopped(world: World) -> None:
    await run_act(world, lambda a: registry.bootstrap_admin(a, public_jwk=new_jwk()))
    with pytest.raises(Conflict) as refused:
        await kill(world, "resource", "ostiary")
    assert refused.value.code == "would_lock_out"


async def test_an_invalid_target_and_a_repeated_stop_are_refused(world: World, resource: Resource) -> None:
    for what in ("agent", "task", "owner", "resource"):
        with pytest.raises(NotFound):
            await kill(world, what, "nobody")
    with pytest.raises(Invalid):
        await kill(world, "segment", "")
    with pytest.raises(Invalid):
        await kill(world, "everything", "x")
    with pytest.raises(Invalid):
        await kill(world, "everything", why="")
    await kill(world, "resource", "files")
    with pytest.raises(Conflict) as refused:
        await kill(world, "resource", "files")
    assert (refused.value.code, "is already stopped" in refused.value.message) == ("stopped_already", True)
    with pytest.raises(NotFound, match="is not stopped"):
        await let_go(world, "model", "m-1")
    await let_go(world, "resource", "files")


async def test_a_stop_of_an_agent_can_be_lifted_only_by_a_person(world: World) -> None:
    await register_agent(world)
    await kill(world, "agent", "bot")
    with pytest.raises(Conflict) as refused:
        await let_go(world, "agent", "bot")
    assert refused.value.code == "awaits_person"


@pytest.mark.parametrize(
    ("count", "said_by", "is_ours", "fits"),
    [
        (MAX_STOPS - 1, "pe_1", False, True),
        (MAX_STOPS, "pe_1", False, False),
        (MAX_STOPS + 1, "pe_1", False, False),
        (MAX_STOPS + 1, None, False, True),
        (MAX_OURS - 1, None, True, True),
        (MAX_OURS, None, True, False),
        (MAX_OURS, "pe_1", True, False),
        (MAX_OURS, "pe_1", False, True),
    ],
)
def test_the_number_of_stops_is_limited_for_persons_and_for_the_server(
    count: int, said_by: str | None, is_ours: bool, fits: bool
) -> None:
    some = [Stop(target_kind="model", value=str(number), since=0, said_by=said_by, why="") for number in range(count)]
    if fits:
        check_room(some, is_ours=is_ours)
    else:
        with pytest.raises(Conflict, match=f"{count} stops{'' if is_ours else ' of persons and clients'} are in force"):
            check_room(some, is_ours=is_ours)
    assert len(some) == count

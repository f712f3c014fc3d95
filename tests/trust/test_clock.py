"""The server while its wall clock is wrong: it refuses grants, still stops agents, and accepts a confirmation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harness.clock import START, MachineClock
from harness.registry_fixtures import ADMIN, call_admin_api, newest_entry, person_caller
from ostiary.protocol.errors import Conflict
from ostiaryd.app import ROUTES, build_app
from ostiaryd.doctor import EXPERIMENTS
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import sql
from ostiaryd.ground.process.clock import LIMIT, SECOND, ClockJumped
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.notifications.model.webhooks import TITLES
from ostiaryd.trust import flows
from tests.support.api_fixtures import FILES, Client, send
from tests.support.clock_world import open_at_machine

BEGIN = START + 60 * SECOND


@pytest.fixture
def machine() -> MachineClock:
    return MachineClock(BEGIN)


@pytest.fixture
async def world(config: Config, machine: MachineClock) -> AsyncIterator[World]:
    async with open_at_machine(config, machine) as world:
        yield world


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in store.search_entries(world.db.read(), {"action": action}, limit=100)]


async def test_a_jump_is_recorded_once_when_it_begins_and_once_when_it_ends(
    world: World, machine: MachineClock
) -> None:
    machine.step(3600)
    for _ in range(3):
        machine.advance(1)
        await flows.watch_clock(world)
    machine.step(-3600)
    for _ in range(3):
        machine.advance(1)
        await flows.watch_clock(world)
    (jump,), (back,) = entries(world, "clock.jump"), entries(world, "clock.return")
    assert jump.reasons[0].message.startswith("the wall clock jumped forward by 1 h")
    assert back.at - jump.at == 3 * SECOND
    assert "clock.jump" in TITLES


async def test_a_backward_step_of_the_clock_is_recorded_and_server_time_stays_confirmed(
    world: World, machine: MachineClock
) -> None:
    machine.step(-3600)
    await flows.watch_clock(world)
    (jump,) = entries(world, "clock.jump")
    assert (jump.at, jump.reasons[0].message[:39]) == (BEGIN, "the wall clock went back by 1 h; server")
    assert "until both agree, in 100 h" in jump.reasons[0].message
    assert "ostiary clock accept" in jump.reasons[0].message
    assert world.now.is_confirmed


async def test_a_reversed_step_of_the_clock_is_recorded_with_the_time_and_command_that_end_refusals(
    client: Client, machine: MachineClock
) -> None:
    """The clock goes forward by 4 min 58 s, which is followed, and back again: clients with the right time are refused
    until server time, which never decreases, is level with them.
    """
    world, step = client.world, 298
    for seconds in (step, -step):
        machine.step(seconds)
        machine.advance(1)
        await flows.watch_clock(world)
    refused = await client.ask(resource=FILES)
    assert refused.status >= 400
    (jump,) = entries(world, "clock.jump")
    assert "until both agree, in 8 h" in jump.reasons[0].message
    assert "ostiary clock accept" in jump.reasons[0].message
    with pytest.raises(Conflict, match="8 h"):
        flows.examine_clock(world, world.db.read())
    await call_admin_api(world, "POST", "/clock/accept", {"wall": machine.wall() / SECOND})
    before = world.now()
    for _ in range(2 * step):
        machine.advance(1)
        await flows.watch_clock(world)
    assert before < world.now() <= before + (step + 2) * SECOND
    assert (await client.ask(resource=FILES)).status == 200
    assert flows.examine_clock(world, world.db.read())


async def test_a_confirmed_step_back_is_not_reported_as_a_new_one_and_a_further_step_is(
    world: World, machine: MachineClock
) -> None:
    machine.step(-3600)
    await flows.watch_clock(world)
    await call_admin_api(world, "POST", "/clock/accept", {"wall": machine.wall() / SECOND})
    for _ in range(10):
        machine.advance(360)
        await flows.watch_clock(world)
    assert len(entries(world, "clock.jump")) == 1
    with pytest.raises(Conflict, match=r"half of its speed.*in 1 h,") as refused:
        flows.examine_clock(world, world.db.read())
    assert refused.value.hint is not None
    assert "clock accept" not in refused.value.hint
    machine.step(-60)
    await flows.watch_clock(world)
    with pytest.raises(Conflict, match=r"one per cent.*in 2 h 40 min") as refused:
        flows.examine_clock(world, world.db.read())
    assert refused.value.hint is not None
    assert "ostiary clock accept" in refused.value.hint
    assert len(entries(world, "clock.jump")) == 2


async def test_the_times_of_entries_never_decrease(world: World, machine: MachineClock) -> None:
    for step in (0, 200, -3600, 7200, -7200, 86_400, -86_400, 299):
        machine.step(step)
        machine.advance(1)
        await flows.watch_clock(world)
        await call_admin_api(world, "POST", "/persons", {"name": f"p{machine.uptime}"})
    rows = [decode_entry(body) for body in store.list_entry_bodies(world.db.read(), 0, 1000)]
    assert [entry.at for entry in rows] == sorted(entry.at for entry in rows)


async def test_an_entry_of_a_server_that_lags_gets_the_time_of_the_entry_before(
    world: World, machine: MachineClock
) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "ada"})
    await world.writer.submit(lambda tx: tx.run(sql("update log_head set at = at + 5000000")))
    await call_admin_api(world, "POST", "/persons", {"name": "bob"})
    assert newest_entry(world).at == BEGIN + 5 * SECOND
    await flows.watch_clock(world)
    assert world.now() == BEGIN + 5 * SECOND


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_clock_jump_of_more_than_five_minutes_stops_only_routes_that_grant(
    world: World, machine: MachineClock, over: int
) -> None:
    app, stopped = build_app(world), 0
    machine.step(us=LIMIT + over)
    for route in ROUTES:
        answer = await send(app, route.method, route.path.replace("{", "").replace("}", ""))
        is_stopped = answer.status == 503 and b"wall clock jumped forward" in answer.body
        is_first = route.grants and not route.is_large  # a large route authenticates its caller first
        assert is_stopped is (over > 0 and is_first), route.path
        stopped += is_stopped
    assert (stopped > 0) is (over > 0)


async def test_only_tokens_for_the_servers_own_api_are_issued_during_a_clock_jump(
    client: Client, machine: MachineClock
) -> None:
    await client.token(resource=FILES)
    machine.step(3600)
    refused = await client.ask(resource=FILES)
    assert (await client.ask(resource=client.world.config.api)).status == 200
    assert (refused.status, refused.error) == (503, "temporarily_unavailable")
    assert "ostiary clock accept" in refused.json["error_description"]
    machine.step(-3600)
    assert (await client.ask(resource=FILES)).status == 200


async def test_an_approver_or_an_administrator_may_confirm_a_clock_jump_and_others_may_not(
    world: World, machine: MachineClock
) -> None:
    for by, status in ((person_caller("pe_ada", "ostiary:approve"), 200), (ADMIN, 200), (person_caller("pe_bob"), 403)):
        machine.step(3600)
        shown = (await call_admin_api(world, "GET", "/clock", by=by))[1]
        assert (shown["state"], shown["is_granting"], shown["difference_s"]) == ("jumped", False, 3600)
        answered, body = await call_admin_api(world, "POST", "/clock/accept", {"wall": shown["wall"]}, by=by)
        assert answered == status
        if status == 200:
            assert body["state"] == "ok"
            assert world.now() == machine.wall()
            assert (newest_entry(world).action, newest_entry(world).person or newest_entry(world).agent) == (
                "clock.accept",
                by.id,
            )
    assert not world.now.is_confirmed


async def test_a_clock_jump_is_confirmed_only_with_the_present_wall_time(world: World, machine: MachineClock) -> None:
    status, body = await call_admin_api(world, "POST", "/clock/accept", {"wall": machine.wall() / SECOND})
    assert (status, body["error"]) == (409, "conflict")
    machine.step(3600)
    for wrong in (-61, 61):
        status, body = await call_admin_api(world, "POST", "/clock/accept", {"wall": machine.wall() / SECOND + wrong})
        assert (status, body["error"]) == (409, "conflict")
    assert not world.now.is_confirmed
    for bad, code in (("soon", 400), (None, 400), (1e300, 400)):
        assert (await call_admin_api(world, "POST", "/clock/accept", {"wall": bad}))[0] == code


async def test_the_doctor_reports_a_wall_clock_that_differs_from_server_time(
    world: World, machine: MachineClock
) -> None:
    (look,) = [experiment for name, experiment in EXPERIMENTS if name == "server time"]
    assert "agree" in await look(world)
    machine.step(-60)
    with pytest.raises(Exception, match="1 min behind server time"):
        await look(world)
    machine.step(3660)
    with pytest.raises(ClockJumped):
        await look(world)

"""A task under random sequences of ends, renewals and expiry, compared with the expected states."""

from __future__ import annotations

import asyncio
from typing import get_args, get_type_hints

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from harness.registry_fixtures import SECOND, create_holding, is_live, register_agent, run_act
from ostiary.cli.tasks import end
from ostiary.protocol.errors import Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import Task, TaskSpec, TaskState
from ostiaryd.tasks.model.task import OUTCOMES
from ostiaryd.tasks.wire_admin import End
from ostiaryd.tasks.wire_holding import Leave

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("end"),
            st.sampled_from([TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED, TaskState.LIVE]),
        ),
        st.tuples(st.just("renew"), st.integers(0, 6)),
        st.tuples(st.just("wait"), st.integers(1, 6)),
        st.tuples(st.just("loop"), st.none()),
    ),
    max_size=8,
)


class Expected:
    """The expected state of the task."""

    def __init__(self, now: int) -> None:
        self.state, self.until = TaskState.LIVE, now + 5 * SECOND

    def end(self, outcome: TaskState, now: int) -> bool:
        if outcome in (TaskState.LIVE, TaskState.EXPIRED) or not self.is_live(now):
            return False
        self.state = outcome
        return True

    def renew(self, ttl: int, now: int) -> bool:
        if ttl == 0 or not self.is_live(now) or now + ttl * SECOND < self.until:
            return False
        self.until = now + ttl * SECOND
        return True

    def loop(self, now: int) -> None:
        if self.state is TaskState.LIVE and now >= self.until:
            self.state = TaskState.EXPIRED

    def is_live(self, now: int) -> bool:
        return self.state is TaskState.LIVE and now < self.until


def test_a_task_is_live_exactly_until_its_end_or_its_expiry(config: Config) -> None:
    clock, names = Clock(), iter(range(10_000))

    async def run() -> None:
        async with open_world(config, now=clock, random=SeededRandom("tasks")) as world:
            await register_agent(world)
            await asyncio.to_thread(check, world, asyncio.get_running_loop())

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(steps)
    def check(world: World, loop: asyncio.AbstractEventLoop, walk: list[tuple[str, TaskState | int | None]]) -> None:
        asyncio.run_coroutine_threadsafe(check_walk(world, clock, f"tok_{next(names)}", walk), loop).result(PATIENCE_S)

    asyncio.run(run())


async def test_a_task_is_not_live_from_the_instant_of_its_expiry(world: World) -> None:
    await register_agent(world)
    task = await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p", ttl_s=5)))
    assert task.expires_at is not None
    assert [task.is_live(task.expires_at + step) for step in (-1, 0, 1)] == [True, False, False]


async def check_walk(world: World, clock: Clock, token: str, walk: list[tuple[str, TaskState | int | None]]) -> None:
    task = await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p", ttl_s=5)))
    await create_holding(world, task.agent, token, task=task.task_id, seconds=1000)
    expected = Expected(clock.now)
    for word, what in walk:
        match word, what:
            case "wait", int(seconds):
                clock.advance(seconds)
            case "loop", _:
                await flows.expire_due(world, limit=1000)
                expected.loop(clock.now)
            case "renew", int(ttl):
                assert await works(world, task, ttl) == expected.renew(ttl, clock.now)
            case "end", TaskState() as outcome:
                assert await works(world, task, outcome) == expected.end(outcome, clock.now)
        found = flows.find_task(world.db.read(), task.task_id)
        assert (found.state, found.expires_at) == (expected.state, expected.until)
        assert found.is_live(clock.now) == expected.is_live(clock.now)
        assert is_live(world, token) == (expected.state is TaskState.LIVE)


async def works(world: World, task: Task, what: int | TaskState) -> bool:
    try:
        if isinstance(what, TaskState):
            await run_act(world, lambda a: flows.end(a, task.task_id, what))
        else:
            await run_act(world, lambda a: flows.renew(a, task.task_id, ttl_s=what))
    except Refused:
        return False
    return True


def test_each_way_to_end_a_task_accepts_the_same_outcomes() -> None:
    chosen = [get_type_hints(body)["outcome"] for body in (End, Leave, end)]
    assert [get_args(one) for one in chosen] == [tuple(map(str, OUTCOMES))] * 3

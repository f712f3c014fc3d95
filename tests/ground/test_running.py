"""Tasks that a loop begins and does not wait for."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from ostiaryd.ground.process.running import RunningTasks


async def test_an_id_has_at_most_one_running_task_and_ended_tasks_are_removed() -> None:
    tasks, begun, free = RunningTasks(None), list[str](), asyncio.Event()

    async def work(name: str) -> None:
        begun.append(name)
        await free.wait()
        if name == "fails":
            raise ValueError(name)

    for name in ("a", "a", "fails"):
        tasks.begin(name, partial(work, name))
    await asyncio.sleep(0)
    assert begun == ["a", "fails"]
    free.set()
    results = await asyncio.gather(*tasks.running.values(), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), ValueError]
    assert tasks.running == {}
    tasks.begin("a", partial(work, "a"))
    await asyncio.gather(*tasks.running.values())
    assert begun == ["a", "fails", "a"]


async def test_running_tasks_are_cancelled_with_the_server() -> None:
    tasks = RunningTasks(None)
    tasks.begin("a", partial(asyncio.sleep, 3600))
    task = tasks.running["a"]
    await tasks.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tasks.running == {}

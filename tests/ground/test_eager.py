"""A coroutine that begins at once, and goes on as a task."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest

from harness.patience import PATIENCE_S
from ostiaryd.ground.process.eager import start_now

steps: ContextVar[str] = ContextVar("steps")


def start(make: Callable[[], Coroutine[Any, Any, str]]) -> Awaitable[asyncio.Task[str]]:
    """Start a coroutine outside of any task, as the callback of a socket does."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[asyncio.Task[str]] = loop.create_future()
    loop.call_soon(lambda: started.set_result(start_now(loop, make())))
    return started


async def test_the_first_step_of_a_coroutine_runs_before_start_now_returns() -> None:
    order, loop = list[str](), asyncio.get_running_loop()

    async def work() -> str:
        order.append("first step")
        await asyncio.sleep(0)
        order.append("rest")
        return "result"

    def begin() -> None:
        tasks.append(start_now(loop, work()))
        order.append("returned")

    tasks = list[asyncio.Task[str]]()
    loop.call_soon(begin)
    await asyncio.sleep(0)
    assert await tasks[0] == "result"
    assert order == ["first step", "returned", "rest"]


async def test_a_coroutine_that_never_suspends_returns_its_result_or_its_error() -> None:
    async def result() -> str:
        return "result"

    async def error() -> str:
        raise LookupError("nothing there")

    assert await (await start(result)) == "result"
    with pytest.raises(LookupError, match="nothing there"):
        await (await start(error))


async def test_both_parts_of_a_coroutine_run_in_one_task_and_one_context() -> None:
    tasks, loop = list[asyncio.Task[Any] | None](), asyncio.get_running_loop()

    async def work() -> str:
        steps.set("of this work")
        async with asyncio.timeout(PATIENCE_S):  # needs a task
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())
        return steps.get()

    task = await start(work)
    assert await task == "of this work"
    assert tasks == [task, task]
    assert steps.get("of the caller") == "of the caller"
    assert asyncio.current_task(loop) is not task


async def test_errors_and_results_of_awaited_futures_reach_the_coroutine() -> None:
    loop, heard = asyncio.get_running_loop(), list[str]()
    first, second = loop.create_future(), loop.create_future()

    async def work() -> str:
        try:
            await first
        except LookupError as error:
            heard.append(str(error))
        heard.append(await second)
        return "done"

    task = await start(work)
    first.set_exception(LookupError("nothing there"))
    second.set_result("found")
    assert await task == "done"
    assert heard == ["nothing there", "found"]


async def test_a_cancelled_task_cancels_the_coroutine() -> None:
    heard = list[str]()

    async def work() -> str:
        try:
            for _ in range(1000):
                await asyncio.sleep(0)  # waits for no future that could be cancelled instead
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise
        return ""

    task = await start(work)
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (heard, task.cancelled()) == (["cancelled"], True)


async def test_a_cancellation_before_the_second_step_reaches_the_coroutine() -> None:
    heard = list[str]()

    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)  # a coroutine that is only closed cannot wait
            heard.append("cleaned up")
        return ""

    def begin() -> None:
        tasks.append(start_now(loop, work()))
        tasks[0].cancel()

    tasks, loop = list[asyncio.Task[str]](), asyncio.get_running_loop()
    loop.call_soon(begin)
    await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert (heard, tasks[0].cancelled()) == (["cancelled", "cleaned up"], True)


async def test_the_task_of_a_started_coroutine_runs_a_coroutine_object() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "result"

    task = await start(work)
    assert inspect.iscoroutine(task.get_coro())
    assert await task == "result"


async def test_a_coroutine_that_is_started_within_a_task_runs_in_a_later_round() -> None:
    order = list[str]()

    async def work() -> None:
        order.append("work")

    task = start_now(asyncio.get_running_loop(), work())
    order.append("returned")
    await task
    assert order == ["returned", "work"]

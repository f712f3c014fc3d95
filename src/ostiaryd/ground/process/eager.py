"""A coroutine that begins at once, and not in the next round of the event loop.

From Python 3.12 on, a task can do the same (`eager_start`). This module also works on Python 3.11 and on uvloop.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def start_now(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run the coroutine `work` up to its first wait, and return a task that runs the rest. If the caller runs in a task
    itself, the returned task runs all of `work` in a later round of the event loop.
    """
    if asyncio.current_task(loop) is not None:
        return loop.create_task(work)
    context, first = copy_context(), list[Any]()
    rest = _continue(work, first)
    rest.send(None)  # a cancellation reaches only a coroutine that has begun
    task = loop.create_task(rest, context=context)
    asyncio._enter_task(loop, task)
    try:
        first.append(context.run(work.send, None))
    except BaseException as error:  # noqa: BLE001 because the task raises it
        first.append(error)
    finally:
        asyncio._leave_task(loop, task)
    return task


async def _continue(work: Coroutine[Any, Any, T], first: list[Any]) -> T:
    """Run the rest of `work`, and return its result. From Python 3.12 on, a task accepts no generator."""
    return await _run_steps(work, first)


@types.coroutine
def _run_steps(work: Coroutine[Any, Any, T], first: list[Any]) -> Generator[Any, Any, T]:
    """Wait for the task, then run the rest of `work`. `first` then has the awaited future, or the exception that ended
    the first step.
    """
    waited: Any = None
    while True:
        error = None
        try:
            yield waited
        except BaseException as raised:  # noqa: BLE001 because it is raised in `work`
            error = raised
        try:
            waited = first.pop() if first else None
            if isinstance(waited, BaseException):
                raise waited
            if error is not None:
                waited = work.throw(error)
            elif waited is None:
                waited = work.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

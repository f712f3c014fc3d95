"""A coroutine that begins at once, and not in the next round of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from types import coroutine as generator_coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_now(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `work` up to its first wait, and return a task that runs the rest. If a task runs already, the returned task
    runs all of `work` in a later round.
    """
    if asyncio.current_task(loop) is not None:
        return loop.create_task(work)
    context, first = copy_context(), list[Any]()
    task = loop.create_task(_continue(work, first), context=context)
    asyncio._enter_task(loop, task)
    try:
        first.append(context.run(work.send, None))
    except BaseException as error:  # noqa: BLE001 because the task raises it
        first.append(error)
    finally:
        asyncio._leave_task(loop, task)
    return task


@generator_coroutine
def _continue(work: Coroutine[Any, Any, T], first: list[Any]) -> Generator[Any, Any, T]:
    """Run the rest of `work`, and return its result. `first` has the awaited future, or the exception that ended the
    first step.
    """
    (waited,) = first
    if isinstance(waited, BaseException):
        if isinstance(waited, StopIteration):
            return waited.value  # type: ignore[no-any-return]
        raise waited
    while True:
        error = None
        try:
            yield waited
        except BaseException as raised:  # noqa: BLE001 because it is raised in `work`
            error = raised
        try:
            waited = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

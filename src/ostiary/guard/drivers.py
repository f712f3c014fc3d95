"""Two drivers of a decision, which yields its needs: one blocks its thread, the other suspends its task.

The answer to a need is a generator too, which yields awaitables. Each conversation with the server therefore exists
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from ostiary.decision.access import Steps
from ostiary.protocol.errors import Refused

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait for the result of another thread's work. Raises TimeoutError after `within_s` seconds."""

    future: Future[Any]
    within_s: float

    def block(self) -> Any:
        """Wait in this thread."""
        try:
            return self.future.result(self.within_s)
        except TimeoutError:
            self.future.cancel()  # then no thread begins with it any more
            raise

    async def suspend(self) -> Any:
        """Wait in this task."""
        return await asyncio.wait_for(asyncio.wrap_future(self.future), self.within_s)


@dataclass(frozen=True, slots=True)
class Work:
    """Work that blocks its thread."""

    function: Callable[[], Any]

    def block(self) -> Any:
        """Do the work in this thread."""
        return self.function()

    async def suspend(self) -> Any:
        """Do the work in another thread."""
        return await asyncio.to_thread(self.function)


Waits = Generator[Wait | Work, Any, T]
"""A conversation: it yields awaitables, is sent their results, and returns the answer."""


def answer_needs(decision: Steps[T], answer: Callable[[Any], Waits[Any]]) -> Waits[T]:
    """Return the result of the decision, after answering its needs. A refusal to answer is raised inside it."""
    try:
        need = next(decision)
        while True:
            try:
                answered = yield from answer(need)
            except Refused as refusal:
                need = decision.throw(refusal)
            else:
                need = decision.send(answered)
    except StopIteration as done:
        outcome: T = done.value
        return outcome
    finally:
        decision.close()


def run(waits: Waits[T]) -> T:
    """Drive a conversation to its end, in this thread. Raises the errors of the decision."""
    try:
        wait = next(waits)
        while True:
            try:
                result = wait.block()
            except Exception as error:  # noqa: BLE001 because the conversation handles it
                wait = waits.throw(error)
            else:
                wait = waits.send(result)
    except StopIteration as done:
        outcome: T = done.value
        return outcome
    finally:
        waits.close()


async def run_async(waits: Waits[T]) -> T:
    """Drive a conversation to its end, while the event loop continues. Raises the errors of the decision."""
    try:
        wait = next(waits)
        while True:
            try:
                result = await wait.suspend()
            except Exception as error:  # noqa: BLE001 because the conversation handles it
                wait = waits.throw(error)
            else:
                wait = waits.send(result)
    except StopIteration as done:
        outcome: T = done.value
        return outcome
    finally:
        waits.close()

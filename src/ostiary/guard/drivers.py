"""Two drivers of a decision: `run` blocks the thread while the server answers, `run_async` suspends the task.

A decision is a generator that yields its needs. The answer to a need is a generator too, which yields each `Wait` or
`Work`. The code of each exchange with the server therefore exists only once, for both drivers.
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
    """A wait until another thread has a result. `block` and `suspend` return the result, and raise TimeoutError after
    `within_s` seconds.
    """

    future: Future[Any]
    within_s: float

    def block(self) -> Any:
        """Wait in this thread for the result of the work, and return the result."""
        try:
            return self.future.result(self.within_s)
        except TimeoutError:
            self.future.cancel()  # so that no thread begins the work later
            raise

    async def suspend(self) -> Any:
        """Wait for the result of the work without blocking the event loop, and return the result."""
        return await asyncio.wait_for(asyncio.wrap_future(self.future), self.within_s)


@dataclass(frozen=True, slots=True)
class Work:
    """A request to the server that a blocking function makes. An asynchronous driver runs the function in another
    thread.
    """

    function: Callable[[], Any]

    def block(self) -> Any:
        """Run the function in this thread, and return its result."""
        return self.function()

    async def suspend(self) -> Any:
        """Run the function in another thread, suspend this task until then, and return the result."""
        return await asyncio.to_thread(self.function)


Waits = Generator[Wait | Work, Any, T]
"""An exchange with the server: a generator that yields each `Wait` or `Work`, is sent its result, and returns the
answer.
"""


def answer_needs(decision: Steps[T], answer: Callable[[Any], Waits[Any]]) -> Waits[T]:
    """Return the result of the generator `decision`, after sending it the answer to each need that it yields. If
    `answer` raises a refusal, the refusal is raised inside the generator.
    """
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
    """Drive an exchange with the server to its end in this thread, and return its result. Raises the errors of the
    exchange.
    """
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
    """Drive an exchange with the server to its end, without blocking the event loop, and return its result. Raises the
    errors of the exchange.
    """
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

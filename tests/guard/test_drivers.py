"""Both drivers of a decision give it the same answers and errors, and end it with the wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from ostiary.decision.access import Steps
from ostiary.guard.drivers import Wait, Waits, Work, answer_needs, run, run_async
from ostiary.protocol.errors import Refused, Unavailable

Drive = Callable[[Waits[Any]], Any]


@pytest.fixture(params=["blocking", "asynchronous"])
def drive(request: pytest.FixtureRequest) -> Drive:
    return run if request.param == "blocking" else lambda waits: asyncio.run(run_async(waits))


def decision(log: list[object]) -> Steps[str]:
    """A decision that needs two things, and survives a refusal of the first one."""
    try:
        try:
            log.append((yield "first"))
        except Refused as refusal:
            log.append(refusal.code)
        log.append((yield "second"))
        return "decided"
    finally:
        log.append("ended")


def answered(needs: Callable[[str], Any]) -> Callable[[str], Waits[Any]]:
    def answer(need: str) -> Waits[Any]:
        return (yield Work(lambda: needs(need)))

    return answer


def test_a_decision_receives_the_answer_to_each_of_its_needs(drive: Drive) -> None:
    log: list[object] = []
    assert drive(answer_needs(decision(log), answered(str.upper))) == "decided"
    assert log == ["FIRST", "SECOND", "ended"]


def test_a_refused_need_is_raised_in_the_decision(drive: Drive) -> None:
    def refuse_first(need: str) -> str:
        if need == "first":
            raise Unavailable("no", code="no_answer")
        return need

    log: list[object] = []
    assert drive(answer_needs(decision(log), answered(refuse_first))) == "decided"
    assert log == ["no_answer", "second", "ended"]


def test_a_refusal_that_the_decision_does_not_handle_ends_the_decision(drive: Drive) -> None:
    def refuse_second(need: str) -> str:
        if need == "second":
            raise Unavailable("no")
        return need

    log: list[object] = []
    with pytest.raises(Unavailable):
        drive(answer_needs(decision(log), answered(refuse_second)))
    assert log == ["first", "ended"]


def test_an_unexpected_error_ends_the_decision_and_is_raised(drive: Drive) -> None:
    def fail(_: str) -> str:
        raise ZeroDivisionError

    log: list[object] = []
    with pytest.raises(ZeroDivisionError):
        drive(answer_needs(decision(log), answered(fail)))
    assert log == ["ended"]


def test_a_wait_times_out_and_cancels_work_that_has_not_begun(drive: Drive) -> None:
    waiting: Future[str] = Future()

    def answer(need: str) -> Waits[Any]:
        if need == "second":
            return (yield Work(lambda: need))
        try:
            yield Wait(waiting, 0.01)
        except TimeoutError:
            raise Unavailable("late", code="late") from None

    log: list[object] = []
    assert drive(answer_needs(decision(log), answer)) == "decided"
    assert log == ["late", "second", "ended"]
    assert waiting.cancelled()


def test_a_wait_returns_the_result_of_another_thread(drive: Drive) -> None:
    with ThreadPoolExecutor(1) as threads:

        def answer(need: str) -> Waits[Any]:
            return (yield Wait(threads.submit(str.title, need), 10))

        log: list[object] = []
        assert drive(answer_needs(decision(log), answer)) == "decided"
    assert log == ["First", "Second", "ended"]


async def test_the_event_loop_runs_while_a_decision_waits() -> None:
    waiting: Future[str] = Future()

    def answer(need: str) -> Waits[Any]:
        return (yield Wait(waiting, 10))

    deciding = asyncio.create_task(run_async(answer_needs(decision([]), answer)))
    await asyncio.sleep(0)
    waiting.set_result("told")
    assert await deciding == "decided"


async def test_a_cancelled_asyncio_task_closes_its_decision() -> None:
    log: list[object] = []

    def answer(_: str) -> Waits[Any]:
        return (yield Wait(Future(), 10))

    steps = decision(log)  # an unreferenced generator is closed by garbage collection
    deciding = asyncio.create_task(run_async(answer_needs(steps, answer)))
    await asyncio.sleep(0.01)
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    assert log == ["ended"]

"""Connections that are served are cut when their token dies, whatever the application does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from harness.clock import Clock
from harness.feeder import AGENT, Feeder
from harness.patience import PATIENCE_S
from ostiary.asgi import App, GuardASGI, Receive, Scope, Send
from ostiary.decision.feed import AgentFact, Fact, KeyFact, TokenFact
from ostiary.guard import Guard
from ostiary.protocol.jose import InvalidToken
from tests.guard.asgi_fixtures import ORIGIN, error, records, signed
from tests.support.guard_fixtures import authenticate_at

UNTIL = 1 << 52
STOPPED = AgentFact(AGENT, "quarantined", 1, UNTIL)
ANOTHER = KeyFact("another key", UNTIL)
START = {"type": "http.response.start", "status": 200, "headers": []}
Work = Callable[[Send, asyncio.Event], Awaitable[None]]


def serving(guard: Guard, feeder: Feeder, work: Work, *facts: Fact) -> App:
    """An application that lets the guard hear `facts` while it works."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        guard.feed.listeners.append(lambda _: loop.call_soon_threadsafe(heard.set))
        loop.call_soon(feeder.say, *facts)
        await work(send, heard)

    return GuardASGI(app, guard, tool={"GET /{path}": "read_file"})


async def get(guard: Guard, feeder: Feeder, app: App) -> httpx2.Response:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        return await http.get("/x", headers=signed(guard, feeder, "GET", "/x"))


async def idle(send: Send, heard: asyncio.Event) -> None:
    await asyncio.Event().wait()


async def answer(send: Send, heard: asyncio.Event) -> None:
    await heard.wait()
    await send(START)
    await send({"type": "http.response.body", "body": b"the answer"})


async def persist(send: Send, heard: asyncio.Event) -> None:
    """Ignore cancellation."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await send(START)
        await send({"type": "http.response.body", "body": b"the answer"})


async def fail(send: Send, heard: asyncio.Event) -> None:
    """Raise an own error on cancellation, as task groups do."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ExceptionGroup("tasks", [RuntimeError("one of them")]) from None


async def stop(send: Send, heard: asyncio.Event) -> None:
    """Return silently on cancellation."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@pytest.mark.parametrize("work", [idle, persist, fail, stop])
async def test_a_stop_cancels_a_running_request_and_the_response_states_the_reason(
    guard: Guard, feeder: Feeder, work: Work
) -> None:
    response = await asyncio.wait_for(get(guard, feeder, serving(guard, feeder, work, STOPPED)), PATIENCE_S)
    assert (response.status_code, error(response)) == (401, "invalid_token")
    assert b"the answer" not in response.content
    _, outcome = records(guard)
    assert outcome["status"] == "error"
    assert not guard.connections._open


async def test_a_stopped_response_that_has_begun_breaks_off_without_a_second_head(guard: Guard, feeder: Feeder) -> None:
    async def begun(send: Send, heard: asyncio.Event) -> None:
        await send(START)
        await asyncio.Event().wait()

    served, sent = serving(guard, feeder, begun, STOPPED), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Any) -> None:
            sent.append(message["type"])
            await send(message)

        await served(scope, receive, counting)

    with pytest.raises(InvalidToken, match="quarantined"):
        await asyncio.wait_for(get(guard, feeder, app), PATIENCE_S)
    assert sent == ["http.response.start"]
    assert records(guard)[1]["status"] == "error"


async def test_a_stop_of_another_agent_does_not_cancel_a_running_request(guard: Guard, feeder: Feeder) -> None:
    response = await get(guard, feeder, serving(guard, feeder, answer, ANOTHER, TokenFact("tok_2", UNTIL)))
    assert (response.status_code, response.content) == (200, b"the answer")
    assert records(guard)[1]["status"] == "ok"
    assert not guard.connections._open


async def test_normal_token_expiry_does_not_cancel_a_running_request(
    guard: Guard, feeder: Feeder, clock: Clock
) -> None:
    async def outlive(send: Send, heard: asyncio.Event) -> None:
        clock.advance(400)
        feeder.say(ANOTHER)
        await answer(send, heard)

    response = await get(guard, feeder, serving(guard, feeder, outlive, ANOTHER))
    assert response.content == b"the answer"


async def test_an_agent_that_is_stopped_before_its_request_is_served_is_refused(guard: Guard, feeder: Feeder) -> None:
    who = authenticate_at(guard, feeder)
    feeder.say(STOPPED)
    with pytest.raises(InvalidToken, match="quarantined"):
        async with guard.serving(who):
            await asyncio.wait_for(asyncio.Event().wait(), PATIENCE_S)


async def test_a_timeout_of_the_application_is_raised_unchanged(guard: Guard, feeder: Feeder) -> None:
    with pytest.raises(TimeoutError):
        async with guard.serving(authenticate_at(guard, feeder)):
            raise TimeoutError
    with pytest.raises(TimeoutError):
        async with guard.serving(authenticate_at(guard, feeder)):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)


def test_a_closed_event_loop_does_not_prevent_a_stop(guard: Guard, feeder: Feeder) -> None:
    loop = asyncio.new_event_loop()
    left = guard.serving(authenticate_at(guard, feeder))
    loop.run_until_complete(left.__aenter__())
    loop.close()
    feeder.say(STOPPED)
    assert guard.feed.current().facts.agents[AGENT].state == "quarantined"
    asyncio.run(left.__aexit__(None, None, None))
    assert not guard.connections._open

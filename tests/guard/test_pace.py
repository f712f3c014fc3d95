"""Calls of a throttled agent: the server counts each of them before it is let through, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.feeder import AGENT, RESOURCE_ID, TOOLS, URI
from harness.live_server import free_socket, serving
from harness.patience import eventually
from ostiary import ambient
from ostiary.asgi import GuardASGI
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import Actor, Link
from ostiary.decision.access import resolve
from ostiary.decision.feed import PolicyFact, ResourceFact, RestrictionFact
from ostiary.guard import Guard
from ostiary.guard.rate import QUIET_US, RateCheck, RateLimiter
from ostiary.protocol.errors import Unavailable
from tests.guard.asgi_fixtures import ORIGIN, app, signed
from tests.guard.feed_server import Server, answer, authenticate_with, connected_guard
from tests.support.guard_fixtures import authenticate_at, records

GIVER = "ag_00000000000000000000000000000002"
READ = ("read_file", {"path": "/x"})
MINUTE = 60_000_000


class Counting(Server):
    """A server that allows a limited number of calls in total, and records the token of each call."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.left, self.status = 0, 403
        self.error = {"error": "throttled", "message": "one too many", "hint": "wait"}
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/feed/v1/pace":
            return await super().__call__(scope, receive, send)
        said = json.loads((await receive())["body"])
        assert said.keys() == {"token"}
        self.asked.append(said["token"])
        self.left -= 1
        return await answer(send, 200 if self.left >= 0 else self.status, {} if self.left >= 0 else self.error)


@pytest.fixture
def server() -> Iterator[Counting]:
    sock, port = free_socket()
    server = Counting(f"http://127.0.0.1:{port}")
    with serving(server, sock):
        yield server


@pytest.fixture
def guard(server: Counting, tmp_path: Path) -> Iterator[Guard]:
    with connected_guard(server, tmp_path) as guard:
        yield guard


@pytest.fixture
def throttle(guard: Guard, server: Counting) -> Callable[..., None]:
    def say(limit: int, *, agent: str = AGENT, minutes: int = 60) -> None:
        now = ambient.now()
        server.say(RestrictionFact(agent, "throttle", limit, now, until := now + minutes * MINUTE))
        server.left = limit

        def is_heard() -> bool:
            holds = guard.feed.current().facts.restrictions.get(agent, ())
            return {one.until for one in holds} <= {until} and bool(holds or not minutes)

        eventually(is_heard)

    return say


def codes(guard: Guard, server: Counting, count: int, *, tool: str = "read_file", **claims: Any) -> list[str]:
    server.feeder.clock.now = ambient.now()
    token = server.feeder.token(iss=server.url, **claims)
    who = authenticate_at(guard, server.feeder, token)
    decisions = [guard.decide(who, tool, {"path": "/x"}).decision for _ in range(count)]
    return [one.reasons[0].code if one.reasons else "" for one in decisions]


def test_throttled_calls_beyond_the_limit_are_denied_and_recorded(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(2)
    assert codes(guard, server, 5) == ["", "", "throttled", "throttled", "throttled"]
    assert len(server.asked) == 3, "further calls do not reach the server"
    assert [one["outcome"] for one in records(guard)] == ["allow"] * 2 + ["deny"] * 3


def test_a_throttled_agent_is_checked_with_the_server_again_after_a_short_interval(
    guard: Guard, server: Counting, throttle: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    throttle(0)
    assert codes(guard, server, 2) == ["throttled"] * 2
    server.left, at = 1, ambient.now()
    decision = guard.decide(authenticate_with(guard, server), *READ).decision
    principal, facts = authenticate_with(guard, server).principal, guard.feed.current().facts
    allowed = type(decision)(True, True, "")
    rate: RateLimiter = guard._link.rate
    (until, _), *_ = rate._denied.values()
    assert at < until <= at + QUIET_US
    before, after = (resolve(principal, *READ, facts, now) for now in (until - 1, until))
    assert not rate.check(before, allowed).allowed  # type: ignore[union-attr]
    assert rate.check(after, allowed) == RateCheck(((AGENT, 0),))


def test_a_call_denied_for_another_reason_is_not_counted(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(1)
    assert codes(guard, server, 3, tool="write_file") == ["outside_task"] * 3
    assert server.asked == []


def test_a_throttle_counts_calls_delegated_by_the_agent_and_not_those_of_other_agents(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(1, agent=GIVER)
    assert codes(guard, server, 3) == [""] * 3
    assert server.asked == []
    through: dict[str, Any] = {"act": Actor(AGENT), "sub": GIVER, "chain": [Link(GIVER, 0, "tk_9")], "jti": "tok_2"}
    assert codes(guard, server, 2, **through) == ["", "throttled"]
    assert Counter(server.asked) == {"tok_2": 2}


def test_an_agent_can_call_again_as_soon_as_its_throttle_ends(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(1)
    assert codes(guard, server, 2) == ["", "throttled"]
    throttle(1, minutes=0)
    assert codes(guard, server, 3) == [""] * 3


def test_a_throttle_is_enforced_in_watch_mode(guard: Guard, server: Counting, throttle: Callable[..., None]) -> None:
    server.say(
        ResourceFact(resource_id=RESOURCE_ID, name="files", uri=URI, mode="watch", segment="default", catalogue=TOOLS),
        PolicyFact("nothing is permitted", ir.render(ir.PolicySetIR(())).decode()),
    )
    throttle(1)
    assert codes(guard, server, 2) == ["no_permit", "throttled"]
    assert [one["outcome"] for one in records(guard)] == ["allow", "deny"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(503, {}), (403, {"error": "foreign_token", "message": "no"}), (429, {}), (400, {"error": "throttled"})],
)
def test_a_throttled_call_that_cannot_be_counted_is_refused(
    guard: Guard, server: Counting, throttle: Callable[..., None], status: int, error: dict[str, str]
) -> None:
    throttle(1)
    server.left, server.status, server.error = 0, status, error
    with pytest.raises(Unavailable) as refused:
        guard.decide(authenticate_with(guard, server), *READ)
    assert refused.value.code == "pace_unavailable"


async def test_a_throttled_http_request_gets_403_with_its_reason(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(0)
    server.feeder.clock.now = ambient.now()
    served = GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file"})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url=ORIGIN) as http:
        headers = signed(guard, server.feeder, "GET", "/files/a", iss=server.url)
        denied = await http.get("/files/a", headers=headers)
    assert (denied.status_code, denied.json()["error"]) == (403, "throttled")
    assert denied.json()["hint"] == "wait"


async def test_asynchronous_decisions_are_throttled(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(1)
    who = authenticate_with(guard, server)
    decided = [(await guard.decide_async(who, *READ)).decision.allowed for _ in range(3)]
    assert decided == [True, False, False]


def test_a_throttled_call_requests_no_approval(guard: Guard, server: Counting, throttle: Callable[..., None]) -> None:
    """A throttled call does not spend an approval either."""
    asks = ir.PolicyIR(id="asks", effect="forbid", annotations={"ask": "person"})
    text = ir.render(ir.PolicySetIR((ir.PolicyIR(id="all", effect="permit"), asks))).decode()
    server.say(PolicyFact("asks", text))
    throttle(0)
    asked = len(server.applied)
    assert codes(guard, server, 1) == ["throttled"]
    assert [one for one in server.applied[asked:] if "arguments" in one] == []


def test_concurrent_threads_do_not_exceed_the_throttle_limit(
    guard: Guard, server: Counting, throttle: Callable[..., None]
) -> None:
    throttle(10)
    who = authenticate_with(guard, server)
    with ThreadPoolExecutor(8) as threads:
        calls = list(threads.map(lambda _: guard.decide(who, *READ), range(50)))
    assert sum(one.decision.allowed for one in calls) == 10

"""Budgets at real guards of a real server: drawn in slices, given back, denied in words, and asked for no oftener
than need be.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.live_server import ServerFixture, authenticate, own_server
from harness.patience import eventually
from harness.server import running
from ostiary.agent import Agent
from ostiary.decision.access.decide import Decision
from ostiary.guard import Guard, Verified
from ostiary.guard.call import Denied
from ostiary.protocol.errors import Unavailable

TOOLS: list[dict[str, Any]] = [{"name": "pay", "effect": "pay"}, {"name": "read", "effect": "read"}]


class Bank:
    """A resource with an agent whose tasks have budgets."""

    def __init__(self, live_server: ServerFixture) -> None:
        self.live_server = live_server
        self.uri = f"https://{live_server.name('bank')}.example/mcp"
        self.resource, self.guard_key = live_server.resource(self.uri, TOOLS)
        self.agent, self.agent_key = live_server.agent(f"{self.resource}:write", f"{self.resource}:read")

    def task(self, *limits: dict[str, Any], **more: Any) -> str:
        body = {"agent": self.agent, "purpose": "to pay", "budget": list(limits), **more}
        return str(self.live_server.api("POST", "/tasks", body)["task_id"])

    def pay(self, limit: str) -> dict[str, Any]:
        return {"kind": "amount", "limit": limit, "tools": [f"{self.resource}/pay"], "argument": "amount"}

    @contextmanager
    def guard(self, folder: Path, task: str) -> Iterator[tuple[Guard, Verified]]:
        with Guard(self.guard_key, spool_dir=folder) as guard:
            yield guard, authenticate(guard, self.agent_key, self.uri, task=task)

    def left(self, task: str) -> list[tuple[str, str]]:
        budgets = self.live_server.api("GET", f"/tasks/{task}")["budgets"]
        return [(one["left"], one["spent"]) for one in budgets]

    def draws(self, task: str) -> int:
        return sum(entry["action"] == "budget.draw" for entry in self.live_server.entries(task=task, limit=1000))


def guard_account(who: Verified) -> str:
    [budget] = who.principal.claims.budgets
    return budget.id


@pytest.fixture
def bank(live_server: ServerFixture) -> Bank:
    return Bank(live_server)


def calls(limit: int) -> dict[str, Any]:
    return {"kind": "calls", "limit": limit}


def test_a_guard_allows_calls_within_the_budget_and_denies_others_with_a_reason(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(5), bank.pay("10.00"))
    with bank.guard(tmp_path, task) as (guard, who):
        for amount in ("4.00", 5, "0.99"):
            with guard.call(who, "pay", {"amount": amount}):
                pass
        with pytest.raises(Denied) as denied, guard.call(who, "pay", {"amount": "0.02"}):
            pass
        assert denied.value.code == "budget_exhausted"
        assert "0.01 of 10.00 left" in denied.value.message
        assert "ostiary task start" in denied.value.hint
        with pytest.raises(Denied) as denied, guard.call(who, "pay", {"amount": 0.01}):
            pass
        assert denied.value.code == "bad_amount"
        with guard.call(who, "read", {}), guard.call(who, "pay", {"amount": "0.01"}):
            pass
        with pytest.raises(Denied) as denied, guard.call(who, "read", {}):
            pass
        assert "0 of 5 left" in denied.value.message
    assert bank.left(task) == [("0.00", "10.00"), ("0", "5")]
    spent = [
        e["detail"].get("spent") for e in bank.live_server.entries(task=task, limit=50) if e["action"] == "tool.call"
    ]
    assert sum(one is not None for one in spent) == 5, "what was denied has cost nothing"


def test_a_call_whose_tool_raises_is_charged(bank: Bank, tmp_path: Path) -> None:
    """The tool may have had its effect before the exception."""
    task = bank.task(calls(5))
    with bank.guard(tmp_path, task) as (guard, who), pytest.raises(ZeroDivisionError), guard.call(who, "read", {}):
        raise ZeroDivisionError
    assert bank.left(task) == [("4", "1")]


def test_a_closing_guard_returns_its_unused_budget(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(160))
    with bank.guard(tmp_path, task) as (guard, who):
        assert guard.decide(who, "read", {}).decision.allowed
        assert bank.left(task)[0][0] == "150"
    assert bank.left(task) == [("159", "1")]
    assert list(tmp_path.glob("*/*/*")) == [], "nothing is left to be told"


def test_an_idle_guard_returns_its_unused_budget_and_draws_again(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(160))
    with bank.guard(tmp_path, task) as (guard, who):
        assert guard.decide(who, "read", {}).decision.allowed
        eventually(lambda: bank.left(task) == [("159", "1")])
        eventually(lambda: guard._budgets.is_empty)
        assert guard.decide(who, "read", {}).decision.allowed
        assert bank.left(task)[0][0] == "150"
    assert bank.left(task) == [("158", "2")]


def test_one_draw_of_a_budget_serves_many_calls(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(1600))
    with bank.guard(tmp_path, task) as (guard, who):
        for _ in range(100):
            assert guard.decide(who, "read", {}).decision.allowed
        assert bank.draws(task) == 1, "a sixteenth of what is left"
        assert guard.decide(who, "read", {}).decision.allowed
        assert bank.draws(task) == 2
        for _ in range(1498):
            assert guard.decide(who, "read", {}).decision.allowed
        assert guard.decide(who, "read", {}).decision.allowed
        assert not guard.decide(who, "read", {}).decision.allowed
        assert bank.draws(task) < 100
    assert bank.left(task) == [("0", "1600")]


def test_a_call_without_a_cost_does_not_draw_on_the_budget(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(bank.pay("10.00"))
    with bank.guard(tmp_path, task) as (guard, who):
        assert guard.decide(who, "read", {}).decision.allowed
        assert guard.decide(who, "pay", {"amount": 0}).decision.allowed
        assert not guard.decide(who, "no_such_tool", {}).decision.allowed
        assert bank.draws(task) == 0
    assert bank.left(task) == [("10.00", "0.00")]


def test_two_guards_share_one_budget_to_the_last_unit(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(100))
    with bank.guard(tmp_path / "a", task) as (one, first), bank.guard(tmp_path / "b", task) as (two, second):
        allowed = 0
        for _ in range(60):
            allowed += one.decide(first, "read", {}).decision.allowed
            allowed += two.decide(second, "read", {}).decision.allowed
        assert allowed <= 100
        one.close()
        while two.decide(second, "read", {}).decision.allowed:
            allowed += 1
        assert allowed == 100
    assert bank.left(task) == [("0", "100")]


def test_threads_of_one_guard_share_one_budget_to_the_last_unit(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(200))
    allowed: list[bool] = []
    with bank.guard(tmp_path, task) as (guard, who):

        def work() -> None:
            for _ in range(60):
                allowed.append(guard.decide(who, "read", {}).decision.allowed)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(allowed) == 200
    assert len(allowed) == 240


async def test_an_asynchronous_draw_does_not_block_other_coroutines(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(50))
    with bank.guard(tmp_path, task) as (guard, who):
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(turn())
        made = [await guard.decide_async(who, "read", {}) for _ in range(51)]
        other.cancel()
        assert [call.decision.allowed for call in made] == [True] * 50 + [False]
        assert turns > 10
    assert bank.left(task) == [("0", "50")]


def test_the_token_response_contains_the_remaining_budgets(bank: Bank) -> None:
    task = bank.task(calls(5))
    bank.live_server.api("PUT", f"/agents/{bank.agent}/budget", {"limits": [bank.pay("10.00")]})
    with Agent.from_credential(bank.agent_key) as agent:
        answer = agent.token(resource=bank.uri, task=task)
        standing = agent.token(resource=bank.uri)
    assert [(one["limit"]["kind"], one["left"], one.get("daily")) for one in answer["budgets"]] == [
        ("calls", "5", None),
        ("amount", "10.00", True),
    ]
    assert [one["left"] for one in standing["budgets"]] == ["10.00"]
    bank.live_server.api("PUT", f"/agents/{bank.agent}/budget", {"limits": []})
    with Agent.from_credential(bank.agent_key) as agent:
        assert "budgets" not in agent.token(resource=bank.uri)


def test_calls_beyond_the_drawn_budget_are_denied_without_the_server(tmp_path: Path) -> None:
    with own_server(tmp_path) as live_server:
        bank = Bank(live_server)
        task = bank.task(calls(160))
        guard = Guard(bank.guard_key, spool_dir=tmp_path / "spool", max_age=60).start()
        who = authenticate(guard, bank.agent_key, bank.uri, task=task)
        assert guard.decide(who, "read", {}).decision.allowed
    allowed = 1
    while guard._budgets.drawn(guard_account(who)):
        allowed += guard.decide(who, "read", {}).decision.allowed
    with pytest.raises(Unavailable) as refused:
        guard.decide(who, "read", {})
    assert refused.value.code == "budget_unavailable"
    assert allowed == 10, "what was drawn before is spent, and no more"
    guard.close()
    spools = list((tmp_path / "spool").glob("*/*/lock"))
    assert len(spools) == 1, "the next guard tells the server that this one has ended"
    with (
        running_again(tmp_path) as live_server,
        Guard(bank.guard_key, url=live_server.server.url, spool_dir=tmp_path / "spool"),
    ):
        bank.live_server = live_server
        eventually(lambda: bank.left(task) == [("150", "10")])


@contextmanager
def running_again(folder: Path) -> Iterator[ServerFixture]:
    with own_server(folder) as live_server:
        yield live_server


class Losing(httpx2.BaseTransport):
    """The real way to the server, on which the answers to the next requests to some paths are lost."""

    def __init__(self) -> None:
        self._way = httpx2.HTTPTransport()
        self.lose: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._way.handle_request(request)
        verb = request.url.path.rpartition("/")[2]
        if verb in self.lose and response.status_code == 200:
            self.lose.remove(verb)
            response.close()
            raise httpx2.ReadTimeout("the answer is lost", request=request)
        return response

    def close(self) -> None:
        self._way.close()


@contextmanager
def lossy(guard: Guard) -> Iterator[Losing]:
    """Send the budget requests of a guard through a transport that can lose responses."""
    way, drawer = Losing(), guard._link.budget_client
    connect = drawer._connect

    @contextmanager
    def connected() -> Iterator[Any]:
        with connect() as (_, auth, issuer), httpx2.Client(transport=way) as http:
            yield http, auth, issuer

    drawer._connect = connected
    yield way


def test_a_draw_with_a_lost_response_is_repeated_by_the_next_draw(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(160))
    with bank.guard(tmp_path, task) as (guard, who), lossy(guard) as way:
        way.lose.append("draw")
        with pytest.raises(Unavailable) as refused:
            guard.decide(who, "read", {})
        assert refused.value.code == "budget_unavailable"
        assert bank.left(task) == [("150", "0")]
        assert guard.decide(who, "read", {}).decision.allowed
        assert bank.left(task)[0][0] == "150", "it was the same slice"
    assert bank.left(task) == [("159", "1")]


def test_a_draw_with_a_lost_response_is_returned_if_not_repeated(bank: Bank, tmp_path: Path) -> None:
    task = bank.task(calls(160))
    with bank.guard(tmp_path, task) as (guard, who), lossy(guard) as way:
        way.lose.append("draw")
        with pytest.raises(Unavailable):
            guard.decide(who, "read", {})
        assert bank.left(task) == [("150", "0")]
        eventually(lambda: bank.left(task) == [("160", "0")])


def test_a_return_of_budget_is_confirmed_before_the_next_draw(bank: Bank, tmp_path: Path) -> None:
    """Otherwise guard and server would count from different balances, and units would be lost."""
    task = bank.task(calls(160))
    with bank.guard(tmp_path, task) as (guard, who), lossy(guard) as way:
        assert guard.decide(who, "read", {}).decision.allowed
        eventually(lambda: bank.left(task)[0][1] == "1")
        way.lose += ["give-back"] * 1000
        eventually(lambda: bank.left(task) == [("159", "1")])
        with pytest.raises(Unavailable):
            guard.decide(who, "read", {})
        assert bank.left(task) == [("159", "1")]
        way.lose.clear()
        for _ in range(159):
            assert guard.decide(who, "read", {}).decision.allowed
        assert not guard.decide(who, "read", {}).decision.allowed
    assert bank.left(task) == [("0", "160")]


@pytest.mark.parametrize(("boot", "comes_back"), [(None, True), ("another boot", False), ("", False)])
def test_the_drawn_budget_of_a_killed_guard_returns_unless_the_machine_restarted(
    bank: Bank, tmp_path: Path, boot: str | None, comes_back: bool
) -> None:
    """`""` stands for a machine without a boot id."""
    task, effects = bank.task(calls(100_000)), tmp_path / "effects"
    words = [bank.guard_key, bank.agent_key, tmp_path / "spool", bank.uri, task, effects, 100_000]
    with subprocess.Popen([sys.executable, "-m", "tests.e2e.spender", *map(str, words)]) as process:
        try:
            eventually(lambda: effects.exists() and effects.stat().st_size > 0)
        finally:
            process.kill()
    size, before = effects.stat().st_size, bank.left(task)[0][0]
    [lock] = (tmp_path / "spool").glob("*/*/lock")
    if boot is not None:
        lock.write_text(boot)
    with Guard(bank.guard_key, spool_dir=tmp_path / "spool"):
        eventually(lambda: not lock.exists())
    left, spent = map(int, bank.left(task)[0])
    assert size <= spent <= size + 1, "it may have been killed between a record and its effect"
    assert left == (100_000 - spent if comes_back else int(before))
    assert int(before) < 100_000 - spent


LATER = """
import sys, time
ahead, time_ns = int(sys.argv.pop(1)), time.time_ns
time.time_ns = lambda: time_ns() + ahead
from ostiary.cli import main
sys.exit(main())
"""
"""the command line, in a process whose clock is ahead"""
LEFT_OF_DAY_S = (20, 80, 320)
"""Seconds in which the server starts and the budget of the first day is used up; more, if they were not enough."""
DAY_NS = 86_400 * 10**9


@pytest.mark.slow
def test_a_daily_budget_renews_at_a_running_guard_at_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(has_seen_a_day_end(tmp_path / str(left_s), left_s, monkeypatch) for left_s in LEFT_OF_DAY_S)


def decide_patiently(guard: Guard, who: Verified) -> Decision:
    """Return the decision about a call; repeat the call while the server is too busy to answer a draw."""

    def attempt() -> Decision | None:
        with suppress(Unavailable):
            return guard.decide(who, "read", {}).decision
        return None

    decision: Decision = eventually(attempt)
    return decision


def has_seen_a_day_end(folder: Path, left_s: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return False if the machine needed more time than was left of the first day."""
    folder.mkdir()
    time_ns = time.time_ns
    ahead = DAY_NS - time_ns() % DAY_NS - left_s * 10**9
    today = (time_ns() + ahead) // DAY_NS
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: time_ns() + ahead)
        with (
            running(folder / "server", command=(sys.executable, "-c", LATER, str(ahead))) as server,
            ServerFixture(server, folder) as live_server,
        ):
            bank = Bank(live_server)
            live_server.api("PUT", f"/agents/{bank.agent}/budget", {"limits": [calls(7)]})
            task = bank.task()
            with bank.guard(folder / "spool", task) as (guard, who):
                decisions = [decide_patiently(guard, who) for _ in range(8)]
                if time.time_ns() // DAY_NS > today:
                    return False
                assert [decision.allowed for decision in decisions] == [True] * 7 + [False]
                assert "0 of 7 left today" in decisions[-1].reasons[0].message
                eventually(lambda: live_server.api("GET", "/clock")["time"] * 10**9 // DAY_NS > today)
                for _ in range(7):
                    assert decide_patiently(guard, who).allowed, "the same token, on a new day"
                assert not decide_patiently(guard, who).allowed
            assert bank.left(task) == [("0", "7")]
    return True

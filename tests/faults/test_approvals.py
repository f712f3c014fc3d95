"""`kill -9` of a real server while an approval is spent: an approval allows exactly one call, and is never lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.live_server import ServerFixture, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from ostiary.guard import Guard, Verified
from ostiary.protocol.errors import Refused
from tests.faults.tally import Tally
from tests.support.payment_fixtures import FILES, People, codes


def is_allowed(guard: Guard, who: Verified, call: tuple[str, dict[str, object]]) -> bool:
    with suppress(Refused):
        return guard.decide(who, *call).decision.allowed
    return False


def spend(guard: Guard, who: Verified, call: tuple[str, dict[str, object]], passed: list[bool]) -> None:
    """Make the call until it passes."""
    passed.append(bool(eventually(lambda: is_allowed(guard, who, call))))


def reasons(guard: Guard, who: Verified, call: tuple[str, dict[str, object]]) -> list[str]:
    """Why the call is denied, as soon as the guard has a fresh feed."""

    def decided() -> list[str]:
        with suppress(Refused):
            return codes(guard.decide(who, *call).decision) or ["allowed"]
        return []

    return list(eventually(decided))


@pytest.mark.slow
def test_an_approval_allows_exactly_one_call_although_the_server_is_killed_while_it_is_spent(
    tmp_path: Path, rounds: int, tally: Tally
) -> None:
    dice, data = random.Random(rounds), tmp_path / "server"
    run = PreparedServer(data)
    server = run.__enter__()
    live_server = ServerFixture(server, tmp_path)
    try:
        live_server.api("POST", "/policies", {"files": FILES})
        people = People(live_server)
        alice = people.person()
        lost = doubled = 0
        with people.guard(tmp_path / "spool") as (guard, who):
            for number in range(4 * rounds):
                call: tuple[str, dict[str, object]] = (
                    "pay",
                    {"amount": 500 + number, "to": "ann", "note": "rent", "pin": "4711"},
                )
                assert reasons(guard, who, call) == ["approval_needed"]
                asked = guard.decide(who, *call).decision
                status, _ = people.answer(alice, asked.approval)
                assert status == 200
                passed: list[bool] = []
                spending = threading.Thread(target=spend, args=(guard, who, call, passed))
                spending.start()
                time.sleep(dice.uniform(0, 0.02))  # the moment of the kill is what varies; no outcome rests on it
                os.kill(pid_of(server), signal.SIGKILL)
                with pytest.raises(AssertionError, match="the server ended with -9"):
                    run.__exit__(None, None, None)
                run = PreparedServer(data, port=int(server.url.rpartition(":")[2]))
                server = run.__enter__()
                spending.join(2 * PATIENCE_S)
                lost += passed != [True]
                again = reasons(guard, who, call)
                doubled += again != ["approval_spent"]
        tried = 4 * rounds
        tally("an approval that is spent while the server is killed is not lost", broken=lost, of=tried)
        tally("an approval allows one call, although the server is killed meanwhile", broken=doubled, of=tried)
        entries = live_server.entries(action="approval.spend", limit=500)
        spent = [entry["object"] for entry in entries if not entry["detail"].get("again")]  # the answer was lost
        tally("an approval is spent once on record", broken=len(spent) - len(set(spent)), of=len(spent))
        people.close()
    finally:
        live_server.admin.close()
        run.__exit__(None, None, None)

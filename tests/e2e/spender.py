"""Spend from a budget until it is exhausted: `python -m tests.e2e.spender GUARD AGENT SPOOL URI TASK EFFECTS COUNT`.

A tool server in a process of its own, with an agent that calls its tool. Each call that is let through leaves one byte
in EFFECTS, which all such processes share: what the tool did to the world.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx2

from harness.live_server import authenticate
from harness.patience import PATIENCE_S
from ostiary.guard import Guard, Verified
from ostiary.protocol.errors import Refused

ARGUMENTS = {"amount": "0.01"}


def show(guard: Guard, agent_key: Path, uri: str, task: str) -> Verified:
    """Authenticate the caller. All processes start at once, so the server may respond slowly."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return authenticate(guard, agent_key, uri, task=task)
        except (Refused, httpx2.HTTPError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def spend(guard: Guard, who: Verified) -> str:
    """Decide one payment. Return an empty string if it is allowed, otherwise the reason code."""
    try:
        call = guard.decide(who, "pay", ARGUMENTS)
    except Refused as refusal:
        return refusal.code
    return "" if call.decision.allowed else call.decision.reasons[0].code


def main(guard_key: str, agent_key: str, spool: str, uri: str, task: str, effects: str, count: str) -> None:
    file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    guard = Guard(Path(guard_key), spool_dir=Path(spool), max_age=30, max_skew=10)
    with closing(guard.start(wait=PATIENCE_S)):
        who = show(guard, Path(agent_key), uri, task)
        print("spending", flush=True)
        done, last = 0, time.monotonic()
        while done < int(count):
            why = spend(guard, who)
            if not why:
                os.write(file, b"x")
                done, last = done + 1, time.monotonic()
            elif why == "budget_exhausted":
                break
            elif why == "token_expired":  # on a loaded machine all this takes longer than a token lives
                who = show(guard, Path(agent_key), uri, task)
            else:
                assert time.monotonic() < last + PATIENCE_S, f"nothing is let through any more: {why}"
                time.sleep(0.05)
    print("closed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The cost of `ostiary.tools` for a tool of the agent's own process, in microseconds of processor time a call.

Beside the bare function: what the guard does for the call anyhow (the decision and its record), and that with all that
`Tools` adds: who calls, the arguments bound and made JSON, how it went. The arguments are three, two of them defaults.
"""

from __future__ import annotations

import asyncio
import inspect
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.clock import Clock
from harness.feeder import ISSUER, RESOURCE_ID, URI, Feeder
from ostiary import Tools, ambient
from ostiary.agent import Agent
from ostiary.authorization.cedar import ir
from ostiary.caller import Caller
from ostiary.client import Token
from ostiary.decision.feed import PolicyFact
from ostiary.guard import Guard
from ostiary.keys import Credential
from ostiaryd.policy.model import starter_files

COUNT, ROUNDS = 2_000, 15


def measure(name: str, function: Callable[[], object], *, beside: float = 0) -> float:
    """Microseconds a call, the median of rounds; `beside`: what to compare it with."""
    means = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(COUNT):
            function()
        means.append((time.process_time() - started) / COUNT * 1e6)
    found = statistics.median(means)
    print(f"  {name:<58} {found:8.2f} µs" + (f"   {found / beside:5.2f} times" if beside else ""))
    return found


def read_file(path: str, limit: int = 10, encoding: str = "utf-8") -> str:
    return "text"


async def read_file_later(path: str, limit: int = 10, encoding: str = "utf-8") -> str:
    return "text"


def main() -> None:
    clock = Clock(ambient.now())
    with tempfile.TemporaryDirectory() as folder:
        guard = Guard(Credential(Feeder.agent_key, RESOURCE_ID, ISSUER), spool_dir=Path(folder), now=clock, tick=clock)
        feeder = Feeder(clock, feed=guard.feed)
        feeder.snapshot()
        feeder.say(PolicyFact(starter_files().hash, ir.render(starter_files().ir).decode()))
        token, nonce = feeder.token(), guard._proofs.nonce()
        proof = feeder.proof(token, nonce=nonce)
        who = guard.verify(authorization=f"DPoP {token}", proof=proof, method="POST", uri=URI)
        arguments = {"path": "/srv/reports/2026/q3.txt", "limit": 10, "encoding": "utf-8"}

        def decide() -> None:
            guard.finish(guard.decide(who, "read_file", arguments))

        agent = Agent(Credential(Feeder.agent_key, "ag_1", ISSUER), now=clock)
        tools = Tools(guard, agent)
        assert isinstance(tools._fixed, Caller)
        tools._fixed._cached = who, Token(token, {}, 0, 1 << 62, Feeder.agent_key)  # as when it has been got and shown
        guarded, later = tools.tool("read_file")(read_file), tools.tool("read_file")(read_file_later)
        path = arguments["path"]

        def admit() -> None:
            with tools.admit("read_file", arguments) as running:
                running.returned("text")

        measure("the function alone", lambda: read_file(str(path)))
        beside = measure("decision with its record in the spool, and how it went", decide)
        measure("Tools.admit", admit, beside=beside)
        measure("@tools.tool, blocking", lambda: guarded(str(path)), beside=beside)

        async def call_later() -> float:
            async def calls() -> None:
                for _ in range(COUNT):
                    await later(str(path))

            means = []
            for _ in range(ROUNDS):
                started = time.process_time()
                await calls()
                means.append((time.process_time() - started) / COUNT * 1e6)
            return statistics.median(means)

        found = asyncio.run(call_later())
        print(f"  {'@tools.tool, asynchronous':<58} {found:8.2f} µs   {found / beside:5.2f} times")
        signature = inspect.signature(read_file)
        measure("of that, binding the arguments", lambda: signature.bind(path).apply_defaults(), beside=beside)
        assert guard.decide(who, "read_file", arguments).decision.allowed


if __name__ == "__main__":
    main()

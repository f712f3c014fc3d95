"""The cost of a guard at a tool server, in microseconds of processor time: `python -m benchmarks.guard`.

token    a token seen for the first time (ES256), and one that is remembered
proof    a DPoP proof (ES256), which can never be remembered
import   what a process pays for the agent and the guard before it does anything
decide   the decision alone (starter policies), and the decision with its record in the spool
feed     a revocation, from the line of the feed to the denial

Enforced: the signatures, system calls and calls of functions of each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from harness.call_counts import count_calls
from harness.clock import Clock
from harness.feeder import ISSUER, RESOURCE_ID, URI, Feeder
from ostiary import ambient
from ostiary.authorization.cedar import ir
from ostiary.decision import access
from ostiary.decision.feed import PolicyFact, TokenFact
from ostiary.guard import Guard
from ostiary.keys import Credential
from ostiaryd.policy.model import starter_files

COUNT, ROUNDS, COUNTED = 1000, 5, 16


class Work(NamedTuple):
    """The work for one input: signatures that are verified, files that are looked up and written, and calls of
    functions at most.
    """

    verifications: int
    lookups: int
    writes: int
    most_calls: int


WORK = {
    "token, first time": Work(1, 0, 0, 115),
    "token, remembered": Work(0, 0, 0, 12),
    "token remembered, with proof": Work(1, 0, 0, 125),
    "decision": Work(0, 0, 0, 30),
    "decision, with its record in the spool": Work(0, 1, 1, 115),
    "feed, one revocation": Work(1, 0, 1, 120),
}


class Wrong(Exception):
    """An input takes other work than WORK states."""


def measure(name: str, function: Callable[[Any], object], inputs: Iterable[Any]) -> None:
    """Print the median over rounds of the mean over calls, after the work for COUNTED inputs is checked. Raises
    Wrong.
    """
    first, *values = inputs
    function(first)  # fills the caches
    with count_calls() as calls:
        for value in values[:COUNTED]:
            function(value)
    verifications = calls["ECPublicKey.verify"] + calls["Ed25519PublicKey.verify"]
    found = [count / COUNTED for count in (verifications, calls["lstat"], calls["write"], calls.total())]
    if found[:3] != list(WORK[name][:3]) or found[3] > WORK[name].most_calls or calls["open"] or calls["fsync"]:
        raise Wrong(f"{name}: {found} instead of {WORK[name]}")
    values = values[COUNTED:]
    size = len(values) // ROUNDS
    batches = [values[start : start + size] for start in range(0, size * ROUNDS, size)]
    means = []
    for batch in batches:
        started = time.process_time()
        for value in batch:
            function(value)
        means.append((time.process_time() - started) / len(batch) * 1e6)
    mean = statistics.median(means)
    print(f"  {name:<44} {mean:8.2f} µs {1e6 / mean:10,.0f} /s {found[3]:5.0f} calls")


def import_s(module: str) -> float:
    """Seconds of processor time of a process that does nothing but import that module."""
    times = []
    for _ in range(ROUNDS):
        before = os.times()
        subprocess.run([sys.executable, "-c", f"import {module}" if module else ""], check=True)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(times)


def main() -> None:
    bare = import_s("")
    for module in ("ostiary", "ostiary.protocol.decoding", "ostiary.agent", "ostiary.guard"):
        print(f"  import {module:<37} {(import_s(module) - bare) * 1e3:8.0f} ms")
    clock = Clock(ambient.now())
    with tempfile.TemporaryDirectory() as folder:
        credential = Credential(Feeder.agent_key, RESOURCE_ID, ISSUER)
        guard = Guard(credential, spool_dir=Path(folder), now=clock, tick=clock)
        feeder = Feeder(clock, feed=guard.feed)
        feeder.snapshot()
        feeder.say(PolicyFact(starter_files().hash, ir.render(starter_files().ir).decode()))
        tokens = [feeder.token(jti=f"tok_{number}") for number in range(COUNT)]
        present = guard.feed.current()

        def principal(token: str) -> object:
            return guard._tokens.principal(token, present, issuer=ISSUER, heard_at=guard.feed.heard_at)

        measure("token, first time", principal, tokens)
        measure("token, remembered", principal, tokens * 10)

        token, nonce = tokens[0], guard._proofs.nonce()
        proofs = [feeder.proof(token, nonce=nonce) for _ in range(COUNT)]
        shown = f"DPoP {token}"
        measure(
            "token remembered, with proof",
            lambda proof: guard.verify(authorization=shown, proof=proof, method="POST", uri=URI),
            proofs,
        )

        who = guard.verify(authorization=shown, proof=feeder.proof(token, nonce=nonce), method="POST", uri=URI)
        arguments = {"path": "/srv/reports/2026/q3.txt"}
        facts, now = present.facts, clock()
        assert guard.decide(who, "read_file", arguments).decision.allowed

        def decide(_: int) -> access.Decision:
            return access.decide(access.resolve(who.principal, "read_file", arguments, facts, now))

        measure("decision", decide, range(20 * COUNT))
        measure(
            "decision, with its record in the spool",
            lambda _: guard.decide(who, "read_file", arguments),
            range(COUNT * 10),
        )

        lines = [feeder.line(feeder.message(TokenFact(f"tok_{number}", 1 << 52))) for number in range(COUNT)]
        measure("feed, one revocation", guard.feed.accept, lines)
        assert not guard.decide(who, "read_file", arguments).decision.allowed


if __name__ == "__main__":
    main()

"""AuthZEN decisions a second over HTTP, each durable in the ledger before its answer; then batches of a thousand.

The same question asked by callers with DPoP (a proof of its own for each request, used up), and by one that may do
without; a new server for each line. Enforced: the answer is yes, and one entry for each evaluation.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.load.agents import encode, question, settle
from benchmarks.load.machine import print_ceilings
from benchmarks.load.server_under_load import measure, server_under_load

CALLERS, EVALUATIONS, BATCHES, BATCH = 50, 10_000, 100, 1000
ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"


def main() -> int:
    bodies = [encode(question(number)) for number in range(EVALUATIONS)]
    apart = {"evaluations": [question(number) for number in range(BATCH)]}
    shared = {**question(0), "evaluations": [{"resource": question(number)["resource"]} for number in range(BATCH)]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        for connections in (128, 32):
            _measure_bound(folder / f"bound-{connections}", bodies, connections)
        for connections in (128, 32):
            _measure_exempt(folder / f"exempt-{connections}", bodies, connections)
        _measure_batches(folder / "apart", "nothing shared", encode(apart))
        _measure_batches(folder / "shared", "one subject", encode(shared))
    return 0


def _measure_bound(folder: Path, bodies: list[bytes], connections: int) -> None:
    """Callers with DPoP, each request with a proof of its own."""
    party = settle(folder, agents=CALLERS)
    with server_under_load(folder) as station:
        station.tokens(party.agents, scope="ostiary:decide")
        nonce = station.nonce(party.turn(0).call("POST", ONE, body=bodies[0]), status=401)
        measure(
            f"decisions, {CALLERS} callers with DPoP",
            station,
            lambda: [party.turn(n).call("POST", ONE, nonce=nonce, body=body) for n, body in enumerate(bodies)],
            connections=connections,
            target=7000,
            entries=1,
            accept=_is_yes,
        )


def _measure_exempt(folder: Path, bodies: list[bytes], connections: int) -> None:
    """A caller that may do without DPoP."""
    caller = settle(folder, agents=0).exempt
    with server_under_load(folder) as station:
        station.tokens([caller], scope="ostiary:decide", bound=False)
        measure(
            "decisions, a caller without DPoP",
            station,
            lambda: [caller.call("POST", ONE, bound=False, body=body) for body in bodies],
            connections=connections,
            target=12_000,
            entries=1,
            accept=_is_yes,
        )


def _measure_batches(folder: Path, kind: str, body: bytes) -> None:
    caller = settle(folder, agents=0).exempt
    with server_under_load(folder) as station:
        station.tokens([caller], scope="ostiary:decide", bound=False)
        measure(
            f"decisions, {BATCH} a batch, {kind}",
            station,
            lambda: [caller.call("POST", MANY, bound=False, body=body)] * BATCHES,
            connections=4,
            target=150_000,
            each=BATCH,
            accept=_are_yes,
        )


def _is_yes(body: bytes) -> bool:
    return json.loads(body)["decision"] is True


def _are_yes(body: bytes) -> bool:
    answers = json.loads(body)["evaluations"]
    return len(answers) == BATCH and all(answer["decision"] is True for answer in answers)


if __name__ == "__main__":
    sys.exit(main())

"""AuthZEN decisions a second over HTTP, each durable in the ledger before its answer; then batches of a thousand.

The same question asked by callers with DPoP (a proof of its own for each request, used up), and by one that may do
without. Enforced: the answer is yes, and one entry for each evaluation, at most two for a batch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.load.machine import print_ceilings
from benchmarks.load.party import Party, encode, question, settle
from benchmarks.load.station import Station, measure, stationed

CALLERS, EVALUATIONS, BATCHES, BATCH = 50, 10_000, 100, 1000
ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        party = settle(folder / "data", agents=CALLERS)
        with stationed(folder / "data") as station:
            station.tokens(party.agents, scope="ostiary:decide")
            station.tokens([party.exempt], scope="ostiary:decide", bound=False)
            _measure(station, party)
    return 0


def _measure(station: Station, party: Party) -> None:
    bodies = [encode(question(number)) for number in range(EVALUATIONS)]
    apart = encode({"evaluations": [question(number) for number in range(BATCH)]})
    shared = {**question(0), "evaluations": [{"resource": question(number)["resource"]} for number in range(BATCH)]}
    nonce = station.nonce(party.turn(0).call("POST", ONE, body=bodies[0]), status=401)
    for connections in (256, 32):
        measure(
            f"decisions, {CALLERS} callers with DPoP", station,
            lambda: [party.turn(n).call("POST", ONE, nonce=nonce, body=body) for n, body in enumerate(bodies)],
            connections=connections, target=7000, entries=1, accept=_is_yes,
        )  # fmt: skip
    for connections in (256, 32):
        measure(
            "decisions, a caller without DPoP", station,
            lambda: [party.exempt.call("POST", ONE, bound=False, body=body) for body in bodies],
            connections=connections, target=12_000, entries=1, accept=_is_yes,
        )  # fmt: skip
    for name, body in (("apart", apart), ("one subject", encode(shared))):
        measure(
            f"decisions, {BATCH} a batch, {name}", station,
            lambda body=body: [party.exempt.call("POST", MANY, bound=False, body=body)] * BATCHES,  # type: ignore[misc]
            connections=8, target=150_000, each=BATCH, accept=_are_yes,
        )  # fmt: skip


def _is_yes(body: bytes) -> bool:
    return json.loads(body)["decision"] is True


def _are_yes(body: bytes) -> bool:
    answers = json.loads(body)["evaluations"]
    return len(answers) == BATCH and all(answer["decision"] is True for answer in answers)


if __name__ == "__main__":
    sys.exit(main())

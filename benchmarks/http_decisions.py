"""AuthZEN decisions a second over HTTP, each durable in the ledger before its answer; then batches of a thousand.

The same question asked by callers with DPoP (a proof of its own for each request, used up), and by one that may do
without; a new server for each line. Enforced: the answer is yes, one entry for each evaluation, and the signatures,
calls of functions and hand-overs to threads of an evaluation.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.http_grants import FEW_AT_ONCE, by_table
from benchmarks.load.agents import API, FORM, Agent, config, encode, enter, question, settle
from benchmarks.load.calls import Calls, check_calls
from benchmarks.load.machine import SERVER_CORE, on_core, print_ceilings
from benchmarks.load.server_under_load import Wrong, measure, server_under_load
from harness.call_counts import count_calls
from ostiary.protocol import dpop
from ostiaryd.app import build_app
from ostiaryd.ground.world import open_world

CALLERS, EVALUATIONS, BATCHES, BATCH = 50, 10_000, 100, 1000
ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
BOUND, EXEMPT = Calls(verifications=1, signatures=0, most=490), Calls(verifications=0, signatures=0, most=400)
IN_BATCH = Calls(verifications=0, signatures=0, most=54)
"""Signatures and calls of an evaluation with DPoP, without, and in a batch."""
APART = {"evaluations": [question(number) for number in range(BATCH)]}
SHARED = {**question(0), "evaluations": [{"resource": question(number)["resource"]} for number in range(BATCH)]}


def main() -> int:
    bodies = [encode(question(number)) for number in range(EVALUATIONS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        with on_core(SERVER_CORE):  # so that no thread verifies signatures ahead of an act
            asyncio.run(_count(folder / "counted"))
        for connections in (128, 32):
            _measure_bound(folder / f"bound-{connections}", bodies, connections)
        for connections in (128, 32):
            _measure_exempt(folder / f"exempt-{connections}", bodies, connections)
        _measure_batches(folder / "apart", "nothing shared", encode(APART))
        _measure_batches(folder / "shared", "one subject", encode(SHARED))
    return 0


async def _count(folder: Path) -> None:
    """Count the calls of evaluations at once, with and without DPoP, and of a batch. Raises Wrong."""
    statements: list[str] = []
    async with open_world(config(folder)) as world:
        party = await enter(world, agents=FEW_AT_ONCE)
        router = build_app(world).router
        secret, now = world.keys.secret("nonce"), world.now()
        nonces = {path: dpop.make_nonce(secret, b"as" if path == "/token" else b"rs", now) for path in ("/token", ONE)}

        async def ask(path: str, head: dict[str, str], body: bytes) -> Any:
            target = router.find_target("POST", path.encode())
            assert target is not None
            headers = [(name.encode(), value.encode()) for name, value in head.items()]
            reply, _ = await target.endpoint.answer("POST", path, params={}, query="", headers=headers, body=body)
            if reply.status != 200:
                raise Wrong(f"{reply.status} {reply.body!r}")
            return json.loads(bytes(reply.body)) if path == "/token" else None  # type: ignore[arg-type]

        async def get_token(agent: Agent, *, bound: bool) -> None:
            head = {"content-type": FORM}
            if bound:
                head["dpop"] = agent.proof("POST", "/token", nonce=nonces["/token"])
            form = agent.form(grant_type="client_credentials", resource=API, scope="ostiary:decide")
            agent.token = (await ask("/token", head, form))["access_token"]

        def head_of(agent: Agent, *, bound: bool) -> dict[str, str]:
            head = {
                "content-type": "application/json",
                "authorization": f"{'DPoP' if bound else 'Bearer'} {agent.token}",
            }
            proof = agent.proof("POST", ONE, nonce=nonces[ONE], access_token=agent.token)
            return head | ({"dpop": proof} if bound else {})

        async def count(name: str, requests: list[tuple[str, dict[str, str], bytes]], each: int, most: Calls) -> None:
            half = len(requests) // 2
            await asyncio.gather(*(ask(*request) for request in requests[half:]))  # now all are known
            statements.clear()
            with count_calls() as calls:
                await asyncio.gather(*(ask(*request) for request in requests[:half]))
            check_calls(name, calls, each * half, most, batches=by_table(statements)["commit"])

        for agent in party.agents:
            await get_token(agent, bound=True)
        await get_token(party.exempt, bound=False)
        world.writer._connection._raw.set_trace_callback(statements.append)  # type: ignore[attr-defined]
        bodies = [encode(question(number)) for number in range(2 * FEW_AT_ONCE)]
        bound = [(ONE, head_of(party.turn(number), bound=True), body) for number, body in enumerate(bodies)]
        head = head_of(party.exempt, bound=False)
        await count("evaluations with DPoP", bound, 1, BOUND)
        await count("evaluations without DPoP", [(ONE, head, body) for body in bodies], 1, EXEMPT)
        await count("evaluations in a batch", [(MANY, head, encode(APART))] * 2, BATCH, IN_BATCH)


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

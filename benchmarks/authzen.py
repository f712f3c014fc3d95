"""AuthZEN decisions a second of one core, each durable: wire function, act, entry and fsync; without HTTP and its gate.

Prints rates for single evaluations with 256 in flight, and for batches of 1,000 whose items share a subject or nothing.
Enforced: an evaluation is one entry, and a batch of a thousand is two at most.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ostiaryd.ground.config import load_config
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows, wire_authzen
from ostiaryd.policy.model import load

ROUNDS, IN_FLIGHT, BATCH = 15, 256, 1000
SET = {
    "bench.cedarschema": """
        entity user = { id: String, role?: String };
        entity record = { id: String, status?: String };
        action read, write appliesTo { principal: user, resource: record, context: {} };
    """,
    "bench.cedar": """
        permit (principal is user, action == Action::"read", resource is record);
        permit (principal == user::"alice", action == Action::"write", resource is record)
        unless { resource has status && resource.status == "archived" };
        permit (principal is user, action == Action::"write", resource is record)
        when { principal has role && principal.role == "admin" };
    """,
}
ALICE = {"type": "user", "id": "alice", "properties": {"role": "user"}}
WRITE = {"name": "write"}


def record(number: int) -> dict[str, Any]:
    return {"type": "record", "id": f"record-{number}", "properties": {"status": "active"}}


ONE = {"subject": ALICE, "action": WRITE, "resource": record(1)}
SHARED = {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": record(number)} for number in range(BATCH)]}
APART = {
    "evaluations": [
        {"subject": ALICE | {"id": f"user-{number}"}, "action": {"name": "read"}, "resource": record(number)}
        for number in range(BATCH)
    ]
}


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with open_world(load_config(environ={}, data_dir=folder)) as world:
            loaded = load(SET)
            await act(world, "policy.put", lambda act: flows.put(act, loaded, by=None))
            one = _asking(world, wire_authzen.evaluation, ONE)
            await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))

            async def wave() -> None:
                await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))

            waste = await _measure(world, "single evaluations", wave, IN_FLIGHT, entries=IN_FLIGHT)
            for name, body in (("batches, one subject", SHARED), ("batches, nothing shared", APART)):
                batch = _asking(world, wire_authzen.evaluations, body)
                waste |= await _measure(world, name, batch, BATCH, entries=2)
            return int(waste)


def _asking(world: World, wire: Callable[[Call], Awaitable[Reply]], body: Any) -> Callable[[], Awaitable[Reply]]:
    data = json.dumps(body, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json")]
    return lambda: wire(Call(world, "POST", wire_authzen.EVALUATION, {}, "", headers, data, "rq_" + "0" * 32))


async def _measure(
    world: World, name: str, work: Callable[[], Awaitable[Any]], decisions: int, *, entries: int
) -> bool:
    """Print the median of rounds; whether a round left more entries than it may."""
    before, _ = ledger.get_head(world.db.read())
    cpu, wall = [], []
    for _ in range(ROUNDS):
        c, w = time.process_time(), time.perf_counter()
        await work()
        wall.append(decisions / (time.perf_counter() - w))
        cpu.append(decisions / (time.process_time() - c))
    after, _ = ledger.get_head(world.db.read())
    left = (after.size - before.size) / ROUNDS
    rates = f"{statistics.median(cpu):9.0f} /cpu-s {statistics.median(wall):9.0f} /s wall"
    print(f"{name:26} {rates} {left:7.1f} entries a round")
    return left > entries


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

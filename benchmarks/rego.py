"""The cost of a search and of a Rego decision, each answer durable; without HTTP and its gate.

A search goes through a set's 1,000 users, of whom every third is found, for a page of 100. Rego is asked about
evaluations with a set of one policy, one at a time, and once while a question loops: how long the next one takes; and
how much memory each of its processes has then (Linux).
Enforced: a search is one entry, and so is an evaluation with Rego.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ostiaryd.ground.config import load_config
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows, wire_authzen, wire_search
from ostiaryd.policy.flows.external_pdp import Engines, note_latest
from ostiaryd.policy.flows.loading import load_set

ROUNDS = 200
SCHEMA = """
    entity user = { id: String, level?: Long };
    entity record = { id: String };
    action see appliesTo { principal: user, resource: record, context: {} };
"""
USERS = [{"uid": {"type": "user", "id": f"u{n:04}"}, "attrs": {"level": n % 3}} for n in range(1000)]
SEARCHED = {
    "a.cedarschema": SCHEMA,
    "a.cedar": "permit (principal is user, action, resource) when { principal has level && principal.level == 0 };",
    "a.entities.json": json.dumps([*USERS, {"uid": {"type": "record", "id": "r"}}]),
}
CEDAR = {
    "a.cedarschema": SCHEMA,
    "a.cedar": "permit (principal is user, action, resource) when { principal has level && principal.level > 1 };",
}
REGO = {
    "a.cedarschema": SCHEMA,
    "levels.rego": "package ostiary.levels\nimport rego.v1\ndefault permit := false\n"
    "permit if input.subject.attributes.level > 1\n"
    "default forbid := false\n"
    'forbid if { input.subject.id == "loops"; some x in numbers.range(1, 5000); some y in numbers.range(1, 5000)\n'
    "x * y == 0 }",
}
SEARCH = {"subject": {"type": "user"}, "action": {"name": "see"}, "resource": {"type": "record", "id": "r"}}


def question(id: str = "u") -> dict[str, Any]:
    subject = {"type": "user", "id": id, "properties": {"level": 2}}
    return {"subject": subject, "action": {"name": "see"}, "resource": {"type": "record", "id": "r"}}


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with open_world(load_config(environ={}, data_dir=folder)) as world:
            waste = False
            await _put(world, SEARCHED)
            search = _asking(world, wire_search.subjects, SEARCH)
            waste |= await _measure(world, "search, 100 results of 298 examined", search)
            for name, files in (("evaluation, Cedar", CEDAR), ("evaluation, Rego", REGO)):
                await _put(world, files)
                waste |= await _measure(world, name, _asking(world, wire_authzen.evaluation, question()))
            await _interrupted(world)
            _print_memory(world)
            return int(waste)


async def _put(world: World, files: dict[str, str]) -> None:
    loaded = await load_set(world, files)
    await act(world, "policy.put", lambda act: flows.put(act, loaded, by=None))
    note_latest(world, loaded.hash)


async def _interrupted(world: World) -> None:
    """How long a question takes that comes while another one loops: another process answers it."""
    started = time.perf_counter()
    looping = asyncio.ensure_future(_asking(world, wire_authzen.evaluation, question("loops"))())
    await asyncio.sleep(0.01)
    reply = await _asking(world, wire_authzen.evaluation, question())()
    waited = time.perf_counter() - started
    denied = await looping
    assert isinstance(reply.body, bytes)
    assert isinstance(denied.body, bytes)
    assert json.loads(reply.body)["decision"] is True
    why = json.loads(denied.body)["context"]["reasons"][0]["message"]
    print(f"{'evaluation beside one that loops':36} {waited * 1000:9.0f} ms; that one: {why}")


def _print_memory(world: World) -> None:
    """The resident memory of each process that runs Rego."""
    for rego in world.get_singleton(Engines)._all:
        child = rego.confined._child
        assert child is not None
        [resident] = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{child.pid}/status").read_text("ascii"), re.M)
        print(f"{'memory of a process that runs Rego':36} {int(resident) / 1024:9.0f} MB")


def _asking(world: World, wire: Callable[[Call], Awaitable[Reply]], body: Any) -> Callable[[], Awaitable[Reply]]:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json")]
    return lambda: wire(Call(world, "POST", "/", {}, "", headers, data, "rq_" + "0" * 32))


async def _measure(world: World, name: str, ask: Callable[[], Awaitable[Reply]]) -> bool:
    """Print the median of one at a time, by the clock and by the processor; whether too many entries were left."""
    await ask()
    before, _ = ledger.get_head(world.db.read())
    walls, cpu = [], time.process_time()
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await ask()
        walls.append(time.perf_counter() - started)
    spent = (time.process_time() - cpu) / ROUNDS
    after, _ = ledger.get_head(world.db.read())
    median = statistics.median(walls)
    print(f"{name:36} {1 / median:9.0f} /s one at a time {median * 1e3:8.2f} ms {1 / spent:9.0f} /cpu-s")
    return after.size - before.size > ROUNDS


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

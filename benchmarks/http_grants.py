"""Access tokens a second over HTTP, everything on: `POST /token` with a client assertion and a DPoP proof of its own.

Both signatures are verified, replay memory, nonce, task, scopes and policies are asked, the token is signed and held,
its entry is in the ledger, all of it durable before the answer; a new server for each line.

Enforced: one entry for each grant, no token twice, and the statements, signatures, calls of functions and hand-overs to
threads of a grant.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from benchmarks.load.agents import FILES, FORM, Agent, config, enter, settle
from benchmarks.load.calls import Calls, check_calls
from benchmarks.load.machine import SERVER_CORE, on_core, print_ceilings
from benchmarks.load.server_under_load import Wrong, measure, server_under_load
from harness.call_counts import count_calls
from ostiary.protocol import dpop
from ostiaryd.app import build_app
from ostiaryd.ground.world import open_world

AGENTS, GRANTS = 500, 8000
EACH = {"holding": 1, "entry": 1, "fact": 1, "spent": 2}
"""Statements of a grant by the table that they are about, when its agent was seen before."""
SHARED = {"pragma": 1, "begin": 1, "spent": 1, "loss)": 1, "log_head": 1, "commit": 1}
"""Statements of a batch of grants beside these."""
FEW_AT_ONCE, CALLS = 16, Calls(verifications=2, signatures=1, most=690)
"""Grants at once whose calls are counted, which makes each call slower, and their signatures and calls."""


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        with on_core(SERVER_CORE):  # so that no thread verifies signatures ahead of an act
            asyncio.run(_count(folder / "counted"))
        for agents in (AGENTS, 1):
            for connections in (128, 32):
                _measure(folder / f"{agents}-{connections}", agents, connections)
    return 0


def _measure(folder: Path, agents: int, connections: int) -> None:
    party = settle(folder, agents=agents)
    seen: set[bytes] = set()

    def is_new(body: bytes) -> bool:
        token = json.loads(body)["access_token"].encode()
        was_seen = token in seen
        seen.add(token)
        return not was_seen

    with server_under_load(folder) as station:
        nonce = station.nonce(party.turn(0).ask_token(nonce=None), status=400)
        measure(
            f"grants, {agents} agents" if agents > 1 else "grants, one agent",
            station,
            lambda: [party.turn(number).ask_token(nonce=nonce) for number in range(GRANTS)],
            connections=connections,
            target=4000,
            entries=1,
            accept=is_new,
        )


async def _count(folder: Path) -> None:
    """Count the SQL statements and the calls of a batch of grants. Raises Wrong."""
    count = 64
    statements: list[str] = []
    async with open_world(config(folder)) as world:
        party = await enter(world, agents=count)
        target = build_app(world).router.find_target("POST", b"/token")
        assert target is not None
        endpoint = target.endpoint
        nonce = dpop.make_nonce(world.keys.secret("nonce"), b"as", world.now())

        def render_request(agent: Agent) -> tuple[list[tuple[bytes, bytes]], bytes]:
            proof = agent.proof("POST", "/token", nonce=nonce).encode()
            head = [(b"content-type", FORM.encode()), (b"dpop", proof)]
            return head, agent.form(grant_type="client_credentials", resource=FILES)

        async def ask(head: list[tuple[bytes, bytes]], body: bytes) -> None:
            reply, _ = await endpoint.answer("POST", "/token", params={}, query="", headers=head, body=body)
            if reply.status != 200:
                raise Wrong(f"{reply.status} {reply.body!r}")

        async def ask_all(agents: list[Agent]) -> tuple[dict[str, int], Counter[str]]:
            """Return the statements and the calls of requests of these agents at once."""
            requests = list(map(render_request, agents))
            statements.clear()
            with count_calls() if len(agents) == FEW_AT_ONCE else nullcontext(Counter[str]()) as calls:
                await asyncio.gather(*(ask(*request) for request in requests))
            return by_table(statements), calls

        await ask_all(party.agents)  # now all are known
        world.writer._connection._raw.set_trace_callback(statements.append)  # type: ignore[attr-defined]
        few, calls = await ask_all(party.agents[:FEW_AT_ONCE])
        check_calls("grants", calls, FEW_AT_ONCE, CALLS, batches=few["commit"])
        asked, _ = await ask_all(party.agents)
    batches = asked["commit"]
    expected = {table: EACH.get(table, 0) * count + SHARED.get(table, 0) * batches for table in EACH | SHARED}
    if asked != expected or batches > count // 8:
        raise Wrong(f"{count} grants asked the database for {asked}, not for {expected}")
    each, shared = sum(EACH.values()), sum(SHARED.values())
    print(f"{count} grants at once: {each} statements each, {shared} a batch, {batches} commits")


def by_table(statements: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in statements:
        words = text.lower().split()
        table = next((words[at + 1] for at, word in enumerate(words) if word in ("from", "into", "update")), words[0])
        found[table] = found.get(table, 0) + 1
    return found


if __name__ == "__main__":
    sys.exit(main())

"""Access tokens a second over HTTP, everything on: `POST /token` with a client assertion and a DPoP proof of its own.

Both signatures are verified, replay memory, nonce, task, scopes and policies are asked, the token is signed and held,
its entry is in the ledger, all of it durable before the answer; a new server for each line.

Enforced: one entry for each grant, no token twice, and the statements of a grant.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.load.agents import FILES, FORM, Agent, config, enter, settle
from benchmarks.load.machine import print_ceilings
from benchmarks.load.server_under_load import Wrong, measure, server_under_load
from ostiary.protocol import dpop
from ostiaryd.app import build_app
from ostiaryd.ground.world import open_world

AGENTS, GRANTS = 500, 8000
EACH = {"holding": 1, "entry": 1, "fact": 1, "spent": 2}
"""Statements of a grant by the table that they are about, when its agent was seen before."""
SHARED = {"pragma": 1, "begin": 1, "spent": 2, "loss)": 1, "log_head": 1, "commit": 1}
"""Statements of a batch of grants beside these."""


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
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
    """Count the SQL statements of a batch of grants. Raises Wrong."""
    count = 64
    statements: list[str] = []
    async with open_world(config(folder)) as world:
        party = await enter(world, agents=count)
        target = build_app(world).router.find_target("POST", b"/token")
        assert target is not None
        endpoint = target.endpoint
        nonce = dpop.make_nonce(world.keys.secret("nonce"), b"as", world.now())

        async def ask(agent: Agent) -> int:
            proof = agent.proof("POST", "/token", nonce=nonce).encode()
            head = [(b"content-type", FORM.encode()), (b"dpop", proof)]
            body = agent.form(grant_type="client_credentials", resource=FILES)
            reply, _ = await endpoint.answer("POST", "/token", params={}, query="", headers=head, body=body)
            return reply.status

        statuses = await asyncio.gather(*map(ask, party.agents))  # now all are known
        world.writer._connection._raw.set_trace_callback(statements.append)  # type: ignore[attr-defined]
        statuses += await asyncio.gather(*map(ask, party.agents))
        asked = by_table(statements)
    if set(statuses) != {200}:
        raise Wrong(str(statuses))
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

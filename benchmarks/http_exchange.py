"""Token exchanges a second over HTTP (RFC 8693) at depth three: the fourth agent in a line gets a token to act on.

As with grants, everything is on: the client's assertion and proof, the subject token's signature (there are more of
them than the server remembers as verified, and they come in turn), its holding, the task and the agents that it came
through, narrowing, two policy decisions, the new token signed and held under the one that it came from, its entry in
the ledger, all of it durable before the answer; a new server for each line of figures.

Enforced: one entry for each exchange, no token twice, three links in each, and the statements of an exchange.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.http_grants import by_table
from benchmarks.load.agents import FILES, FORM, ISSUER, Agent, config, enter
from benchmarks.load.client import drive, render
from benchmarks.load.machine import print_ceilings
from benchmarks.load.server_under_load import ServerUnderLoad, Wrong, measure, server_under_load
from ostiary.protocol import dpop, jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec

LINES, EXCHANGES, DEPTH, SUBJECTS = 100, 8000, 3, 5000
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
EACH = {"holding": 1, "entry": 1, "fact": 1, "spent": 2}
"""Statements of an exchange by the table that they are about, when all that it rests on was seen before."""
SHARED = {"pragma": 1, "begin": 1, "spent": 1, "loss)": 1, "log_head": 1, "commit": 1}
"""Statements of a batch of exchanges beside these."""


@dataclass(slots=True)
class Line:
    """Agents that hand on to each other, from a task of the first; `token` is the newest that was handed on."""

    agents: list[tuple[str, Agent]]
    task: str
    token: str = ""

    @property
    def last(self) -> Agent:
        return self.agents[-1][1]


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        asyncio.run(_count(folder / "counted"))
        for count in (LINES, 1):
            for connections in (128, 32):
                _measure(folder / f"{count}-{connections}", count, connections)
    return 0


def _measure(folder: Path, count: int, connections: int) -> None:
    lines = asyncio.run(_settle(folder, count))
    seen: set[str] = set()

    def is_new(body: bytes) -> bool:
        token = json.loads(body)["access_token"]
        was_seen = token in seen
        seen.add(token)
        return not was_seen and len(_claims(token)["chain"]) == DEPTH

    with server_under_load(folder) as station:
        nonce = station.nonce(lines[0].last.ask_token(nonce=None), status=400)
        for line in lines:
            _hand_on(station, line, nonce)
        subjects = _subjects(station, lines, nonce)
        measure(
            f"exchanges, {count} lines of four" if count > 1 else "exchanges, one line of four",
            station,
            lambda: [_exchange(*subjects[number % SUBJECTS], nonce) for number in range(EXCHANGES)],
            connections=connections,
            target=2500,
            entries=1,
            accept=is_new,
        )


async def _settle(folder: Path, count: int) -> list[Line]:
    async with open_world(config(folder)) as world:
        return await _enter(world, count)


async def _enter(world: World, count: int) -> list[Line]:
    party = await enter(world, agents=count * (DEPTH + 1))
    named = [(f"agent-{number}", agent) for number, agent in enumerate(party.agents)]
    lines = []
    for at in range(0, len(named), DEPTH + 1):
        agents = named[at : at + DEPTH + 1]
        task = await act(
            world, "bench.task", partial(tasks.start, spec=TaskSpec(agent=agents[0][0], purpose="is measured"))
        )
        lines.append(Line(agents, task.task_id))
    return lines


def _hand_on(station: ServerUnderLoad, line: Line, nonce: str) -> None:
    """From the first to the last but one, each naming the next."""

    def got(request: bytes) -> str:
        return str(json.loads(station.ask(request, status=200).bodies[0])["access_token"])

    (_, first), (second, _), *_ = line.agents
    line.token = got(first.ask_token(nonce=nonce, resource=_uri(second), scope="files:read", task=line.task))
    for (_, agent), (following, _) in itertools.pairwise(line.agents[1:-1]):
        line.token = got(_exchange(agent, line.token, nonce, resource=_uri(following)))


def _subjects(station: ServerUnderLoad, lines: list[Line], nonce: str) -> list[tuple[Agent, str]]:
    """Many tokens for the last agents, of the lines in turn. Raises Wrong."""
    turns = [lines[number % len(lines)] for number in range(SUBJECTS)]
    requests = [_exchange(line.agents[-2][1], line.token, nonce, resource=_uri(line.agents[-1][0])) for line in turns]
    ran = drive(station.port, requests, connections=16)
    if set(ran.statuses) != {200}:
        raise Wrong(str(ran.bodies[0]))
    return [(line.last, json.loads(body)["access_token"]) for line, body in zip(turns, ran.bodies, strict=True)]


def _exchange(agent: Agent, subject: str, nonce: str, *, resource: str = FILES) -> bytes:
    headers = {"dpop": agent.proof("POST", "/token", nonce=nonce)}
    return render("POST", "/token", headers=headers, body=agent.form(**_fields(subject, resource)), media_type=FORM)


def _fields(token: str, resource: str) -> dict[str, str]:
    return {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS,
        "resource": resource,
        "scope": "files:read",
    }


def _uri(name: str) -> str:
    return f"{ISSUER}/agents/{name}"


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(jose.unb64u(token.split(".")[1]))
    return claims


async def _count(folder: Path) -> None:
    """Count the SQL statements of a batch of exchanges. Raises Wrong."""
    count = 64
    statements: list[str] = []
    async with open_world(config(folder)) as world:
        lines = await _enter(world, count)
        target = build_app(world).router.find_target("POST", b"/token")
        assert target is not None
        endpoint = target.endpoint
        nonce = dpop.make_nonce(world.keys.secret("nonce"), b"as", world.now())

        async def ask(agent: Agent, **fields: str) -> str:
            proof = agent.proof("POST", "/token", nonce=nonce).encode()
            head = [(b"content-type", FORM.encode()), (b"dpop", proof)]
            reply, _ = await endpoint.answer(
                "POST", "/token", params={}, query="", headers=head, body=agent.form(**fields)
            )
            if reply.status != 200:
                raise Wrong(str(reply.body))
            return str(json.loads(bytes(reply.body))["access_token"])  # type: ignore[arg-type]

        for line in lines:
            (_, first), (second, _), *_ = line.agents
            line.token = await ask(
                first, grant_type="client_credentials", resource=_uri(second), scope="files:read", task=line.task
            )
            for (_, agent), (following, _) in itertools.pairwise(line.agents[1:]):
                line.token = await ask(agent, **_fields(line.token, _uri(following)))
        exchanges = [(line.last, _fields(line.token, FILES)) for line in lines]
        await asyncio.gather(*(ask(agent, **fields) for agent, fields in exchanges))  # now all is known
        world.writer._connection._raw.set_trace_callback(statements.append)  # type: ignore[attr-defined]
        await asyncio.gather(*(ask(agent, **fields) for agent, fields in exchanges))
        asked = by_table(statements)
    batches = asked["commit"]
    expected = {table: EACH.get(table, 0) * count + SHARED.get(table, 0) * batches for table in EACH | SHARED}
    if asked != expected or batches > count // 8:
        raise Wrong(f"{count} exchanges asked the database for {asked}, not for {expected}")
    each, shared = sum(EACH.values()), sum(SHARED.values())
    print(f"{count} exchanges at once: {each} statements each, {shared} a batch, {batches} commits")


if __name__ == "__main__":
    sys.exit(main())

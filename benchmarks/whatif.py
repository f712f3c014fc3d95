"""Recorded decisions asked again of another policy set, a second of processor time: `python -m benchmarks.whatif`.

A guard's calls, as guards report them, are read out of the ledger, and a process of its own asks a candidate what it
says of each. Counted is the processor time of both processes, from the first page to the report.

Enforced: each decision is replayed, and those change that must; and the memory of the process that asks does not grow
with what it is asked.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.server_under_load import Wrong
from harness.registry_fixtures import create_holding, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.claims import AccessClaims
from ostiary.decision import access
from ostiary.decision.report import CallRecord, Report
from ostiary.guard.call import call_record
from ostiary.protocol import canonical
from ostiaryd.feed.flows import take_report
from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store as ledger
from ostiaryd.policy.flows import Span
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.policy.model import load, starter_files
from ostiaryd.policy.model.frames import candidate_of
from ostiaryd.policy.model.whatif import Report as Found
from ostiaryd.policy.wire_whatif import replay
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import find_resource
from ostiaryd.registry.model import Agent

URI = "https://files.example.org/mcp"
AGENTS, REPORTS, RECORDS, FORBIDDEN = 50, 200, 512, 10
TARGET, GROWTH_MB = 50_000, 16
TOOLS = [{"name": "read_file", "effect": "read", "arguments": {"properties": {"path": {"type": "string"}}}}]
SCHEMA = "type Arguments = { path?: String };"
PERMIT = """
permit (principal is Agent, action == Action::"call", resource is Tool)
when { resource.segment == principal.segment };
forbid (principal is Agent, action == Action::"call", resource is Tool)
when { context.arguments has path && context.arguments.path like "/etc/*" };
"""
OTHER = """
forbid (principal == Agent::"ag_%d", action == Action::"call", resource is Tool)
when { context.arguments has path && context.arguments.path like "/srv/%d/*" };
"""


@dataclass(frozen=True, slots=True)
class Ran:
    found: Found
    cpu_s: float
    memory_mb: float
    longest_ms: float
    """that the event loop of the server was held up"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> int:
    async with open_world(load_config(data_dir=str(folder))) as world:
        first = await _fill(world)
        stop = ledger.get_head(world.db.read())[0].size
        begun = await _run(world, PERMIT, Span(stop, stop))
        print(f"{'to begin':40} {begun.cpu_s:9.2f} cpu-s")
        few = await _run(world, PERMIT, Span(first, first + (stop - first) // 10))
        for name, policies in (
            ("2 policies", PERMIT),
            ("1,000 policies", PERMIT + "".join(OTHER % (n, n) for n in range(998))),
        ):
            ran = await _run(world, policies, Span(first, stop))
            _check(ran.found)
            rate = ran.found.replayed / (ran.cpu_s - begun.cpu_s)
            print(
                f"{name:40} {rate:9,.0f} decisions /cpu-s (target {TARGET:,}), at most {ran.memory_mb:.0f} MB;"
                f" the loop was held up for at most {ran.longest_ms:.0f} ms"
            )
            if policies is PERMIT and ran.memory_mb > few.memory_mb + GROWTH_MB:
                raise Wrong(f"ten times the decisions take {ran.memory_mb - few.memory_mb:.0f} MB more")
    return 0


async def _run(world: World, policies: str, span: Span) -> Ran:
    loaded = load({"a.cedar": policies, "a.cedarschema": SCHEMA})
    before = _cpu()
    told, memory_mb = list[int | Found](), 0.0
    ticker = asyncio.ensure_future(_longest_wait(done := asyncio.Event()))
    async for one in replay(world, candidate_of(loaded, ""), span):
        told.append(one)
        memory_mb = max(memory_mb, _memory_mb())
    found = told[-1]
    assert isinstance(found, Found)
    spent = _cpu() - before
    done.set()
    return Ran(found, spent, memory_mb, await ticker)


async def _longest_wait(done: asyncio.Event) -> float:
    """Milliseconds by which the loop was at most late, until that is set."""
    longest = 0.0
    while not done.is_set():
        due = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        longest = max(longest, time.perf_counter() - due)
    return longest * 1000


def _memory_mb() -> float:
    """The most that the process which compares has had."""
    children = [task.joinpath("children").read_text("ascii") for task in Path("/proc/self/task").iterdir()]
    (child,) = " ".join(children).split()
    (most,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text("ascii"), re.MULTILINE)
    return int(most) / 1024


def _cpu() -> float:
    """Of this process, and of those that it has ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _check(found: Found) -> None:
    expected = REPORTS * RECORDS
    if (found.replayed, found.changed, found.unknown) != (expected, expected // FORBIDDEN, {}):
        raise Wrong(f"{found.replayed} replayed, {found.changed} changed, {found.unknown} unknown")


async def _fill(world: World) -> int:
    """Have a guard report calls; the entry that comes first."""
    made = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))
    catalogue = Catalogue.parse(canonical.encode({"resource": "files", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, id_or_name="files", catalogue=catalogue))
    who = []
    for number in range(AGENTS):
        agent = await register_agent(world, f"bot-{number}", scopes=["files:read"])
        await create_holding(world, agent, f"tok_{number}", audience=URI, task=f"tk_{agent.agent_id[3:]}", seconds=3000)
        who.append(_principal(agent, f"tok_{number}"))
    reader = world.db.read()
    facts = access.Facts(prepared_resource(reader, find_resource(reader, "files")), starter_files().policies)
    first = ledger.get_head(reader)[0].size
    numbers = count()
    for report in range(REPORTS):
        records: list[Any] = [_record(who, facts, next(numbers), world.now()) for _ in range(RECORDS)]
        told = Report(spool="0" * 32, first=report * RECORDS + 1, records=records)
        sent = msgspec.convert(canonical.parse(msgspec.json.encode(told)), Report)
        await run_act(world, partial(take_report, report=sent, resource_id=made.resource_id), "feed.report")
    return first


def _principal(agent: Agent, jti: str) -> access.Principal:
    return access.Principal(
        AccessClaims(
            iss="",
            sub=agent.owner,
            client_id=agent.agent_id,
            aud=URI,
            iat=0,
            exp=1 << 40,
            jti=jti,
            scope="files:read",
            task=f"tk_{agent.agent_id[3:]}",
            owner=agent.owner,
            segment=agent.segment,
        )
    )


def _record(who: list[access.Principal], facts: access.Facts, number: int, now: int) -> CallRecord:
    """The guard's record of a call that is allowed; of every tenth the path is one that the candidate forbids."""
    principal = who[number % AGENTS]
    arguments = {"path": f"{'/etc' if number % FORBIDDEN == 0 else '/srv'}/reports/{number}.txt"}
    call = access.resolve(principal, "read_file", arguments, facts, now)
    return call_record(call, access.decide(call), spent={})


if __name__ == "__main__":
    sys.exit(main())

"""The console at a server with 100,000 agents and 1,000,000 entries: its requests, its pages in Chromium, idle streams.

Enforced: the number of agents, and that no stream loses an entry. Targets: p99 under 50 ms; pages in Chromium with a
first contentful paint under 1 s, interactive under 1.5 s, and interactions to the next paint under 100 ms; under 5 % of
a core for 50 idle streams. The times of requests are those of a client on the same machine, with a DPoP proof for each
request. Chromium runs on the same two cores, and loads each page without its cache.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

from benchmarks.load.machine import cpu_seconds, print_ceilings
from harness.chromium import EXECUTABLE, PYTHON, Chromium, enter_console
from harness.live_server import ServerFixture
from harness.page_timing import FRAMES, OPENING, WATCH
from harness.patience import eventually_async
from harness.server import running
from ostiary.agent import AsyncAgent
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry
from ostiaryd.ledger.store import append
from ostiaryd.registry.model import Agent as Registered
from ostiaryd.registry.model import AgentId, AgentState, Kind, PersonId, RiskTier
from ostiaryd.registry.store import agents

AGENTS, ENTRIES, BATCH = 100_000, 1_000_000, 5000
REQUESTS, STREAMS, READERS, SHOWN, IDLE_S = 300, 50, 5, 20, 20.0
TARGET_MS, TARGET_SHARE = 50.0, 5.0
QUIET_SHARE = 10.0
"""Share of a core, in per cent, below which the server counts as idle."""
SEGMENTS, OWNERS = 50, 200
LOADS, OPENINGS = 7, 5
SHOWN_BY = {"": ".figures", "/agents": ".scroller [role=row]", "/map": ".map .node"}
"""Pages of the console, and what shows that their content has arrived."""
INTERACTIVE = """new Promise((done) => {
    const look = () => window.shownAt ? done(window.shownAt) : setTimeout(look, 5);
    look();
})"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
PATHS = {
    "overview": "/overview",
    "counts": "/agent-table/counts",
    "table, first page": "/agent-table?limit=100",
    "table, by state": "/agent-table?state=suspended&sort=-name&limit=100",
    "table, two filters": "/agent-table?segment=segment-7&risk_tier=high&limit=100",
    "table, rare text": "/agent-table?text=number%20099999&limit=100",
    "table, text that all have": "/agent-table?text=invoice&sort=-created&limit=100",
}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        with running(folder / "server"):
            pass  # the first start makes keys and the administrator
        started = time.perf_counter()
        asyncio.run(_fill(folder / "server"))
        print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)
        with running(folder / "server") as server, ServerFixture(server, folder) as fixture:
            total = fixture.api("GET", "/agent-table/counts")["total"]
            assert total == AGENTS + 1, total
            slow = [path for path in PATHS if _measure(fixture, path) > TARGET_MS]
            _measure_pages(fixture)
            share = asyncio.run(_measure_streams(fixture))
        print(f"over the target: {', '.join(slow) or 'no request'}; idle streams {share:.1f} % of a core")
    return 0


async def _fill(folder: Path) -> None:
    async with open_world(Config(data_dir=str(folder)), create=False) as world:
        for start in range(0, AGENTS, BATCH):
            await act(world, "agent.create", partial(_insert, start=start))
        for start in range(0, ENTRIES, 2 * BATCH):
            await _append(world, start)


def _insert(act: Act, *, start: int) -> None:
    for number in range(start, start + BATCH):
        agents.insert(
            act.tx,
            Registered(
                agent_id=AgentId(f"ag_{number:032x}"),
                name=f"agent-{number * 7919 % AGENTS:06d}",
                owner=PersonId(f"pe_{number % OWNERS:032x}"),
                deputy=None,
                purpose=f"Pays invoice number {number:06d}",
                kind=tuple(Kind)[number % len(Kind)],
                provider="example",
                model=f"model-{number % 9}",
                risk_tier=tuple(RiskTier)[number % len(RiskTier)],
                segment=f"segment-{number % SEGMENTS}",
                scopes=frozenset({"files:read"}),
                state=AgentState.SUSPENDED if number % 50 == 0 else AgentState.ACTIVE,
                epoch=0,
                created_at=act.now,
                expires_at=None,
                max_depth=1,
            ),
        )


async def _append(world: World, start: int) -> None:
    now = world.now()
    entries = [
        Entry(
            at=now,
            action="tool.call",
            outcome="deny" if number % 20 == 0 else "allow",
            agent=f"ag_{number * 104_729 % AGENTS:032x}",
            resource="files",
            tool="read_file",
        )
        for number in range(start, start + 2 * BATCH)
    ]
    await world.writer.submit(lambda tx: append(tx, entries))


def _measure(fixture: ServerFixture, name: str) -> float:
    """Print the times of a request, and return the p99 in milliseconds."""
    path, _, query = PATHS[name].partition("?")
    parameters = dict(parse_qsl(query))
    pid, times = _pid(fixture), []
    before = cpu_seconds(pid)
    for _ in range(REQUESTS):
        started = time.perf_counter()
        fixture.api("GET", path, **parameters)
        times.append((time.perf_counter() - started) * 1000)
    p99 = statistics.quantiles(times, n=100)[98]
    cpu = (cpu_seconds(pid) - before) / REQUESTS * 1000
    print(
        f"{name:28}{statistics.median(times):8.1f} ms median{p99:8.1f} ms p99 (target {TARGET_MS:.0f})"
        f"{cpu:8.1f} ms of the server's CPU",
        flush=True,
    )
    return p99


def _measure_pages(fixture: ServerFixture) -> None:
    """Print how fast a person sees overview, agent table and map in a browser, and how smooth they are."""
    if not (EXECUTABLE.exists() and PYTHON.exists()):
        print("pages are not measured: no Chromium (make browser)")
        return
    browser = Chromium()
    try:
        site = enter_console(fixture, browser, "bench", "administrator")
        browser.watch(WATCH % json.dumps(", ".join(SHOWN_BY.values())))
        for path, shown in SHOWN_BY.items():
            _measure_page(browser, f"{site}/console{path}", shown)
        browser.goto(f"{site}/console/agents")
        browser.wait_for(SHOWN_BY["/agents"])
        rate, longest = browser.evaluate(FRAMES % "'.scroller'")
        print(f"{'table while it scrolls':28}{rate:8.0f} frames/s, longest frame {longest:.0f} ms", flush=True)
        _measure_interactions(browser)
        browser.goto(f"{site}/console/map")
        browser.wait_for(".map .node.segment")
        opened = [browser.evaluate(OPENING) for _ in range(OPENINGS)]  # the first one loads the agents of the segment
        rate, longest = browser.evaluate(FRAMES % "'.map'")
        print(
            f"{'map':28}{max(opened[1:]):8.0f} ms for a cluster at most, loaded {opened[0]:.0f} ms (target 100);"
            f"{rate:6.0f} frames/s, longest frame {longest:.0f} ms",
            flush=True,
        )
    finally:
        browser.close()


def _measure_page(browser: Chromium, url: str, shown: str) -> None:
    paints, times = [], []
    for _ in range(LOADS):
        browser.goto(url)
        browser.wait_for(shown)
        times.append(browser.evaluate(INTERACTIVE))
        paints.append(browser.evaluate(PAINTED))
    print(
        f"page {url.rpartition('/')[2]:23}{statistics.median(paints):8.0f} ms first paint (target 1000)"
        f"{statistics.median(times):8.0f} ms interactive (target 1500); at most {max(paints):.0f} and {max(times):.0f}",
        flush=True,
    )


def _measure_interactions(browser: Chromium) -> None:
    """Print the longest interaction to the next paint while a person searches, filters, sorts and selects."""
    row = SHOWN_BY["/agents"]
    browser.write("input[type=search]", "number 00123")
    browser.wait_for(f"{row}:has-text('number 00123')")
    browser.click("text=Clear")
    for label, value in (("State", "suspended"), ("Risk tier", "high"), ("Order", "-name")):
        browser.select(f"label:has-text('{label}') select", value)
        browser.wait_for(row)
    browser.click(f"{row} >> nth=0 >> input[type=checkbox]")
    browser.click("[aria-label='Select all loaded rows']")
    browser.click("nav >> text=Overview")
    browser.wait_for(SHOWN_BY[""])
    durations = browser.evaluate("window.interactions")
    longest, name = max(durations) if durations else (16, "all of them")
    print(f"{'interaction to next paint':28}{longest:8.0f} ms at most ({name}; target 100)", flush=True)


async def _measure_streams(fixture: ServerFixture) -> float:
    """Hold 50 idle streams, then add entries that each must see; return the share of a core that idle streams cost."""
    pid = _pid(fixture)
    while (alone := await _share(pid)) > QUIET_SHARE:
        print(f"the server still examines its database: {alone:.1f} % of a core", flush=True)
    url, api = f"{fixture.server.url}/api/v1/events", f"{fixture.server.url}/api/v1"
    heard: list[list[int]] = [[] for _ in range(STREAMS)]
    opened = asyncio.Semaphore(0)

    async def listen(agent: AsyncAgent, seen: list[int]) -> None:
        async with agent.stream("GET", url, resource=api, scope="ostiary:read") as response:
            assert response.status_code == 200, response.status_code
            async for line in response.aiter_lines():
                if line.startswith("retry"):
                    opened.release()
                elif line.startswith('data: {"index"'):
                    seen.append(json.loads(line.removeprefix("data: "))["index"])

    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(
                AsyncAgent.from_credential(fixture.agent("ostiary:read")[1], url=fixture.server.url)
            )
            for _ in range(READERS)
        ]
        listening = [
            asyncio.ensure_future(listen(readers[number % READERS], seen)) for number, seen in enumerate(heard)
        ]
        for _ in range(STREAMS):
            await opened.acquire()
        share = await _share(pid)
        print(f"idle server{alone:8.1f} % of a core; with {STREAMS} streams{share:8.1f} % (target {TARGET_SHARE:.0f})")
        before = len(heard[0])
        await asyncio.to_thread(lambda: [fixture.owner() for _ in range(SHOWN)])
        newest = fixture.api("GET", "/audit", limit=1)["entries"][0]["index"]
        await eventually_async(lambda: all(seen and seen[-1] >= newest for seen in heard))
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    assert len(heard[0]) - before >= SHOWN
    for seen in heard:
        assert seen == list(range(seen[0], seen[-1] + 1)), "a stream lost or doubled an entry"
    return share - alone


def _pid(fixture: ServerFixture) -> int:
    return int(json.loads((fixture.server.folder / "server.json").read_text())["pid"])


async def _share(pid: int) -> float:
    """Return the share of a core in per cent that a process uses within the next seconds."""
    before = cpu_seconds(pid)
    await asyncio.sleep(IDLE_S)
    return (cpu_seconds(pid) - before) / IDLE_S * 100


if __name__ == "__main__":
    sys.exit(main())

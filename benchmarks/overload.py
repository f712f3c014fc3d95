"""Grants at four times the capacity, and revocations meanwhile: `python -m benchmarks.overload [TIMES [SECONDS
[CONNECTIONS]]]`.

The capacity is found first, with a closed loop. Then so many times as much is offered in an open loop, by a process of
its own whose clients have several addresses and as many connections as they need (`load.client.offer`). Meanwhile an
administrator revokes an agent every so often, while a guard decides for it without pause. The time of a revocation
counts from before its request is sent to the last call that the guard let through; one wall clock. Every second
revocation needs a new connection. A flood lasts for SECONDS, and there are as many floods, with pauses, as make
`MIN_REVOKES` revocations.

Two cores: the server (and its detectors) has one; the flood, the guard and the administrator share the other, so that a
guard may wait for the processor, and the machine has no core left for what each of them would have in the field.

Printed beside it: the latency of one second of the same flood at a bare endpoint, which is what the generator, the
kernel and the wait for a processor take by themselves.

Enforced: every answer is 200 or 503, and each revoked agent is denied.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from benchmarks.load.agents import ISSUER, Party, settle
from benchmarks.load.client import Ran, drive, offer
from benchmarks.load.machine import BARE_REQUEST, CLIENT_CORE, bare_server, cpu_seconds, on_core, print_ceilings
from benchmarks.load.server_under_load import Wrong, server_under_load
from harness.live_server import ServerFixture, authenticate
from harness.server import Server
from ostiary import ambient
from ostiary.guard import Guard
from ostiary.keys import save_key

AGENTS, IN_FLIGHT, ADDRESSES = 200, 32, 16
WARM_S, EVERY_S, SETTLE_S = 1.0, 0.25, 5.0
MIN_REVOKES = 100
"""Minimum number of revocations: the value at p99 is then the second longest."""
TARGET_GRANT_S, TARGET_REVOKE_MS = 1.0, 100.0
GUARDED = "https://guarded.example.org/mcp"
KEPT = ("seconds", "statuses", "latencies", "late", "resent", "most_in_flight")
EVEN, ODD = slice(0, None, 2), slice(1, None, 2)
PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "worst": 1.0}


@dataclass(frozen=True, slots=True)
class Flood:
    """The results of one flood. `used_s`: processor time of the server, in seconds. Each of `revoked` has the time of
    its request (microseconds), the milliseconds to the answer, and the time of the last allowed call (microseconds).
    """

    seconds: float
    statuses: list[int]
    latencies: list[float]
    late: list[float]
    resent: int
    most_in_flight: int
    kinds: dict[str, int]
    used_s: float
    revoked: list[tuple[int, float, int]]


def main(times: float, seconds: float, connections: float = 0) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder, most = Path(temporary), int(connections) or None
        print_ceilings(folder / "ceilings")
        party = settle(folder / "data", agents=AGENTS)
        save_key(folder / "data" / "admin.json", party.admin.key, client_id=party.admin.id, issuer=ISSUER)
        with server_under_load(folder / "data") as station, on_core(CLIENT_CORE):
            nonce = station.nonce(party.turn(0).ask_token(nonce=None), status=400)
            capacity = find_capacity(station.port, party, nonce)
            print(f"capacity, 32 in flight                {capacity:9,.0f} /s", flush=True)
            live_server = ServerFixture(Server(f"http://127.0.0.1:{station.port}", folder / "data"), folder)
            live_server._numbers = itertools.count(AGENTS + 1)  # smaller numbers are names of the party
            name, guard = live_server.resource(GUARDED)
            owner = live_server.owner()
            rate, each = times * capacity, int(seconds / EVERY_S)
            print_bare(rate, most)
            floods = []
            for _ in range(math.ceil(MIN_REVOKES / each)):
                agents = [live_server.agent(f"{name}:read", owner=owner) for _ in range(each)]
                nonce = station.nonce(party.turn(0).ask_token(nonce=None), status=400)
                requests = [party.turn(i).ask_token(nonce=nonce) for i in range(int(rate * (seconds + 2 * WARM_S)))]
                time.sleep(SETTLE_S)
                began_s = cpu_seconds(station.pid)
                deciding = start_guard(folder, guard, [key for _, key in agents])
                sending, results = start_flood(station.port, requests, rate=rate, connections=most)
                time.sleep(WARM_S)
                live_server.api("GET", f"/agents/{agents[0][0]}")  # on the connection that the first one uses
                asked = [revoke(live_server, agent, closes=not number % 2) for number, (agent, _) in enumerate(agents)]
                kept = json.loads(results.read())
                os.waitpid(sending, 0)
                used_s = cpu_seconds(station.pid) - began_s
                last = json.loads(deciding.communicate()[0])
                revoked = [(at, answered, last[number]) for number, (at, answered) in enumerate(asked)]
                floods.append(Flood(**kept, used_s=used_s, revoked=revoked))
        return report(floods, rate)


def find_capacity(port: int, party: Party, nonce: str) -> float:
    """Grants a second with 32 requests in flight: the better of two runs, after one that warms up."""
    found = []
    for _ in range(3):
        requests = [party.turn(number).ask_token(nonce=nonce) for number in range(1500)]
        ran = drive(port, requests, connections=IN_FLIGHT)
        if set(ran.statuses) != {200}:
            wrong = [body for status, body in zip(ran.statuses, ran.bodies, strict=True) if status != 200]
            raise Wrong(f"{collections.Counter(ran.statuses)} in {ran.seconds:.1f} s: {wrong[0][:200]!r}")
        found.append(len(requests) / ran.seconds)
    return max(found[1:])


def print_bare(rate: float, connections: int | None) -> None:
    """Print the latency of the same flood at a bare endpoint: of the generator, the kernel and the processor."""
    requests = [BARE_REQUEST] * int(rate * WARM_S)
    with bare_server("straight") as (port, _):
        ran = offer(port, requests, rate=rate, addresses=ADDRESSES, connections=connections)
    print(f"the same flood at a bare endpoint     {quantiles(ran.latencies, 1000)}", flush=True)


def start_flood(port: int, requests: list[bytes], *, rate: float, connections: int | None) -> tuple[int, TextIO]:
    """Send the requests in a process of its own; its id, and the file to which it writes the results (`KEPT`)."""
    readable, writable = os.pipe()
    if child := os.fork():
        os.close(writable)
        return child, os.fdopen(readable)
    try:
        raise_limit()
        ran = offer(port, requests, rate=rate, addresses=ADDRESSES, connections=connections)
        with os.fdopen(writable, "w") as out:
            json.dump({name: getattr(ran, name) for name in KEPT} | {"kinds": kinds_of(ran)}, out)
    except BaseException:  # noqa: BLE001 because nothing of the parent may be undone here
        traceback.print_exc()
    finally:
        os._exit(0)


def kinds_of(ran: Ran) -> dict[str, int]:
    """Count the refusals by what the server said."""
    refused = [body for status, body in zip(ran.statuses, ran.bodies, strict=True) if status != 200]
    said = [json.loads(body) for body in refused]
    return collections.Counter(str(one.get("error_description", one.get("error")))[:60] for one in said)


def raise_limit() -> None:
    """Allow this process as many descriptors as the system lets it have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def revoke(live_server: ServerFixture, agent: str, *, closes: bool) -> tuple[int, float]:
    """When it was asked for, and the milliseconds to the answer. `closes`: the next request needs a new connection."""
    admin, body = live_server.admin, {"kind": "agent", "id": agent}
    headers = {"connection": "close"} if closes else {}
    time.sleep(EVERY_S)
    at = ambient.now()
    response = admin.request(
        "POST", f"{live_server.server.url}/api/v1/revoke", resource=f"{ISSUER}/api/v1", json=body, headers=headers
    )
    answered_at = ambient.now()
    if response.status_code != 200:
        raise Wrong(response.text)
    return at, (answered_at - at) / 1000


def start_guard(folder: Path, guard: Path, agents: list[Path]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.overload", "guard", folder / "spool", guard, *agents],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise Wrong("the guard does not decide")
    return process


def decide(spool: Path, credential: Path, agents: list[Path]) -> None:
    """A process: decide for all agents in turn until stdin ends; print when each was let through last."""
    with Guard(credential, spool_dir=spool, max_age=30, max_skew=30) as guard:
        who = [authenticate(guard, agent, guard.resource.uri) for agent in agents]
        last, left = [0] * len(agents), list(range(len(agents)))
        print("ready", flush=True)
        os.set_blocking(0, False)
        while left or sys.stdin.buffer.read(1) != b"":
            for number in tuple(left[:2]):  # they are revoked in this order
                started = ambient.now()
                if guard.decide(who[number], "read_file", {"path": "/a"}).decision.allowed:
                    last[number] = started
                else:
                    left.remove(number)
            time.sleep(0.001)
        print(json.dumps(last), flush=True)


def report(floods: list[Flood], rate: float) -> int:
    answers = [answer for flood in floods for answer in zip(flood.statuses, flood.latencies, strict=True)]
    if (statuses := {status for status, _ in answers}) - {200, 503}:
        raise Wrong(str(statuses))
    admitted = [latency for status, latency in answers if status == 200]
    refused = [latency for status, latency in answers if status == 503]
    seconds, used_s = sum(flood.seconds for flood in floods), sum(flood.used_s for flood in floods)
    kinds = sum((collections.Counter(flood.kinds) for flood in floods), collections.Counter[str]())
    print(f"offered {rate:,.0f} /s for {seconds:.1f} s; admitted {len(admitted) / seconds:,.0f} /s", end="")
    print(f", rejected {len(refused) / len(answers):.0%} {dict(kinds)}")
    each_us = used_s / len(answers) * 1e6
    print(f"  the server's process used {used_s / seconds:.0%} of one core, {each_us:,.0f} us a request")
    late = sorted(late for flood in floods for late in flood.late)
    print(f"  sent after its time p99 {late[int(len(late) * 0.99)] * 1000:,.1f} ms", end="")
    print(f"; at most {max(flood.most_in_flight for flood in floods):,} in flight", end="")
    print(f"; {sum(flood.resent for flood in floods)} sent again on another connection")
    print(f"  admitted grants    {quantiles(admitted, 1000)}   target p99 {TARGET_GRANT_S * 1000:,.0f} ms")
    if refused:
        print(f"  rejected grants    {quantiles(refused, 1000)}")
    print(f"  revoke, answered   {quantiles([ms for flood in floods for _, ms, _ in flood.revoked], 1)}")
    until = [[max(0.0, (last - at) / 1000) for at, _, last in flood.revoked] for flood in floods]
    every, kept, new = ([ms for times in until for ms in times[part]] for part in (slice(None), EVEN, ODD))
    print(f"  revoke, last call  {quantiles(every, 1)}   target p99 {TARGET_REVOKE_MS:,.0f} ms; {len(every)} of them")
    print(f"    kept connection  {quantiles(kept, 1)}")
    print(f"    new connection   {quantiles(new, 1)}")
    return 0


def quantiles(values: list[float], scale: float) -> str:
    ordered = sorted(values)
    parts = {name: ordered[math.ceil(len(ordered) * part) - 1] for name, part in PARTS.items()}
    return "  ".join(f"{name} {value * scale:8,.1f} ms" for name, value in parts.items())


if __name__ == "__main__":
    if sys.argv[1:2] == ["guard"]:
        decide(Path(sys.argv[2]), Path(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
    else:
        sys.exit(main(*(float(word) for word in (*sys.argv[1:], *("4", "10")[len(sys.argv) - 1 :]))))

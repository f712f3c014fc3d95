"""Grants at four times the capacity, and revocations meanwhile: `python -m benchmarks.overload [TIMES [SECONDS
[CONNECTIONS]]]`.

The capacity is found first, with a closed loop. Then so many times as much is offered in an open loop, by a process of
its own whose clients have several addresses and as many connections as they need (`load.client.offer`). Meanwhile an
administrator revokes an agent every so often, while a guard decides for it without pause. The time of a revocation
counts from before its request is sent to the last call that the guard let through; one wall clock.

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
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

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
WARM_S, EVERY_S = 1.0, 0.25
TARGET_GRANT_S, TARGET_REVOKE_MS = 1.0, 100.0
GUARDED = "https://guarded.example.org/mcp"
KEPT = ("seconds", "statuses", "latencies", "late", "resent", "most_in_flight")


def main(times: float, seconds: float, connections: float = 0) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
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
            agents = [live_server.agent(f"{name}:read", owner=owner) for _ in range(int(seconds / EVERY_S))]
            rate = times * capacity
            print_bare(rate, int(connections) or None)
            requests = [party.turn(i).ask_token(nonce=nonce) for i in range(int(rate * (seconds + 2 * WARM_S)))]
            began_s = cpu_seconds(station.pid)
            flood, deciding = os.pipe(), start_guard(folder, guard, [key for _, key in agents])
            child = os.fork()
            if not child:
                try:
                    raise_limit()
                    ran = offer(
                        station.port, requests, rate=rate, addresses=ADDRESSES, connections=int(connections) or None
                    )
                    kept = {name: getattr(ran, name) for name in KEPT}
                    kept["kinds"] = kinds_of(ran)
                    with os.fdopen(flood[1], "w") as out:
                        json.dump(kept, out)
                except BaseException:  # noqa: BLE001 because nothing of the parent may be undone here
                    traceback.print_exc()
                finally:
                    os._exit(0)
            os.close(flood[1])
            time.sleep(WARM_S)
            asked = [revoke(live_server, agent) for agent, _ in agents]
            with os.fdopen(flood[0]) as said:
                ran_flood = json.load(said)
            os.waitpid(child, 0)
            used_s = cpu_seconds(station.pid) - began_s
            assert deciding.stdin is not None
            assert deciding.stdout is not None
            deciding.stdin.close()
            last = json.loads(deciding.stdout.read())
            deciding.wait()
        return report(ran_flood, rate, used_s, [(at, answered, last[n]) for n, (at, answered) in enumerate(asked)])


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


def kinds_of(ran: Ran) -> dict[str, int]:
    """Count the refusals by what the server said."""
    refused = [body for status, body in zip(ran.statuses, ran.bodies, strict=True) if status != 200]
    said = [json.loads(body) for body in refused]
    return collections.Counter(str(one.get("error_description", one.get("error")))[:60] for one in said)


def raise_limit() -> None:
    """Allow this process as many descriptors as the system lets it have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def revoke(live_server: ServerFixture, agent: str) -> tuple[int, float]:
    """When it was asked for, and the milliseconds to the answer."""
    time.sleep(EVERY_S)
    at = ambient.now()
    live_server.api("POST", "/revoke", {"kind": "agent", "id": agent})
    return at, (ambient.now() - at) / 1000


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


def report(ran: dict[str, Any], rate: float, used_s: float, revoked: list[tuple[int, float, int]]) -> int:
    statuses = collections.Counter(ran["statuses"])
    if set(statuses) - {200, 503}:
        raise Wrong(str(statuses))
    admitted = [at for status, at in zip(ran["statuses"], ran["latencies"], strict=True) if status == 200]
    refused = [at for status, at in zip(ran["statuses"], ran["latencies"], strict=True) if status == 503]
    seconds = ran["seconds"]
    print(f"offered {rate:,.0f} /s for {seconds:.1f} s; admitted {len(admitted) / seconds:,.0f} /s", end="")
    print(f", rejected {len(refused) / len(ran['statuses']):.0%} {ran['kinds']}")
    each_us = used_s / len(ran["statuses"]) * 1e6
    print(f"  the server's process used {used_s / seconds:.0%} of one core, {each_us:,.0f} us a request")
    print(f"  sent after its time p99 {sorted(ran['late'])[int(len(ran['late']) * 0.99)] * 1000:,.1f} ms", end="")
    print(f"; at most {ran['most_in_flight']:,} in flight; {ran['resent']} sent again on another connection")
    print(f"  admitted grants    {quantiles(admitted, 1000)}   target p99 {TARGET_GRANT_S * 1000:,.0f} ms")
    if refused:
        print(f"  rejected grants    {quantiles(refused, 1000)}")
    print(f"  revoke, answered   {quantiles([answered for _, answered, _ in revoked], 1)}")
    until = [max(0.0, (last - at) / 1000) for at, _, last in revoked]
    print(f"  revoke, last call  {quantiles(until, 1)}   target p99 {TARGET_REVOKE_MS:,.0f} ms; {len(until)} of them")
    return 0


def quantiles(values: list[float], scale: float) -> str:
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] * scale for part in (0.5, 0.99))
    return f"p50 {p50:8,.1f} ms  p99 {p99:8,.1f} ms  worst {ordered[-1] * scale:8,.1f} ms"


if __name__ == "__main__":
    if sys.argv[1:2] == ["guard"]:
        decide(Path(sys.argv[2]), Path(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
    else:
        sys.exit(main(*(float(word) for word in (*sys.argv[1:], *("4", "10")[len(sys.argv) - 1 :]))))

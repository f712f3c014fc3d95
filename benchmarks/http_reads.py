"""Introspections and reads of the admin API a second over HTTP.

An introspection (RFC 7662) is an act: it leaves an entry, and the client assertion is used up. A read takes a DPoP
proof, which is used up too, and leaves no entry. Enforced: what is answered, and the entries.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.load.agents import Party, settle
from benchmarks.load.machine import print_ceilings
from benchmarks.load.server_under_load import ServerUnderLoad, measure, server_under_load

AGENTS, REQUESTS, IN_FLIGHT = 200, 6000, 128


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        party = settle(folder / "data", agents=AGENTS)
        with server_under_load(folder / "data") as station:
            station.tokens(party.agents, scope="ostiary:decide")
            station.tokens([party.admin], scope="ostiary:read")
            _measure(station, party)
    return 0


def _measure(station: ServerUnderLoad, party: Party) -> None:
    def introspections() -> list[bytes]:
        return [(agent := party.turn(number)).introspect(agent.token) for number in range(REQUESTS)]

    paths = [f"/api/v1/agents/{party.turn(number).id}" for number in range(REQUESTS)]
    nonce = station.nonce(party.admin.call("GET", paths[0]), status=401)
    measure(
        "introspections",
        station,
        introspections,
        connections=IN_FLIGHT,
        entries=1,
        accept=lambda body: json.loads(body)["active"] is True,
    )
    measure(
        "reads of an agent, with DPoP",
        station,
        lambda: [party.admin.call("GET", path, nonce=nonce) for path in paths],
        connections=IN_FLIGHT,
        entries=0,
        accept=lambda body: json.loads(body)["name"].startswith("agent-"),
    )


if __name__ == "__main__":
    sys.exit(main())

"""A flood of one agent against a real server: what stops something overtakes it, and other agents are served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from benchmarks.load.agents import ISSUER, settle
from benchmarks.load.client import drive
from benchmarks.load.server_under_load import ServerUnderLoad
from harness.live_server import ServerFixture
from harness.server import running
from ostiary.agent import Agent
from ostiary.keys import save_key
from ostiary.protocol.errors import Refused
from tests.faults.tally import Tally

FLOOD, CONNECTIONS, REVOKES = 400, 200, 5
"""Requests of the flood at a time, how many are in flight, and the agents that are revoked meanwhile."""


def test_a_flood_of_one_agent_neither_delays_revocations_nor_starves_another_agent(
    tmp_path: Path, rounds: int, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTIARY_QUEUE_WAIT_MS", "500")  # as users run it; other tests have a patient server
    late = wrong = starved = sent = 0
    folder = tmp_path / "data"
    party = settle(folder, agents=REVOKES * rounds + 2)
    save_key(folder / "admin.json", party.admin.key, client_id=party.admin.id, issuer=ISSUER)
    greedy, other, *revoked = party.agents
    save_key(tmp_path / "other.json", other.key, client_id=other.id, issuer=ISSUER)
    with (
        running(folder) as server,
        ThreadPoolExecutor(1) as thread,
        ServerFixture(server, tmp_path) as live_server,
        Agent.from_credential(tmp_path / "other.json", url=server.url) as bystander,
    ):
        port = int(server.url.rpartition(":")[2])
        nonce = ServerUnderLoad(folder, port, 0).nonce(greedy.ask_token(nonce=None), status=400)
        live_server.api("GET", "/agents")
        for number in range(rounds):
            over = Event()

            def flood(over: Event = over) -> list[int]:
                """Send as much as the server answers until the revokes are done; the statuses."""
                statuses: list[int] = []
                while not over.is_set():
                    requests = [greedy.ask_token(nonce=nonce) for _ in range(FLOOD)]
                    statuses += drive(port, requests, connections=CONNECTIONS).statuses
                return statuses

            flooding = thread.submit(flood)
            try:
                for agent in revoked[number * REVOKES : (number + 1) * REVOKES]:
                    live_server.api("POST", "/revoke", {"kind": "agent", "id": agent.id})
                    late += flooding.done()
                    try:
                        bystander.token(resource=f"https://r{agent.id[-12:]}.example.org/mcp")
                    except Refused:
                        starved += 1
            finally:
                over.set()
            statuses = flooding.result()
            sent += len(statuses)
            wrong += sum(status not in (200, 503) for status in statuses)
            wrong += 200 not in statuses
    of = REVOKES * rounds
    tally("a revoke is answered while a flood goes on", broken=late, of=of)
    tally("an agent gets its token beside the flood of another", broken=starved, of=of)
    tally("each request of a flood is granted or answered 503", broken=wrong, of=sent)

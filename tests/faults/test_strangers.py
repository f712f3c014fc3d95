"""Hostile unauthenticated clients beside an ordinary load: their cost is bounded, and the ordinary load continues."""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from harness import hostile
from harness.live_server import ServerFixture, authenticate
from harness.patience import PATIENCE_S, eventually
from harness.server import running
from ostiary.guard import Guard, Verified
from ostiaryd.ground.http.connections import OF_ADDRESS
from ostiaryd.ledger.model.sampling import FULL_OF_NETWORK, MINUTE, SUMMARY
from tests.faults.tally import Tally

CONNECTIONS = 24
SECONDS = 4.0
MEMORY = 256 << 20
URI = "https://files.example.org/mcp"


def resident_bytes(folder: Path) -> int:
    """Memory of the server whose data folder that is."""
    pid = json.loads((folder / "server.json").read_text())["pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def left_by_strangers(live_server: ServerFixture) -> list[dict[str, Any]]:
    """Entries of refusals of callers that proved nothing, and their summaries; the newest of them."""
    entries = live_server.api("GET", "/audit", outcome="refused", limit=1000)["entries"]
    return [one for one in entries if not any(one.get(name) for name in ("agent", "person", "reporter"))]


def is_within_budget(entries: list[dict[str, Any]]) -> bool:
    """Whether no minute has more entries than one network may cause, and one summary for each minute."""
    full = Counter(one["at"] // MINUTE for one in entries if one["action"] != SUMMARY)
    summaries = Counter(one["detail"]["since"] for one in entries if one["action"] == SUMMARY)
    return max(full.values(), default=0) <= FULL_OF_NETWORK and max(summaries.values(), default=0) <= 1


def test_unauthenticated_clients_cannot_fill_ledger_or_memory_and_revocations_still_work(
    tmp_path: Path, rounds: int, tally: Tally
) -> None:
    with running(tmp_path / "server") as server, ExitStack() as stack:
        live_server = ServerFixture(server, tmp_path)
        stack.callback(live_server.admin.close)
        resource, guard_key = live_server.resource(URI)
        with Guard(guard_key, spool_dir=tmp_path / "spool", max_age=PATIENCE_S, max_skew=30) as guard:
            for _ in range(rounds):
                name, agent_key = live_server.agent(f"{resource}:read")
                who, memory = authenticate(guard, agent_key, URI), resident_bytes(server.folder)
                with hostile.start(server.url, connections=CONNECTIONS, seconds=SECONDS) as process:
                    live_server.api("POST", "/revoke", {"kind": "agent", "id": name})
                    eventually(partial(is_denied, guard, who))
                    while process.poll() is None:
                        assert live_server.api("GET", f"/agents/{name}")["name"] == name
                    assert process.stdout is not None
                    told = json.loads(process.stdout.read())
                refused = sum(told["statuses"].values())
                assert told["statuses"].get("500", 0) == 0
                within = is_within_budget(left_by_strangers(live_server))
                tally("requests of strangers leave a bounded number of entries", broken=int(not within), of=refused)
                grown = resident_bytes(server.folder) - memory
                tally(f"strangers take less than {MEMORY >> 20} MiB", broken=int(grown > MEMORY), of=refused)


def test_excess_connections_of_one_address_are_closed_and_block_no_administrator(
    tmp_path: Path, rounds: int, tally: Tally
) -> None:
    with running(tmp_path / "server") as server, ExitStack() as stack:
        live_server = ServerFixture(server, tmp_path)
        stack.callback(live_server.admin.close)
        host, _, port = server.url.removeprefix("http://").partition(":")
        for _ in range(rounds):
            opened = [socket.create_connection((host, int(port)), timeout=PATIENCE_S) for _ in range(OF_ADDRESS + 40)]
            try:
                for one in opened:
                    one.setblocking(False)
                name, _ = live_server.agent()
                assert live_server.api("GET", f"/agents/{name}")["name"] == name
                eventually(partial(has_closed, opened, 40))
                excess = sum(not is_closed(one) for one in opened) - OF_ADDRESS
                tally(
                    "an address has a bounded number of anonymous connections",
                    broken=max(0, excess),
                    of=len(opened),
                )
            finally:
                for one in opened:
                    one.close()


def is_denied(guard: Guard, who: Verified) -> bool:
    return not guard.decide(who, "read_file", {"path": "/a"}).decision.allowed


def has_closed(socks: list[socket.socket], count: int) -> bool:
    """Whether the server has closed so many of them."""
    return sum(map(is_closed, socks)) >= count


def is_closed(sock: socket.socket) -> bool:
    """Whether the server has closed its end."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True

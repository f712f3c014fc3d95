"""Descriptors run out: strangers hold connections, and the administrator's revoke still gets in."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.server import COMMAND, Server, running
from ostiary.agent import Agent
from ostiaryd.ground.process import descriptors
from tests.faults.tally import Tally

LIMIT = 256
LIMITED: tuple[str | Path, ...] = ("sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", COMMAND)


def revoked(server: Server, admin: Agent, agent: str) -> bool:
    """Whether the revocation got in; a connection may be closed before it is used, and is then opened anew."""
    body = {"kind": "agent", "id": agent}
    try:
        answer = admin.post(f"{server.url}/api/v1/revoke", resource=f"{admin.issuer}/api/v1", json=body)
    except httpx2.TransportError:
        return False
    return answer.status_code == 200


def test_an_administrator_revokes_while_strangers_hold_every_connection(
    tmp_path: Path, rounds: int, tally: Tally
) -> None:
    broken = 0
    with (
        running(tmp_path / "data", command=LIMITED) as server,
        ExitStack() as strangers,
        ServerFixture(server, tmp_path) as live_server,
    ):
        port = int(server.url.rpartition(":")[2])
        for _ in range(3 * rounds):
            agent, _ = live_server.agent("files:read")
            for _ in range(LIMIT + 50):
                strangers.enter_context(socket.create_connection(("127.0.0.1", port)))
            with ServerFixture(server, tmp_path).admin as admin:  # on a connection of its own
                broken += not eventually(partial(revoked, server, admin, agent))
    tally("an administrator's revoke gets in while strangers hold all connections", broken=broken, of=3 * rounds)


def test_the_limit_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert descriptors.raise_limit() == (descriptors.MOST if hard == resource.RLIM_INFINITY else hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] in (hard, descriptors.MOST)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("most", "closed"), [(3, 0), (2, 1), (1, 2), (0, 2)])
def test_idle_connections_are_closed_and_no_others(most: int, closed: int) -> None:
    new, old = (
        SimpleNamespace(cycle=cycle, transport=None) for cycle in (None, SimpleNamespace(response_complete=True))
    )
    working = SimpleNamespace(cycle=SimpleNamespace(response_complete=False), transport=None)
    found = descriptors.idle([working, new, old], most=most)
    assert len(found) == closed
    assert working not in found

"""Descriptors run out: strangers hold connections, and the administrator's revoke still gets in."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.client_certificates import context_of
from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.server import COMMAND, Server, running
from ostiary.agent import Agent
from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.http.connections import LINGERING
from ostiaryd.ground.process import descriptors
from tests.faults.tally import Tally

LIMIT = 256
LIMITED: tuple[str | Path, ...] = ("sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", COMMAND)


def revoked(server: Server, admin: Agent, agent: str) -> bool:
    """Whether the revocation got in; a connection may be closed before it is used, and is then opened anew."""
    body = {"kind": "agent", "id": agent}
    try:
        answer = admin.post(f"{server.url}/api/v1/revoke", resource=f"{admin.issuer}/api/v1", json=body)
    except Unavailable:
        return False
    return answer.status_code == 200


def test_an_administrator_can_revoke_while_unauthenticated_clients_hold_every_connection(
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


UNREAD = b"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: a\r\n\r\n" * 400
UNFINISHED = b"POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"


@pytest.mark.parametrize("sent", [UNREAD, UNFINISHED], ids=["unread", "unfinished"])
def test_unauthenticated_clients_neither_use_up_descriptors_nor_block_an_administrator(
    tmp_path: Path, sent: bytes, tally: Tally
) -> None:
    attempts = 3
    with (
        running(tmp_path / "data", command=LIMITED) as server,
        ExitStack() as strangers,
        ServerFixture(server, tmp_path) as live_server,
    ):
        port, broken = int(server.url.rpartition(":")[2]), 0
        for _ in range(attempts):
            agent, _ = live_server.agent("files:read")
            for number in range(2 * LIMIT):
                # few from each address: the bound in total is what keeps them
                client = socket.create_connection(
                    ("127.0.0.1", port), source_address=(f"127.0.0.{2 + number // 16}", 0)
                )
                strangers.enter_context(client).setblocking(False)
                with suppress(BlockingIOError, ConnectionError):
                    client.send(sent)
            broken += not eventually(partial(revoked, server, live_server.admin, agent))
        log = (server.folder / "server.log").read_text()
    tally("strangers who do not read or do not finish use up no descriptors", broken=broken, of=attempts)
    assert "no connections are accepted" not in log


def test_clients_that_are_silent_after_a_tls_handshake_do_not_use_up_descriptors(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, authorities = 3, tmp_path / "data" / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    with (
        running(tmp_path / "data", "--tls", "auto", command=LIMITED) as server,
        ExitStack() as strangers,
        ServerFixture(server, tmp_path) as live_server,
    ):
        port, tls, broken = int(server.url.rpartition(":")[2]), context_of(authorities), 0
        for _ in range(attempts):
            agent, _ = live_server.agent("files:read")
            for number in range(LIMIT):
                plain = socket.create_connection(
                    ("127.0.0.1", port), timeout=PATIENCE_S, source_address=(f"127.0.0.{2 + number // 16}", 0)
                )
                strangers.enter_context(tls.wrap_socket(plain, server_hostname="127.0.0.1"))
            broken += not eventually(partial(revoked, server, live_server.admin, agent))
        log = (server.folder / "server.log").read_text()
    tally("strangers who are silent after a TLS handshake use up no descriptors", broken=broken, of=attempts)
    assert "no connections are accepted" not in log


def test_the_descriptor_limit_is_raised_to_the_allowed_maximum() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert descriptors.raise_limit() == (descriptors.MOST if hard == resource.RLIM_INFINITY else hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] in (hard, descriptors.MOST)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Opened:
    """A connection as the descriptors see it: without a request so far, with a request in progress, or after one."""

    def __init__(self, *, is_proven: bool = False, is_complete: bool | None = None) -> None:
        self.is_proven = is_proven
        self.cycle = None if is_complete is None else SimpleNamespace(response_complete=is_complete)


@pytest.mark.parametrize(("most", "closed"), [(3, 0), (2, 1), (1, 2), (0, 2)])
def test_only_idle_connections_are_closed(most: int, closed: int) -> None:
    working, new, old = Opened(is_complete=False), Opened(), Opened(is_complete=True)
    found = descriptors.select_idle([working, new, old], most=most)
    assert len(found) == closed
    assert working not in found


def test_idle_connections_of_unauthenticated_clients_are_closed_first() -> None:
    proven, first, second = Opened(is_proven=True, is_complete=True), Opened(), Opened(is_complete=True)
    assert descriptors.select_idle([proven, first, second], most=1) == [first, second]


@pytest.mark.parametrize(("limit", "most"), [(8, 1), (1024, 64), (1 << 20, 1 << 16)])
def test_each_kind_of_connection_has_its_share_of_the_descriptors(limit: int, most: int) -> None:
    assert descriptors.most_unopened(limit, listeners=1) == most
    assert descriptors.most_unopened(limit, listeners=2) == max(1, most // 2)
    lingering = descriptors.most_anonymous(limit) // LINGERING
    assert descriptors.most_anonymous(limit) + lingering + most <= descriptors.most_connections(limit)

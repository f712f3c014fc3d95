"""A stranger who sends without end: it is cut off before it costs memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest

from tests.patience import PATIENCE_S
from tests.server import Server, running

ENOUGH = 2 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("flood")) as server:
        yield server


def is_cut_off(server: Server, head: bytes, more: bytes) -> bool:
    """Whether the server hangs up on a request whose head goes on and on."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as sock:
        try:
            sock.sendall(head)
            for _ in range(ENOUGH // len(more)):
                sock.sendall(more)
            return sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\na: ", b"x" * 65536),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n" * 1000),
        (b"GET /", b"x" * 65536),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"a" * 65536),
        (b"POST /token HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 1000),
    ],
    ids=["one header", "many headers", "a path", "a name", "trailers"],
)
def test_a_head_without_end_is_cut_off(server: Server, head: bytes, more: bytes) -> None:
    assert is_cut_off(server, head, more)


@pytest.mark.parametrize(("size", "status"), [(32 << 10, 401), (65 << 10, None)])
def test_a_head_of_an_honest_size_is_answered(server: Server, size: int, status: int | None) -> None:
    headers = {"authorization": "DPoP " + "x" * size}
    try:
        assert httpx2.get(f"{server.url}/api/v1/tasks", headers=headers).status_code == status
    except httpx2.TransportError:
        assert status is None


def test_a_large_body_is_no_head(server: Server) -> None:
    for _ in range(3):
        body = b"a=" + b"x" * (1 << 20)
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert httpx2.post(f"{server.url}/token", content=body, headers=headers).status_code == 413
        assert httpx2.post(f"{server.url}/token", content=body[: 1 << 19], headers=headers).status_code == 400

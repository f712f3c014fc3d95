"""A stranger who sends without end: it is cut off before it costs memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import Server
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ground.http.protocol import MAX_FIELDS

ENOUGH = 2 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with PreparedServer(tmp_path_factory.mktemp("flood")) as server:
        yield server


def answer_to(server: Server, head: bytes, more: bytes) -> bytes:
    """The server's answer to a request whose head goes on and on, until it closes the connection."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as sock:
        sock.sendall(head)
        for _ in range(ENOUGH // len(more) if more else 0):
            sock.sendall(more)
        said = b""
        while part := sock.recv(65536):
            said += part
        return said


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
def test_a_request_head_without_end_is_refused_and_the_connection_closed(
    server: Server, head: bytes, more: bytes
) -> None:
    answer = answer_to(server, head, more)
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"connection: close" in answer
    assert answer.endswith(b'{"error":"head_too_large","message":"a head has at most 65536 bytes and 200 fields"}')


@pytest.mark.parametrize(("size", "status"), [(32 << 10, 401), (65 << 10, 431)])
def test_a_request_head_is_accepted_up_to_the_maximum_size(server: Server, size: int, status: int) -> None:
    headers = {"authorization": "DPoP " + "x" * size}
    assert httpx2.get(f"{server.url}/api/v1/tasks", headers=headers).status_code == status


@pytest.mark.parametrize(("count", "status"), [(MAX_FIELDS, 200), (MAX_FIELDS + 1, 431)])
def test_a_request_head_has_at_most_200_fields(server: Server, count: int, status: int) -> None:
    head = b"GET /jwks HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + b"a: b\r\n" * (count - 2) + b"\r\n"
    assert answer_to(server, head, b"").startswith(b"HTTP/1.1 %d " % status)


def test_a_request_body_has_a_maximum_size_of_its_own(server: Server) -> None:
    for _ in range(3):
        body = b"a=" + b"x" * (1 << 20)
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert httpx2.post(f"{server.url}/token", content=body, headers=headers).status_code == 413
        assert httpx2.post(f"{server.url}/token", content=body[:SMALL_BODY], headers=headers).status_code == 400
        assert httpx2.post(f"{server.url}/token", content=body[: SMALL_BODY + 1], headers=headers).status_code == 413

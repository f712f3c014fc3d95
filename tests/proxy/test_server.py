"""A local proxy in front of a server: what passes, what breaks off, what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S, eventually, eventually_async
from ostiary.client import TokenRefused
from ostiary.protocol.errors import Unavailable
from ostiary.proxy import Entrance, Listen, Upstream, serve

CAPABILITY = "capability-of-this-test"


class Shows(httpx2.Auth):
    """Takes a second try for each request, as after a new nonce, or refuses."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.tries = 2

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        if self.refusal is not None:
            raise self.refusal
        for number in range(self.tries):
            request.headers["authorization"] = f"DPoP token-{number}"
            response = yield request
            if response.status_code != 401:
                return
            if self.requires_response_body:
                assert response.content


class Server:
    """The server behind the proxy: refuses first tries, and does what the path says."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.gone = threading.Event()
        self.go_on = threading.Event()
        self.parts = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        size, path = 0, scope["path"]
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            self.parts += 1
            if not message.get("more_body"):
                break
        if headers.get("authorization") != "DPoP token-1":
            challenge = [(b"www-authenticate", b'DPoP error="use_dpop_nonce"'), (b"dpop-nonce", b"n")]
            await self._answer(send, 401, b'{"error":"no"}', challenge)
            return
        self.seen.append(
            {"method": scope["method"], "path": path, "query": scope["query_string"], "size": size} | headers
        )
        match path.rpartition("/")[2]:
            case "stream":
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
                )
                for number in range(3):
                    await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
                    if number == 0:
                        await eventually_async(self.go_on.is_set)
                await send({"type": "http.response.body", "body": b""})
            case "hang":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.gone.set()
            case "endless":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.gone.set()
            case "breaks":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"part", "more_body": True})
                raise RuntimeError("the server fails in the middle")
            case "moved":
                host = headers["host"].encode()
                await self._answer(send, 307, b"", [(b"location", b"http://" + host + b"/mcp/there?x=1")])
            case "away":
                await self._answer(send, 302, b"", [(b"location", b"https://evil.example/mcp")])
            case "astray":
                await self._answer(send, 302, b"", [(b"location", b"http://[::bad")])
            case "nothing":
                await self._answer(send, 204, b"", [])
            case _:
                await self._answer(
                    send, 200, json.dumps({"size": size}).encode(), [(b"x-end", b"1"), (b"dpop-nonce", b"n")]
                )

    async def _answer(self, send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        headers = [*headers, (b"content-length", str(len(body)).encode())] if status != 204 else headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def shows() -> Shows:
    return Shows()


@pytest.fixture
def behind() -> Server:
    return Server()


@pytest.fixture
def proxy(behind: Server, shows: Shows) -> Iterator[str]:
    """The base URL of a proxy for a server."""
    sock, port = free_socket()
    with serving(behind, sock), proxying(f"http://127.0.0.1:{port}/mcp", shows) as base:
        yield base


class proxying:
    """A proxy in a thread of its own, for the length of the block; gives its base URL."""

    def __init__(self, to: str, auth: httpx2.Auth, listen: str = "127.0.0.1:0", capability: str = CAPABILITY) -> None:
        self._entrance, self._to, self._auth = Entrance(Listen.parse(listen), capability), to, auth
        self._base = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return str(eventually(lambda: self._base))

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._task = task
        upstream = Upstream(self._to, self._auth)
        try:
            await serve(self._entrance, upstream, ready=self._ready)
        except asyncio.CancelledError:
            await upstream.close()

    def _ready(self, entrance: Entrance) -> None:
        self._base = entrance.base


def raw(base: str, text: bytes, *, is_whole: bool = True) -> bytes:
    """The answer of a server to bytes, until it closes."""
    host, port = base.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.sendall(text.replace(b"HOST", f"{host}:{port}".encode()))
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
def test_a_request_of_any_method_gets_a_token_and_the_client_sees_no_challenge(
    proxy: str, behind: Server, method: str
) -> None:
    headers = {"authorization": "Bearer of the client", "mcp-session-id": "7", "last-event-id": "9"}
    answer = httpx2.request(method, f"{proxy}/a%2fb/c?x=1&y=%20", headers=headers)
    assert (answer.status_code, answer.headers["x-end"]) == (200, "1")
    assert not {"www-authenticate", "dpop-nonce"} & set(answer.headers)
    [seen] = behind.seen
    assert (seen["method"], seen["path"], seen["query"]) == (method, "/mcp/a/b/c", b"x=1&y=%20")
    assert (seen["authorization"], seen["mcp-session-id"], seen["last-event-id"]) == ("DPoP token-1", "7", "9")


def test_a_body_is_sent_again_after_a_challenge_of_the_server(proxy: str, behind: Server) -> None:
    big = 3 << 20
    assert httpx2.post(f"{proxy}/up", content=bytes(big)).json() == {"size": big}
    assert httpx2.post(f"{proxy}/up", content=iter([b"a" * 70_000, b"b"])).json() == {"size": 70_001}
    assert httpx2.post(f"{proxy}/up").json() == {"size": 0}


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_refused(
    proxy: str, monkeypatch: pytest.MonkeyPatch, more: int, status: int, is_chunked: bool
) -> None:
    limit = 1 << 20
    monkeypatch.setattr("ostiary.proxy.server.MAX_BODY", limit)
    body = bytes(limit + more)
    answer = httpx2.post(f"{proxy}/up", content=iter([body[:9], body[9:]]) if is_chunked else body)
    assert answer.status_code == status


def test_a_stream_is_forwarded_before_its_end(proxy: str, behind: Server) -> None:
    with httpx2.stream("GET", f"{proxy}/stream", timeout=PATIENCE_S) as answer:
        parts = answer.iter_bytes()
        assert next(parts) == b"data: 0\n\n", "the first comes before the server says the second"
        behind.go_on.set()
        assert b"".join(parts) == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("path", ["hang", "endless"])
def test_a_client_that_disconnects_cancels_its_request(proxy: str, behind: Server, path: str) -> None:
    host, port = proxy.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.sendall(f"GET /{CAPABILITY}/{path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        eventually(lambda: behind.seen)
    assert behind.gone.wait(PATIENCE_S)


@pytest.mark.filterwarnings("ignore")
def test_a_response_that_breaks_off_is_a_protocol_error_for_the_client(proxy: str) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{proxy}/breaks")


def test_a_connection_serves_several_requests_in_order(proxy: str, behind: Server) -> None:
    with httpx2.Client() as http:
        for path in ("one", "nothing", "two"):
            assert http.get(f"{proxy}/{path}").status_code in (200, 204)
            assert http.head(f"{proxy}/{path}").content == b""
    assert [one["path"] for one in behind.seen] == [
        f"/mcp/{path}" for path in ("one", "one", "nothing", "nothing", "two", "two")
    ]


def test_redirects_are_left_to_the_client_and_lead_to_the_proxy_or_to_another_server(proxy: str) -> None:
    assert httpx2.get(f"{proxy}/moved").headers["location"] == f"{proxy}/there?x=1"
    away = httpx2.get(f"{proxy}/away")
    assert (away.status_code, away.headers["location"]) == (302, "https://evil.example/mcp")
    astray = httpx2.get(f"{proxy}/astray")
    assert (astray.status_code, astray.json()["error"]) == (502, "upstream_failed")


@pytest.mark.parametrize("is_read", [False, True])
def test_a_status_401_of_the_server_reaches_the_client_as_403(proxy: str, shows: Shows, is_read: bool) -> None:
    shows.tries, shows.requires_response_body = 1, is_read
    answer = httpx2.get(f"{proxy}/a")
    assert (answer.status_code, answer.json()) == (403, {"error": "no"})
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (TokenRefused("the agent is suspended", hint="ask its owner", code="invalid_client"), 403, "invalid_client"),
        (Unavailable("no answer"), 503, "unavailable"),
        (httpx2.ReadTimeout("late"), 504, "upstream_timeout"),
        (httpx2.ConnectError("refused"), 502, "upstream_failed"),
    ],
)
def test_a_failed_token_request_is_answered_with_its_status_and_error_code(
    proxy: str, shows: Shows, refusal: Exception, status: int, code: str
) -> None:
    shows.refusal = refusal
    answer = httpx2.post(f"{proxy}/a", content=b"x")
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert ("retry-after" in answer.headers) is (status == 503)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: HOST\r\n\r\n", b"400"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST\r\n\r\n", b"400"),
        (b"GET /capability-of-this-test HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET /capability-of-this-test HTTP/1.0\r\n\r\n", b"421"),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n", b"404"),
        (b"GET /capability-of-this-test HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\n\r\n", b"403"),
        (
            b"GET /capability-of-this-test HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"501",
        ),
        (b"nonsense\r\n\r\n", b"400"),
        (
            b"POST /capability-of-this-test HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"400",
        ),
        (b"GET /capability-of-this-test HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", b"400"),
        (b"POST /capability-of-this-test HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET /capability-of-this-test HTTP/1.1\r\nHost: HOST\r\nX: " + b"x" * 150_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_a_malformed_or_foreign_request_is_refused_and_not_forwarded(
    proxy: str, behind: Server, text: bytes, status: bytes
) -> None:
    assert raw(proxy, text).split(b" ")[1] == status
    assert not behind.seen


def test_a_client_that_expects_100_continue_gets_100_continue(proxy: str) -> None:
    host, port = proxy.removeprefix("http://").partition("/")[0].split(":")
    head = f"POST /{CAPABILITY}/up HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"ok")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_trailers_are_not_forwarded(proxy: str, behind: Server) -> None:
    text = b"POST /capability-of-this-test/up HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"
    text += b"Transfer-Encoding: chunked\r\nTrailer: authorization\r\n\r\n2\r\nok\r\n0\r\nauthorization: evil\r\n\r\n"
    assert raw(proxy, text).startswith(b"HTTP/1.1 200")
    assert (behind.seen[0]["authorization"], behind.seen[0]["size"]) == ("DPoP token-1", 2)


def test_only_its_owner_can_use_the_unix_socket_of_a_proxy(behind: Server, shows: Shows, tmp_path: Path) -> None:
    sock, port = free_socket()
    path = tmp_path / "proxy.sock"
    with serving(behind, sock), proxying(f"http://127.0.0.1:{port}/mcp", shows, f"unix:{path}", "") as base:
        assert path.stat().st_mode & 0o777 == 0o600
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as http:
            assert http.get(f"{base}/a").status_code == 200
    assert not path.exists()


def test_an_unreachable_server_is_reported_with_the_status_502(shows: Shows) -> None:
    sock, port = free_socket()
    sock.close()
    with proxying(f"http://127.0.0.1:{port}", shows) as base:
        answer = httpx2.get(base, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]) == (502, "upstream_failed")


def test_a_stop_of_the_proxy_ends_idle_connections_of_clients(shows: Shows) -> None:
    with proxying("http://127.0.0.1:9", shows) as base:
        _, port = base.removeprefix("http://").partition("/")[0].split(":")
        client = socket.create_connection(("127.0.0.1", int(port)), PATIENCE_S)
        assert b" 404 " in raw(base, b"GET /wrong HTTP/1.1\r\nHost: HOST\r\n\r\n")  # the client before it is accepted
    with client:
        assert client.recv(1) == b""

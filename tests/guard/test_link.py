"""The conversations of a guard over a real socket: what it hears it believes strictly, what it tells it tells on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ostiary import ambient
from ostiary.asgi import Receive, Scope, Send
from ostiary.core import jose
from ostiary.core.errors import Malformed
from ostiary.core.feed import KeyFact, Message, TokenFact, render_message
from ostiary.guard import Guard
from ostiary.guard import link as links
from ostiary.guard.lines import read_lines
from ostiary.keys import Credential
from tests.clock import Clock
from tests.feed.house import listening, serving
from tests.guard.feeder import RESOURCE_ID, Feeder
from tests.guard.test_guard import enter, is_refused
from tests.patience import eventually


class Server:
    """Speaks to one guard: an issuer that gives anybody a token, and a feed whose lines a test writes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.feeder = Feeder(Clock(ambient.now()))
        self.streams: list[dict[str, str]] = []
        self.reports: list[dict[str, Any]] = []
        self.applied: list[dict[str, Any]] = []
        self.refuse: set[str] = set()
        self.refuse_late: set[str] = set()
        """after the delay"""
        self.begun: list[str] = []
        """what is asked, before the delay"""
        self.delay_s = 0.0
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self._loop = asyncio.get_running_loop()
        body = (await receive()).get("body", b"")
        path = scope["path"]
        if path in self.refuse:
            await answer(send, 503, {})
        elif path == "/.well-known/oauth-authorization-server":
            endpoint, algs = f"{self.url}/token", ["ES256", "EdDSA"]
            said = {"issuer": self.url, "token_endpoint": endpoint, "dpop_signing_alg_values_supported": algs}
            await answer(send, 200, said)
        elif path == "/token":
            await answer(send, 200, {"access_token": "t", "token_type": "DPoP", "expires_in": 300})
        elif path == "/feed/v1/jwks":
            await answer(send, 200, {"keys": [dict(Feeder.feed_key.public.jwk)]})
        elif path == "/feed/v1/stream":
            await self._stream(scope, send)
        else:
            heard = self.reports if path.endswith("report") else self.applied
            self.begun.append(path)
            await asyncio.sleep(self.delay_s)
            if path in self.refuse_late:
                await answer(send, 404, {})
                return
            heard.append(json.loads(body))
            await answer(send, 200, {})

    async def _stream(self, scope: Scope, send: Send) -> None:
        self._lines = asyncio.Queue()
        self.streams.append(dict(part.split("=") for part in scope["query_string"].decode().split("&")))
        self.feeder.begin()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (line := await self._lines.get()) is not None:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def write(self, line: bytes | None) -> None:
        """A line of the present stream; None ends it."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

    def message(self, *facts: Any, **changed: Any) -> Message:
        self.feeder.clock.now = ambient.now()
        message = self.feeder.message(*facts)
        right = {"iss": self.url} | ({"stream": self.streams[-1]["stream"]} if message.stream else {})
        return msgspec.structs.replace(message, **{**right, **changed})

    def say(self, *facts: Any, **changed: Any) -> None:
        message = self.message(*facts, **changed)
        self.write(render_message(Feeder.feed_key, message))
        self.feeder.said(message)

    def snapshot(self, count: int, **changed: Any) -> None:
        """As soon as the guard is connected for the `count`th time."""
        eventually(lambda: len(self.streams) == count)
        self.say(*self.feeder.facts(), snapshot=True, **changed)


async def answer(send: Send, status: int, body: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@pytest.fixture
def server() -> Iterator[Server]:
    sock, port = listening()
    server = Server(f"http://127.0.0.1:{port}")
    with serving(server, sock):
        yield server


@pytest.fixture
def guard(server: Server, tmp_path: Path) -> Iterator[Guard]:
    """A guard that is connected and has heard a snapshot."""
    credential = Credential(jose.generate("ES256"), RESOURCE_ID, server.url)
    guard = Guard(credential, spool_dir=tmp_path, max_age=2)
    starting = threading.Thread(target=guard.start)
    starting.start()
    server.snapshot(1)
    starting.join()
    yield guard
    guard.close()


def is_open(guard: Guard) -> bool:
    return not is_refused(guard.feed.current)


def show(guard: Guard, server: Server) -> Any:
    """Somebody that the guard lets in."""
    server.feeder.clock.now = ambient.now()
    return enter(guard, server.feeder, server.feeder.token(iss=server.url))


def test_what_is_said_on_the_stream_is_in_force_and_acknowledged(guard: Guard, server: Server) -> None:
    assert is_open(guard)
    server.say(TokenFact("tok_1", 1 << 52), seq=7)
    eventually(lambda: "tok_1" in guard.feed.current().facts.ended_tokens)
    acknowledged = eventually(lambda: [one for one in server.applied if one["seq"] == 7])
    assert acknowledged[0]["stream"] == server.streams[0]["stream"]
    assert 0 <= acknowledged[0]["ago"] < 2_000_000


WRONG: dict[str, Callable[[Server], bytes]] = {
    "malformed": lambda server: b"garbage\n",
    "a gap": lambda server: render_message(Feeder.feed_key, server.message(prev=9, seq=9)),
    "forged": lambda server: render_message(jose.generate("EdDSA"), server.message()),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_line_closes_the_guard_until_it_has_a_snapshot(guard: Guard, server: Server, what: str) -> None:
    server.write(WRONG[what](server))
    eventually(lambda: not is_open(guard))
    eventually(lambda: len(server.streams) == 2)
    assert "after" not in server.streams[1]
    server.snapshot(2)
    eventually(lambda: is_open(guard))


def test_a_stream_that_ends_is_resumed(guard: Guard, server: Server) -> None:
    server.say(TokenFact("tok_1", 1 << 52), seq=7)
    eventually(lambda: guard.feed.seq == 7)
    server.write(None)
    eventually(lambda: len(server.streams) == 2)
    assert server.streams[1]["after"] == "7"
    assert server.streams[1]["stream"] != server.streams[0]["stream"]
    assert is_open(guard), "knowledge is young still"
    server.say(seq=7)
    assert "tok_1" in guard.feed.current().facts.ended_tokens


def test_a_server_that_is_silent_closes_the_guard_and_is_asked_again(guard: Guard, server: Server) -> None:
    eventually(lambda: not is_open(guard))
    eventually(lambda: len(server.streams) == 2)
    server.say()
    assert eventually(lambda: is_open(guard))


def test_an_error_that_nobody_thought_of_ends_no_conversation(
    guard: Guard, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(links, "b64u", lambda _: 1 / 0)
    server.write(None)
    eventually(lambda: "ZeroDivisionError" in caplog.text)
    monkeypatch.undo()
    assert eventually(lambda: len(server.streams) == 2)


def test_what_is_decided_is_reported_with_its_outcome(guard: Guard, server: Server) -> None:
    with guard.call(show(guard, server), "read_file", {}) as call:
        call.result(bytes=7)
    [report] = eventually(lambda: server.reports)
    assert report["first"] == 1
    assert [record["kind"] for record in report["records"]] == ["call", "result"]
    assert report["records"][1]["bytes"] == 7


def test_a_report_that_is_not_taken_is_sent_again(guard: Guard, server: Server) -> None:
    server.refuse.add("/feed/v1/report")
    guard.decide(show(guard, server), "read_file", {})
    server.refuse.clear()
    [report] = eventually(lambda: server.reports)
    assert report["first"] == 1
    guard.decide(show(guard, server), "read_file", {})
    assert eventually(lambda: server.reports[1:])[0]["first"] == 2


def test_closing_reports_what_is_left_and_leaves_nothing(
    guard: Guard, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "FAREWELL_S", 30)
    server.delay_s = 0.5
    guard.decide(show(guard, server), "read_file", {})
    guard.close()
    assert [record["kind"] for report in server.reports for record in report["records"]] == ["call"]
    assert not list(tmp_path.glob("*/*/*"))
    assert not is_open(guard)


def test_what_fails_while_it_closes_keeps_nothing_from_being_reported(
    guard: Guard, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a stream has ended that is still to be acknowledged."""
    monkeypatch.setattr(links, "FAREWELL_S", 30)
    who = show(guard, server)
    eventually(lambda: server.applied)
    server.begun.clear()
    server.delay_s, server.refuse_late = 0.5, {"/feed/v1/applied"}
    server.say(KeyFact("another key", 1 << 52))
    eventually(lambda: "/feed/v1/applied" in server.begun)
    guard.decide(who, "read_file", {})
    guard.close()
    assert [record["kind"] for report in server.reports for record in report["records"]] == ["call"]
    assert not list(tmp_path.glob("*/*/*"))


def test_a_guard_without_a_server_starts_and_refuses(tmp_path: Path) -> None:
    sock, port = listening()
    sock.close()
    credential = Credential(jose.generate("ES256"), RESOURCE_ID, f"http://127.0.0.1:{port}")
    guard = Guard(credential, spool_dir=tmp_path).start(wait=0.1)
    assert not is_open(guard)
    guard.close()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"a\n"], [b"a"]),
        ([b"a", b"b\nc\n", b"d"], [b"ab", b"c"]),
        ([b"\n\n"], [b"", b""]),
    ],
)
def test_lines_are_put_together(chunks: list[bytes], lines: list[bytes]) -> None:
    assert list(read_lines(iter(chunks))) == lines


@pytest.mark.parametrize(("size", "fits"), [(8, True), (9, True), (10, True), (11, False)])
def test_a_line_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch, size: int, fits: bool) -> None:
    monkeypatch.setattr("ostiary.guard.lines.MAX_LINE_BYTES", 10)
    chunks = [b"x"] * size + [b"\n"]
    if fits:
        assert list(read_lines(iter(chunks))) == [b"x" * size]
    else:
        with pytest.raises(Malformed):
            list(read_lines(iter(chunks)))

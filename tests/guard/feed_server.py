"""A server that speaks the feed to one guard."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.clock import Clock
from harness.feeder import RESOURCE_ID, Feeder
from harness.live_server import free_socket, serving
from harness.patience import eventually
from ostiary import ambient
from ostiary.asgi import Receive, Scope, Send
from ostiary.decision.feed import Message, render_message
from ostiary.guard import Guard
from ostiary.keys import Credential
from ostiary.protocol import jose
from tests.support.guard_fixtures import authenticate_at


class Server:
    """A server for one guard: an issuer that gives every client a token, and a feed whose lines a test writes."""

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
        """requests, as they come, before the delay"""
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
    sock, port = free_socket()
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


def authenticate_with(guard: Guard, server: Server) -> Any:
    """Return a caller that the guard has authenticated."""
    server.feeder.clock.now = ambient.now()
    return authenticate_at(guard, server.feeder, server.feeder.token(iss=server.url))


@contextmanager
def connected_guard(server: Server, folder: Path, **options: Any) -> Iterator[Guard]:
    """A guard that has the state of a server, which refuses its reports: the records stay, for tests to read."""
    credential = Credential(jose.generate("ES256"), RESOURCE_ID, server.url)
    guard = Guard(credential, spool_dir=folder, max_age=20, **options)
    starting = threading.Thread(target=guard.start)
    starting.start()
    server.snapshot(1)
    starting.join()
    server.refuse.add("/feed/v1/report")
    yield guard
    server.refuse.clear()
    guard.close()
    server.write(None)

"""A client that does not take a stream loses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from harness.patience import PATIENCE_S
from ostiaryd.ground.http import edge
from ostiaryd.ground.http.edge import Call, Endpoint, Reply, render_admin
from ostiaryd.ground.world import World


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_stream_ends_if_its_client_stops_reading(
    world: World, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    monkeypatch.setattr(edge, "LONGEST_STALL_S", 0.05 if not is_taken else PATIENCE_S)
    ended = asyncio.Event()

    async def stream() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            yield b"two"
        finally:
            ended.set()

    async def wire(call: Call) -> Reply:
        return Reply(200, stream(), "text/event-stream")

    async def receive() -> dict[str, Any]:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b""}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not is_taken:
            await asyncio.Event().wait()
        sent.append(message.get("body", b""))

    asked: list[bool] = []
    sent: list[bytes] = []
    scope: Any = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": []}
    scope |= {"scheme": "https", "root_path": "", "client": None, "path_params": {}}
    await asyncio.wait_for(Endpoint(world, wire, render=render_admin, streams=True)(scope, receive, send), PATIENCE_S)
    assert ended.is_set()
    assert sent == ([b"", b"one", b"two", b""] if is_taken else [b""])

"""The output of a call is bounded by its volume, wherever it is handed out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from harness.feeder import RESOURCE_ID, URI, Feeder
from harness.live_server import free_socket, serving
from ostiary.asgi import GuardASGI, Receive, Scope, Send
from ostiary.authorization.budget import Budget, Volume
from ostiary.decision.feed import ResourceFact
from ostiary.guard import Guard, Withheld
from ostiary.mcp import DENIED, protect
from ostiary.tools import Tools
from tests.guard.asgi_fixtures import ORIGIN, signed
from tests.guard.mcp_fixtures import Shows

CATALOGUE = json.dumps(
    {"resource": "files", "tools": [{"name": "read_file", "effect": "read"}], "data_classes": ["health"]}
)


def say(feeder: Feeder, *, uri: str = URI, mode: str = "enforce") -> None:
    feeder.say(
        ResourceFact(
            resource_id=RESOURCE_ID,
            name="files",
            uri=uri,
            mode=mode,  # type: ignore[arg-type]
            segment="default",
            catalogue=CATALOGUE,
        )
    )


def budget(per_call: int, unit: Any = "bytes") -> list[Budget]:
    return [Budget("bu", Volume(limit=1000, data_class="health", per_call=per_call, unit=unit))]


def drawn(guard: Guard, total: int = 1000) -> None:
    """Give the guard a slice of the budget."""
    guard._budgets.expect(["bu"])
    guard._budgets.grant({"bu": total})


def outcome(guard: Guard) -> dict[str, Any]:
    batch = guard._spool.batch(count=100, size=1 << 20)
    assert batch is not None
    call, result = batch.records
    assert call["data_classes"] == ["health"]
    assert (call["kind"], result["kind"]) == ("call", "result")
    return result


def enter(guard: Guard, feeder: Feeder, budgets: list[Budget]) -> Any:
    token = feeder.token(budgets=budgets)
    proof = feeder.proof(token, nonce=guard._proofs.nonce())
    return guard.verify(authorization=f"DPoP {token}", proof=proof, method="POST", uri=URI)


def test_a_call_reserves_its_volume_and_the_unused_part_returns_to_the_budget(guard: Guard, feeder: Feeder) -> None:
    say(feeder)
    drawn(guard)
    with guard.call(enter(guard, feeder, budget(100)), "read_file", {}) as call:
        assert guard._budgets.drawn("bu") == 900
        call.result(bytes=30, data_class="health")
    assert guard._budgets.drawn("bu") == 970
    assert outcome(guard)["unused"] == {"bu": 70}
    guard.finish(call)
    assert guard._budgets.drawn("bu") == 970


@pytest.mark.parametrize("why", ["raised", "silent", "denied"])
def test_a_call_that_reports_no_size_spends_its_whole_reservation(guard: Guard, feeder: Feeder, why: str) -> None:
    say(feeder)
    drawn(guard)
    who = enter(guard, feeder, budget(100))
    if why == "raised":
        with pytest.raises(ZeroDivisionError), guard.call(who, "read_file", {}):
            raise ZeroDivisionError
    elif why == "silent":
        with guard.call(who, "read_file", {}):
            pass
    else:
        assert not guard.decide(who, "write_file", {}).decision.allowed
    assert guard._budgets.drawn("bu") == (1000 if why == "denied" else 900)


@pytest.mark.parametrize(("mode", "withheld"), [("enforce", True), ("watch", False)])
def test_a_decorated_tool_that_exceeds_its_volume_is_withheld_in_enforcement(
    guard: Guard, feeder: Feeder, mode: str, withheld: bool
) -> None:
    say(feeder, mode=mode)
    drawn(guard)
    tools = Tools(guard, enter(guard, feeder, budget(2, "records")))

    @tools.tool("read_file")
    def read(count: int) -> list[int]:
        return list(range(count))

    assert read(2) == [0, 1]
    if withheld:
        with pytest.raises(
            Withheld, match="the call has run, but its result is withheld: the result has more than 2 records of health"
        ):
            read(3)
    else:
        assert read(3) == [0, 1, 2]
    assert guard._budgets.drawn("bu") == (996 if withheld else 995)


async def test_a_decorated_coroutine_that_exceeds_its_volume_is_withheld(guard: Guard, feeder: Feeder) -> None:
    say(feeder)
    drawn(guard)
    tools = Tools(guard, enter(guard, feeder, budget(2, "records")))

    @tools.tool("read_file")
    async def read(count: int) -> tuple[int, ...]:
        return tuple(range(count))

    assert await read(2) == (0, 1)
    with pytest.raises(
        Withheld, match="the call has run, but its result is withheld: the result has more than 2 records of health"
    ):
        await read(3)
    assert guard._budgets.drawn("bu") == 996


@pytest.mark.parametrize(("sizes", "heard"), [([60, 40], 100), ([60, 41], 60), ([101], 0), ([60, 41, 1], 60)])
async def test_an_http_response_breaks_off_before_it_exceeds_its_volume(
    guard: Guard, feeder: Feeder, sizes: list[int], heard: int
) -> None:
    say(feeder)
    drawn(guard)
    sent: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for size in sizes:
            try:
                await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
            except Withheld:
                continue
        await send({"type": "http.response.body", "body": b""})

    async def spy(scope: Scope, receive: Receive, send: Send) -> None:
        async def through(message: Any) -> None:
            sent.append(message.get("body", b""))
            await send(message)

        await GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file"})(scope, receive, through)

    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(spy, raise_app_exceptions=False), base_url=ORIGIN)
    await http.get("/files/a", headers=signed(guard, feeder, "GET", "/files/a", budgets=budget(100)))
    assert len(b"".join(sent)) == heard
    told = outcome(guard)
    assert (told["status"], told["bytes"]) == ("ok" if heard == 100 else "error", heard)


class Counted(Shows):
    def __init__(self, feeder: Feeder, budgets: list[Budget]) -> None:
        real = feeder.token

        class Spender:
            proof = feeder.proof

            def token(self, **said: Any) -> str:
                return real(budgets=budgets, **said)

        super().__init__(Spender())  # type: ignore[arg-type]


@pytest.fixture
def url(guard: Guard, feeder: Feeder) -> Iterator[str]:
    server = MCPServer("files")

    @server.tool()
    def read_file(size: int) -> str:
        return "x" * size

    sock, port = free_socket()
    say(feeder, uri=f"http://127.0.0.1:{port}/mcp")
    with serving(protect(server, guard), sock):
        yield f"http://127.0.0.1:{port}/mcp"


async def test_an_mcp_response_that_exceeds_its_volume_is_withheld(url: str, guard: Guard, feeder: Feeder) -> None:
    drawn(guard)
    async with (
        httpx2.AsyncClient(auth=Counted(feeder, budget(300))) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        answer: Any = await client.call_tool("read_file", {"size": 10})
        assert answer.content[0].text == "x" * 10
        with pytest.raises(
            MCPError, match="the call has run, but its result is withheld: the result has more than 300 bytes of health"
        ) as refusal:
            await client.call_tool("read_file", {"size": 1000})
    assert refusal.value.error.code == DENIED
    assert "x" * 100 not in str(refusal.value)

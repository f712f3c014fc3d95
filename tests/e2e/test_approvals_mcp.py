"""A call of an MCP tool that needs an approval is suspended, and the official client retries it after the approval."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestParams, ElicitResult, InputRequiredResult

from harness.live_server import ServerFixture, free_socket, own_server, serving
from ostiary import AsyncAgent, Guard
from ostiary.mcp import DENIED, answered, protect, waits
from tests.support.payment_fixtures import FILES, People

ASKED = f"ap_{0:032x}"
PAY = ("pay", {"amount": 500, "to": "ann"})


class Bank:
    """A bank behind a guard that suspends; `paid` lists its payments, `seen` the input responses that its tool got."""

    def __init__(self, people: People) -> None:
        self.people, self.paid, self.seen = people, list[str](), list[Any]()
        self.server = MCPServer("bank")

        @self.server.tool()
        def pay(amount: int, to: str, context: Context[Any]) -> str:
            self.paid.append(to)
            self.seen.append(context.input_responses)
            return f"paid {to}"

    @asynccontextmanager
    async def client(self, asker: AsyncAgent, **options: Any) -> AsyncIterator[Client]:
        http = httpx2.AsyncClient(auth=asker.auth(self.people.uri))
        async with http, Client(streamable_http_client(self.people.uri, http_client=http), **options) as client:
            yield client


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    with own_server(tmp_path_factory.mktemp("bank")) as live_server:
        live_server.api("POST", "/policies", {"files": FILES})
        yield live_server


@pytest.fixture
def bank(live_server: ServerFixture, tmp_path: Path) -> Iterator[Bank]:
    sock, port = free_socket()
    people = People(live_server, f"http://127.0.0.1:{port}/mcp")
    bank = Bank(people)
    with (
        Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard,
        serving(protect(bank.server, guard, suspends=True), sock),
    ):
        yield bank
    people.close()


@pytest.fixture
async def asker(bank: Bank) -> AsyncIterator[AsyncAgent]:
    async with AsyncAgent.from_credential(bank.people.agent_key) as asker:
        yield asker


class Person:
    """A person who answers an approval request as soon as a client gets it; then the agent waits as usual."""

    def __init__(self, bank: Bank, asker: AsyncAgent, says: str) -> None:
        self._bank, self._says, self._waits = bank, says, waits(asker, within=5)
        self.asked: list[str] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> Any:
        self.asked.append(params.message)
        people = self._bank.people
        people.answer(people.person(), str(context.request_id), self._says)
        return await self._waits(context, params)


@pytest.mark.parametrize(("says", "paid"), [("approve", ["ann"]), ("deny", [])])
async def test_a_waiting_client_retries_the_call_after_the_decision_of_a_person(
    bank: Bank, asker: AsyncAgent, says: str, paid: list[str]
) -> None:
    person = Person(bank, asker, says)
    async with bank.client(asker, elicitation_callback=person) as client:
        if paid:
            result: Any = await client.call_tool(*PAY)
            assert result.content[0].text == "paid ann"
        refusal = "already used" if paid else "a person denied the approval request"
        with pytest.raises(MCPError, match=refusal) as denied:
            await client.call_tool(*PAY)
    assert denied.value.code == DENIED
    assert (bank.paid, len(person.asked)) == (paid, 1)
    assert "payments over 100" in person.asked[0]
    assert bank.seen == [None] * len(paid), "what was answered to us is not for the tool"


async def test_a_suspended_call_is_stored_and_continues_with_another_client(bank: Bank, asker: AsyncAgent) -> None:
    async with bank.client(asker, elicitation_callback=waits(asker)) as client:
        first = await client.session.call_tool(*PAY, allow_input_required=True)
    kept = first.model_dump_json(by_alias=True)
    required = InputRequiredResult.model_validate_json(kept)
    [approval] = list(required.input_requests or {})
    bank.people.answer(bank.people.person(), approval)
    responses = await answered(required, asker, within=5)
    async with bank.client(asker, elicitation_callback=waits(asker)) as client:
        result: Any = await client.session.call_tool(*PAY, input_responses=responses)
    assert (result.content[0].text, bank.paid) == ("paid ann", ["ann"])


async def test_an_accepted_elicitation_without_an_approval_does_not_run_the_call(bank: Bank, asker: AsyncAgent) -> None:
    """A client that accepts without waiting gets the approval request again."""

    async def accepts(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={})

    async with bank.client(asker, elicitation_callback=accepts) as client:
        with pytest.raises(MCPError, match="payments over 100") as denied:
            await client.call_tool(*PAY)
    assert denied.value.data["error"] == "approval_needed"
    assert denied.value.data["approval"].startswith("ap_")
    assert bank.paid == []


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_client_that_declines_to_wait_does_not_run_an_approved_call(
    bank: Bank, asker: AsyncAgent, action: Any
) -> None:
    async def declines(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        bank.people.answer(bank.people.person(), str(context.request_id))
        return ElicitResult(action=action)

    async with bank.client(asker, elicitation_callback=declines) as client:
        with pytest.raises(MCPError, match="declined to wait"):
            await client.call_tool(*PAY)
    assert bank.paid == []


async def test_a_client_without_elicitation_gets_a_denial_that_names_the_approval(
    bank: Bank, asker: AsyncAgent
) -> None:
    async with bank.client(asker) as client:  # without a callback it has no such capability
        with pytest.raises(MCPError, match="payments over 100") as denied:
            await client.call_tool(*PAY)
    assert denied.value.data["approval"].startswith("ap_")
    async with bank.client(asker, elicitation_callback=waits(asker), mode="legacy") as client:
        with pytest.raises(MCPError, match="payments over 100"):  # before 2026-07-28 there is no such result
            await client.call_tool(*PAY)
    assert bank.paid == []


@pytest.mark.parametrize("answers", [7, [], {ASKED: 7}, {ASKED: {}}, {ASKED: {"action": "accepted"}}])
async def test_a_malformed_input_response_does_not_run_the_call(bank: Bank, asker: AsyncAgent, answers: Any) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    params = {"name": "pay", "arguments": PAY[1], "inputResponses": answers, "_meta": meta}
    headers = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "pay",
        "accept": "application/json, text/event-stream",
    }
    async with httpx2.AsyncClient(auth=asker.auth(bank.people.uri)) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        response = await http.post(bank.people.uri, json=body, headers=headers)
    assert response.status_code < 500
    assert "paid" not in response.text
    assert bank.paid == []


async def test_an_elicitation_that_is_not_for_an_approval_is_not_answered(asker: AsyncAgent) -> None:
    """A key that is not the id of an approval is refused, also if the key contains a path."""
    params: Any = ElicitResult(action="accept")
    for key in ("name", "ap_", f"{ASKED}/approve", f"{ASKED}0"):
        context: Any = SimpleNamespace(request_id=key)
        said: Any = await waits(asker)(context, params)
        assert said.message == "only requests to wait for an approval are answered"
    assert await answered(InputRequiredResult(request_state="theirs"), asker) == {}

"""FastMCP: its own client calls a server over HTTP, with DPoP, and over stdio."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import httpx2
import pytest
from fastmcp import Client, Context, FastMCP
from fastmcp.client.auth import OAuth
from fastmcp.client.transports import ClientTransport, SSETransport, StdioTransport, StreamableHttpTransport
from fastmcp.server.dependencies import get_access_token, get_http_request
from fastmcp.server.extensions import ServerExtension
from fastmcp.server.middleware import Middleware
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from fastmcp.server.middleware.tool_injection import ToolInjectionMiddleware
from fastmcp.tools import Tool
from mcp.client.session import ClientSession
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult, PromptReference

from harness.live_server import ServerFixture, free_socket, own_server, serving
from harness.patience import PATIENCE_S, eventually, eventually_async
from harness.person_browser import PersonBrowser
from harness.server import COMMAND
from ostiary import Agent, AsyncAgent, Guard, Tools
from ostiary.adapters.fastmcp import _listed, protect, waits
from ostiary.authorization.catalogue import definition_of
from ostiary.guard.mcp import DENIED
from ostiary.protocol.errors import Conflict, Malformed
from tests.frameworks.contract import *  # every test of the contract
from tests.frameworks.environment import ROOT
from tests.frameworks.framework_fixture import CATALOGUE, FrameworkFixture, Listed, judged, program_of
from tests.support.client_site import serving_clients
from tests.support.payment_fixtures import People


def server_of(stage: FrameworkFixture, **options: Any) -> FastMCP[Any]:
    server = FastMCP("files", **options)

    @server.tool
    def read_file(path: str, limit: int = 10) -> str:
        return stage.read_file(path, limit)

    server.tool(stage.write_file)
    server.tool(stage.delete_file)
    server.tool(stage.fail)
    return server


async def ask(transport: ClientTransport, name: str, arguments: dict[str, Any]) -> str:
    """Call a tool; what the client hears."""
    try:
        async with Client(transport) as client:
            result = await client.call_tool(name, arguments, raise_on_error=False)
            return "".join(getattr(part, "text", "") for part in result.content)
    except MCPError as error:
        if error.error.code != DENIED:
            raise
        return str(error)


@contextmanager
def at_http(stage: FrameworkFixture, server: FastMCP[Any], **options: Any) -> Iterator[Any]:
    """The server on a port, and the way to it for the stage's agent under its task."""
    sock, port = free_socket()
    protect(server, stage.guard, origin=f"http://127.0.0.1:{port}")
    with serving(server.http_app(**options), sock):
        kind: Any = SSETransport if options.get("transport") == "sse" else StreamableHttpTransport
        path = "sse" if kind is SSETransport else "mcp"
        yield kind(f"http://127.0.0.1:{port}/{path}", auth=stage.task.auth(stage.uri))


class AtStdio(ClientTransport):
    """The server on standard input and output of this very process, as they are while it is connected."""

    def __init__(self, server: FastMCP[Any]) -> None:
        self.server = server

    @asynccontextmanager
    async def connect_session(self, **options: Any) -> AsyncIterator[ClientSession]:
        options.pop("transport_options", None)
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
        before = sys.stdin, sys.stdout
        with os.fdopen(our_in) as reads, os.fdopen(our_out, "w") as writes:
            with os.fdopen(their_in) as sys.stdin, os.fdopen(their_out, "w") as sys.stdout:
                serving, theirs = asyncio.create_task(self.server.run_stdio_async(show_banner=False)), sys.stdout
                # Frames of stdio are the same in both directions, so the server's end of the SDK does for a client.
                async with stdio_server(anyio.wrap_file(reads), anyio.wrap_file(writes)) as (read, write):
                    try:
                        async with ClientSession(read, write, **options) as session:
                            yield session
                    finally:
                        writes.close()
                        await serving
                        theirs.close()
            sys.stdin, sys.stdout = before


def over_http(stage: FrameworkFixture, name: str, arguments: dict[str, Any]) -> str:
    with at_http(stage, server_of(stage)) as transport:
        return asyncio.run(ask(transport, name, arguments))


def over_sse(stage: FrameworkFixture, name: str, arguments: dict[str, Any]) -> str:
    with at_http(stage, server_of(stage), transport="sse") as transport:
        return asyncio.run(ask(transport, name, arguments))


def over_stdio(stage: FrameworkFixture, name: str, arguments: dict[str, Any]) -> str:
    async def call() -> str:
        server = server_of(stage)
        protect(server, stage.guard, stdio=stage.tools)
        return await ask(AtStdio(server), name, arguments)

    return asyncio.run(call())


@pytest.fixture
def program(stage: FrameworkFixture) -> ModuleType:
    return program_of(tools=server_of(stage))


@pytest.fixture
def listed() -> Listed:
    def said(stage: FrameworkFixture) -> list[dict[str, Any]]:
        tools = asyncio.run(server_of(stage).list_tools())
        return [_listed(tool) for tool in tools]

    return said


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Over HTTP everybody has shown a token, so that only over stdio can nobody be known."""
    if "call" in metafunc.fixturenames:
        nobody = metafunc.function.__name__ == "test_a_call_without_an_acting_agent_is_denied"
        metafunc.parametrize("call", [over_stdio] if nobody else [over_stdio, over_http])


def test_over_sse_every_call_is_decided(stage: FrameworkFixture) -> None:
    assert over_sse(stage, "read_file", {"path": "/srv/a"}) == "text of /srv/a"
    assert "denied" in over_sse(stage, "write_file", {"path": "/srv/a"})
    assert stage.ran == [("read_file", ("/srv/a", 10))]


async def connected(server: FastMCP[Any], name: str, arguments: dict[str, Any]) -> str:
    return await ask(AtStdio(server), name, arguments)


async def test_a_call_over_stdio_without_a_configured_agent_is_not_authenticated(stage: FrameworkFixture) -> None:
    server = server_of(stage)
    protect(server, stage.guard)
    assert "the call has no verified token" in await connected(server, "read_file", {"path": "/srv/a"})
    assert stage.ran == []


async def test_a_call_inside_the_process_is_not_authenticated(stage: FrameworkFixture) -> None:
    server = server_of(stage)
    protect(server, stage.guard, stdio=stage.tools)
    with pytest.raises(MCPError, match="the call has no verified token"):
        await server.call_tool("read_file", {"path": "/srv/a"})
    async with Client(server) as client:
        with pytest.raises(MCPError, match="the call has no verified token"):
            await client.call_tool("read_file", {"path": "/srv/a"})
    assert stage.ran == []


async def test_a_call_over_http_does_not_act_for_the_stdio_agent(stage: FrameworkFixture) -> None:
    sock, port = free_socket()
    server = server_of(stage)
    before = server.http_app()  # made before `protect`, so the app has no authentication
    protect(server, stage.guard, stdio=stage.tools, origin=f"http://127.0.0.1:{port}")
    with serving(before, sock):
        told = await ask(StreamableHttpTransport(f"http://127.0.0.1:{port}/mcp"), "read_file", {"path": "/srv/a"})
    assert "the call has no verified token" in told
    assert stage.ran == []


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_request_without_a_token_and_proof_is_refused(stage: FrameworkFixture, transport: str) -> None:
    import httpx2

    with at_http(stage, server_of(stage), transport=transport) as way:
        url: str = way.url
        async with httpx2.AsyncClient() as http:
            for headers in ({}, {"authorization": "Bearer shown-to-the-guard"}, {"authorization": "DPoP x"}):
                answer = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("DPoP ")
            metadata = (await http.get(answer.headers["www-authenticate"].split('"')[-2])).json()
    assert metadata["resource"] == stage.uri
    assert metadata["dpop_bound_access_tokens_required"] is True


async def test_the_client_of_fastmcp_calls_with_a_bearer_token_where_its_agent_is_exempt(
    stage: FrameworkFixture,
) -> None:
    import httpx2

    agent = f"/agents/{stage.agent.client_id}"
    stage.live_server.api("PUT", f"{agent}/bearer/{stage.resource}", {})
    eventually(lambda: stage.guard.feed.current().exempt)
    made = stage.live_server.api("POST", f"{agent}/secrets", {})
    form = {"grant_type": "client_credentials", "resource": stage.uri}
    credentials = (made["client_id"], made["client_secret"])
    token = httpx2.post(f"{stage.live_server.server.url}/token", data=form, auth=credentials).json()["access_token"]
    with at_http(stage, server_of(stage)) as way:
        transport = StreamableHttpTransport(way.url, auth=token)
        assert "text of /srv/a" in await ask(transport, "read_file", {"path": "/srv/a"})
        assert f"{stage.resource}:write" in await ask(transport, "write_file", {"path": "/srv/a"})
        stage.live_server.api("DELETE", f"{agent}/bearer/{stage.resource}")
        eventually(lambda: not stage.guard.feed.current().exempt)
        assert "not accepted" in await ask(transport, "read_file", {"path": "/srv/a"})
    assert stage.ran == [("read_file", ("/srv/a", 10))]


async def test_a_tool_sees_the_client_id_and_not_the_token(stage: FrameworkFixture) -> None:
    server, seen = server_of(stage), list[Any]()

    @server.tool(name="read_file")
    def looks(path: str, limit: int = 10) -> str:
        token = get_access_token()
        assert token is not None
        seen.append((token.client_id, token.token, get_http_request().headers))
        return "looked"

    with at_http(stage, server) as transport:
        assert await ask(transport, "read_file", {"path": "/srv/a"}) == "looked"
    [(client_id, token, headers)] = seen
    assert (client_id, token) == (stage.agent.client_id, "")
    assert "dpop" not in headers
    assert headers.getlist("authorization") == ["Bearer shown-to-the-guard"]


async def test_a_custom_route_needs_a_token_too(stage: FrameworkFixture) -> None:
    import httpx2
    from starlette.responses import PlainTextResponse

    server = server_of(stage)

    @server.custom_route("/health", methods=["GET"])
    async def health(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    with at_http(stage, server) as way:
        url = way.url.replace("/mcp", "/health")
        async with httpx2.AsyncClient() as http:
            assert (await http.get(url)).status_code == 401
        async with httpx2.AsyncClient(auth=stage.task.auth(stage.uri)) as http:
            assert (await http.get(url)).text == "fine"


class Meddler(Middleware):
    """Changes the arguments of calls, in a copy or in place."""

    def __init__(self, *, in_place: bool) -> None:
        self.in_place = in_place

    async def on_call_tool(self, context: Any, call_next: Any) -> Any:
        if self.in_place:
            context.message.arguments["path"] = "/etc/passwd"
            return await call_next(context)
        changed = context.message.model_copy(update={"arguments": {"path": "/etc/passwd"}})
        return await call_next(context.copy(message=changed))


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_call_that_is_changed_after_its_decision_does_not_run(stage: FrameworkFixture, in_place: bool) -> None:
    server = server_of(stage, middleware=[Meddler(in_place=in_place)])
    protect(server, stage.guard, stdio=stage.tools)
    assert "changed after it was decided" in await connected(server, "read_file", {"path": "/srv/a"})
    assert stage.ran == []


async def test_middleware_and_extensions_added_after_the_guard_are_refused(stage: FrameworkFixture) -> None:
    class Intercepts(ServerExtension):
        identifier = "org.example/intercepts"

        async def intercept_tool_call(self, params: Any, ctx: Any, call_next: Any) -> Any:
            return await call_next()

    class Settings(ServerExtension):
        identifier = "org.example/settings"

    for add, said in (
        (lambda server: server.add_middleware(Meddler(in_place=False)), "middleware was added after the guard"),
        (lambda server: server.middleware.insert(0, Meddler(in_place=False)), "middleware was added after the guard"),
        (lambda server: server.add_extension(Intercepts()), "the extension org.example/intercepts could change"),
    ):
        server = server_of(stage)
        protect(server, stage.guard, stdio=stage.tools)
        add(server)
        assert said in await connected(server, "read_file", {"path": "/srv/a"})
    assert stage.ran == []
    server = server_of(stage)
    server.add_extension(Intercepts())
    with pytest.raises(Conflict, match=r"org\.example/intercepts"):
        protect(server, stage.guard)
    server = server_of(stage)
    server.add_extension(Settings())
    protect(server, stage.guard, stdio=stage.tools)
    assert await connected(server, "read_file", {"path": "/srv/a"}) == "text of /srv/a"


async def test_a_call_that_middleware_answers_from_its_cache_is_decided(stage: FrameworkFixture) -> None:
    cached = server_of(stage, middleware=[ResponseCachingMiddleware()])
    protect(cached, stage.guard, stdio=stage.tools)
    assert await connected(cached, "read_file", {"path": "/srv/a"}) == "text of /srv/a"
    stage.task.end()
    for _ in range(100):  # until the guard has heard of it
        if "denied" in (said := await connected(cached, "read_file", {"path": "/srv/a"})):
            break
        await asyncio.sleep(0.05)
    assert "denied" in said, "though the answer is in the cache"


async def test_a_tool_that_middleware_adds_is_decided(stage: FrameworkFixture) -> None:
    brought = ToolInjectionMiddleware(tools=[Tool.from_function(stage.write_file)])
    server = FastMCP[Any]("files", middleware=[brought])
    protect(server, stage.guard, stdio=stage.tools)
    assert "denied" in await connected(server, "write_file", {"path": "/srv/a"})
    assert stage.ran == []


async def test_a_tool_that_a_tool_calls_is_decided(stage: FrameworkFixture) -> None:
    server = server_of(stage)

    @server.tool(name="fail")
    async def calls_another() -> str:
        await server.call_tool("write_file", {"path": "/srv/a"})
        return "called"

    protect(server, stage.guard, stdio=stage.tools)
    assert "denied" in await connected(server, "fail", {})
    assert stage.ran == []


async def test_a_call_of_a_mounted_server_is_decided_by_the_server_that_received_it(
    stage: FrameworkFixture, tmp_path: Path
) -> None:
    outer = FastMCP[Any]("outer")
    outer.mount(server_of(stage))
    protect(outer, stage.guard, stdio=stage.tools)
    assert await connected(outer, "read_file", {"path": "/srv/a"}) == "text of /srv/a"
    assert "denied" in await connected(outer, "write_file", {"path": "/srv/a"})
    stage.ran.clear()
    inner, (_, key) = server_of(stage), stage.live_server.resource("https://inner.example.org/")
    with Guard(key, spool_dir=tmp_path / "inner") as other:
        protect(inner, other)
        outer = FastMCP[Any]("outer")
        outer.mount(inner)
        with at_http(stage, outer) as transport:
            assert "not for this server" in await ask(transport, "read_file", {"path": "/srv/a"})
    assert stage.ran == []


async def test_resources_and_prompts_are_decided_and_lists_are_not(stage: FrameworkFixture) -> None:
    server = server_of(stage)
    server.resource("file://secret")(lambda: "secret")
    server.prompt(name="hello")(lambda: "hello")
    protect(server, stage.guard, stdio=stage.tools)
    async with Client(AtStdio(server)) as client:
        assert {tool.name for tool in await client.list_tools()} == {"read_file", "write_file", "delete_file", "fail"}
        assert [prompt.name for prompt in await client.list_prompts()] == ["hello"]
        for asked in (client.read_resource("file://secret"), client.get_prompt("hello")):
            with pytest.raises(MCPError, match="denied"):
                await asked


async def test_a_completion_request_is_decided(stage: FrameworkFixture) -> None:
    server = server_of(stage)
    server.prompt(name="hello")(lambda name: f"hello {name}")

    @server.completion
    def complete(ref: Any, argument: Any, context: Any) -> list[str]:
        stage.ran.append(("complete", argument))
        return ["secret"]

    protect(server, stage.guard, stdio=stage.tools)
    async with Client(AtStdio(server)) as client:
        with pytest.raises(MCPError, match="denied"):
            await client.complete(PromptReference(type="ref/prompt", name="hello"), {"name": "name", "value": "s"})
    assert stage.ran == []


async def test_a_resource_is_read_where_the_catalogue_lists_resources_read(
    stage: FrameworkFixture, tmp_path: Path
) -> None:
    catalogue = [{"name": "resources/read", "effect": "read"}]
    resource, key = stage.live_server.resource("https://reading.example.org/", catalogue)
    _, agent_key = stage.live_server.agent(f"{resource}:read")
    server = server_of(stage)
    server.resource("file://report")(lambda: "text")
    with Guard(key, spool_dir=tmp_path / "reading") as guard, Agent.from_credential(agent_key) as agent:
        protect(server, guard, stdio=Tools(guard, agent))
        async with Client(AtStdio(server)) as client:
            [content] = await client.read_resource("file://report")
            assert getattr(content, "text", "") == "text"


async def test_argument_defaults_come_from_the_requested_version_of_the_tool(
    stage: FrameworkFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, seen = FastMCP[Any]("files"), judged(monkeypatch)

    @server.tool(version="1")
    def read_file(path: str, limit: int = 1) -> str:
        return stage.read_file(path, limit)

    @server.tool(name="read_file", version="2")
    def newer(path: str, limit: int = 2) -> str:
        return stage.read_file(path, limit)

    protect(server, stage.guard, stdio=stage.tools)
    async with Client(AtStdio(server)) as client:
        await client.call_tool("read_file", {"path": "/srv/a"}, version="1")
        await client.call_tool("read_file", {"path": "/srv/a"})
    assert seen == [{"path": "/srv/a", "limit": 1}, {"path": "/srv/a", "limit": 2}]
    assert stage.ran == [("read_file", ("/srv/a", 1)), ("read_file", ("/srv/a", 2))]


async def test_the_number_of_records_and_bytes_returned_is_in_the_ledger(stage: FrameworkFixture) -> None:
    server = server_of(stage)

    @server.tool(name="read_file")
    def lists(path: str, limit: int = 10) -> list[str]:
        return ["a", "b", "c"]

    protect(server, stage.guard, stdio=stage.tools)
    await connected(server, "read_file", {"path": "/srv/a"})
    eventually(lambda: stage.recorded()[1] == ["ok"])
    [result] = [entry["result"] for entry in stage.live_server.entries(resource=stage.uri) if entry.get("result")]
    assert (result["records"], result["bytes"]) == (3, len('["a","b","c"]'))


async def test_a_tool_whose_definition_differs_from_the_approved_one_is_denied(stage: FrameworkFixture) -> None:
    def approve(tools: list[dict[str, Any]]) -> None:
        definitions = {tool["name"]: definition_of(tool) for tool in tools}
        known = [tool | {"definition": definitions[tool["name"]]} for tool in CATALOGUE]
        body = {"catalogue": {"resource": stage.resource, "tools": known}}
        stage.live_server.api("PUT", f"/resources/{stage.resource}/catalogue", body)

    async def hears(words: str) -> bool:
        said = await ask(way, "read_file", {"path": "/srv/a"})
        return words in said

    async def until(words: str) -> None:
        for _ in range(100):
            if await hears(words):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(words)

    with at_http(stage, server_of(stage)) as way:
        async with Client(way) as client:
            listed = [
                tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in await client.list_tools()
            ]
        approve([tool | {"description": "was approved"} for tool in listed])
        await until("differs from the version")
        stage.guard.listing._now.clear()
        assert await hears("differs from the version"), "whether or not the caller has listed it"
        approve(listed)
        await until("text of /srv/a")


PAY = ("pay", {"amount": 500, "to": "ann"})


def bank(paid: list[str]) -> FastMCP[Any]:
    server = FastMCP("bank")

    @server.tool
    def pay(amount: int, to: str, context: Context) -> str:
        assert context.input_responses is None, "what was answered to us is not for the tool"
        paid.append(to)
        return f"paid {to}"

    return server


@pytest.mark.parametrize(
    ("says", "ran", "heard"),
    [("approve", ["ann"], "already used"), ("deny", [], "a person denied the approval request")],
)
async def test_a_waiting_client_repeats_the_call_once_the_approval_request_is_answered(
    people: People, tmp_path: Path, says: str, ran: list[str], heard: str
) -> None:
    paid = list[str]()
    server, (sock, port) = bank(paid), free_socket()

    async def answers(message: str, kind: Any, params: Any, context: Any) -> Any:
        people.answer(people.person(), context.request_id, says)
        return await waits(asker, within=5)(message, kind, params, context)

    async with AsyncAgent.from_credential(people.agent_key) as asker:
        with Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard:
            protect(server, guard, origin=f"http://127.0.0.1:{port}", suspends=True)
            with serving(server.http_app(), sock):
                way = StreamableHttpTransport(f"http://127.0.0.1:{port}/mcp", auth=asker.auth(people.uri))
                async with Client(way, elicitation_handler=answers) as client:
                    if ran:
                        assert (await client.call_tool(*PAY)).data == "paid ann"
                    with pytest.raises(MCPError, match=heard):
                        await client.call_tool(*PAY)
    assert paid == ran


@pytest.mark.parametrize(("action", "heard"), [("accept", "payments over 100"), ("decline", "declined to wait")])
async def test_an_elicitation_result_of_the_client_approves_no_call(
    people: People, tmp_path: Path, action: Any, heard: str
) -> None:
    """Over stdio, too."""
    paid = list[str]()
    server = bank(paid)

    async def answers(message: str, kind: Any, params: Any, context: Any) -> Any:
        return ElicitResult(action=action, content={} if action == "accept" else None)

    with Guard(people.guard_key, spool_dir=tmp_path / "spool") as guard, Agent.from_credential(people.agent_key) as own:
        protect(server, guard, stdio=Tools(guard, own), suspends=True)
        async with Client(AtStdio(server), elicitation_handler=answers) as client:
            with pytest.raises(MCPError, match=heard):
                await client.call_tool(*PAY)
    assert paid == []


async def test_the_elicitation_handler_refuses_requests_other_than_waiting() -> None:
    context: Any = SimpleNamespace(request_id="name")
    with pytest.raises(Malformed, match="only requests to wait"):
        await waits(context)("", None, context, context)


def test_a_server_with_an_auth_or_tools_of_another_guard_is_refused(stage: FrameworkFixture, tmp_path: Path) -> None:
    server = server_of(stage)
    protect(server, stage.guard)
    with pytest.raises(Conflict, match="has an `auth`"):
        protect(server, stage.guard)
    other = Guard(stage.guard_key, spool_dir=tmp_path / "other")
    with pytest.raises(Conflict, match="another guard"):
        protect(server_of(stage), stage.guard, stdio=Tools(other))


def programs() -> tuple[str, str]:
    """Return the two programs of the page: over stdio, and over HTTP."""
    page = (ROOT / "docs/how-to/adapters/fastmcp.md").read_text("utf-8")
    over_stdio, over_http = re.findall(r"```python\n(# .*?)```", page, re.S)
    return over_stdio, over_http


@pytest.fixture
def folder(stage: FrameworkFixture, tmp_path: Path) -> Path:
    """Where the programs of the page find what they need."""
    shutil.copy(stage.guard_key, tmp_path / "tools.json")
    shutil.copy(stage.agent_key, tmp_path / "writer.json")
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/a").write_text("text of a file")
    return tmp_path


async def test_the_program_of_the_documentation_page_runs_over_stdio(stage: FrameworkFixture, folder: Path) -> None:
    (folder / "server.py").write_text(programs()[0])
    transport = StdioTransport(
        sys.executable,
        ["server.py"],
        cwd=str(folder),
        env=dict(os.environ),
        keep_alive=False,
        log_file=Path(os.devnull),
    )
    async with Client(transport) as client:
        assert (await client.call_tool("read_file", {"path": "srv/a"})).data == "text of a "
        with pytest.raises(MCPError, match="denied: "):
            await client.call_tool("write_file", {"path": "srv/a", "text": "other"})
    assert (folder / "srv/a").read_text() == "text of a file"


async def test_the_program_of_the_documentation_page_runs_over_http(stage: FrameworkFixture, folder: Path) -> None:
    sock, port = free_socket()
    sock.close()
    (folder / "server.py").write_text(programs()[1].replace("8001", str(port)))
    program = await asyncio.create_subprocess_exec(
        sys.executable, "server.py", cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert program.stderr is not None
        async for line in program.stderr:
            if b"running on" in line:
                break
        url = f"http://127.0.0.1:{port}/mcp"
        await eventually_async(lambda: httpx2.post(url).status_code == 401)  # the guard has reached the server
        transport = StreamableHttpTransport(url, auth=stage.agent.auth(stage.uri))
        assert await ask(transport, "read_file", {"path": "srv/a"}) == "text of a "
        assert "denied" in await ask(transport, "write_file", {"path": "srv/a", "text": "other"})
    finally:
        program.terminate()
        await program.communicate()


class PersonAtBrowser(webbrowser.BaseBrowser):
    """The browser of a person who agrees; it then opens the page of the client, as a redirect does."""

    def __init__(self, browser: PersonBrowser) -> None:
        super().__init__()
        self._browser = browser

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        threading.Thread(target=lambda: httpx2.get(self._browser.authorize(url), timeout=PATIENCE_S)).start()
        return True


def call_as_person(
    live_server: ServerFixture, folder: Path, monkeypatch: pytest.MonkeyPatch, auth: Any, *, registration: str
) -> str:
    """Call a guarded server with a client of FastMCP, for a person who consents; return the client id that the person
    sees.
    """
    server: FastMCP[Any] = FastMCP("files")

    @server.tool
    def read_file(path: str) -> str:
        return f"text of {path}"

    sock, port = free_socket()
    uri = f"http://127.0.0.1:{port}/mcp"
    resource, guard_key = live_server.resource(uri)
    live_server.api("PUT", f"/resources/{resource}/bearer/{registration}", {})
    with (
        Guard(guard_key, spool_dir=folder / "spool") as guard,
        PersonBrowser(live_server.server.url) as browser,
    ):
        protect(server, guard)
        eventually(lambda: guard.feed.current().exempt)
        person = live_server.owner()
        live_server.api("POST", "/roles", {"subject": person, "role": "viewer"})
        browser.set_up(live_server.api("POST", f"/persons/{person}/invite", {})["url"])
        webbrowser.register("person", None, PersonAtBrowser(browser), preferred=True)
        monkeypatch.setattr(webbrowser, "_tryorder", ["person"])

        async def call() -> str:
            async with Client(uri, auth=auth) as client:
                return str((await client.call_tool("read_file", {"path": "/a"})).data)

        with serving(server.http_app(), sock), pytest.warns(UserWarning, match="in-memory"):
            assert asyncio.run(call()) == "text of /a"
        [consent] = live_server.api("GET", "/consents", person=person)["consents"]
        return str(consent["client_id"])


def test_a_client_with_oauth_registers_itself_and_calls_after_the_consent_of_a_person(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call_as_person(live_server, tmp_path, monkeypatch, "oauth", registration="dynamic").startswith("cl_")


def test_a_client_with_oauth_is_known_by_the_url_of_its_metadata_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_clients(tmp_path) as site:
        url, settings = site.put_client("/fastmcp.json", client_name="FastMCP reader"), tmp_path / "ostiary.toml"
        settings.write_text(f"ca_file = {json.dumps(site.ca_file)}\n")
        with own_server(tmp_path, "--config", str(settings), command=(COMMAND,)) as live_server:
            auth = OAuth(client_metadata_url=url)
            assert call_as_person(live_server, tmp_path, monkeypatch, auth, registration="document") == url


def test_a_missing_scope_of_a_client_with_oauth_gets_the_challenge_of_mcp(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    server: FastMCP[Any] = FastMCP("files")

    @server.tool
    def write_file(path: str) -> str:
        return f"wrote {path}"

    sock, port = free_socket()
    uri, issuer = f"http://127.0.0.1:{port}/mcp", live_server.server.url
    resource, guard_key = live_server.resource(uri)
    live_server.api("PUT", f"/resources/{resource}/bearer/dynamic", {})
    with Guard(guard_key, spool_dir=tmp_path / "spool") as guard, PersonBrowser(issuer) as browser:
        protect(server, guard)
        eventually(lambda: guard.feed.current().exempt)
        person = live_server.owner()
        live_server.api("POST", "/roles", {"subject": person, "role": "viewer"})
        browser.set_up(live_server.api("POST", f"/persons/{person}/invite", {})["url"])
        token = public_token(issuer, browser, uri, f"{resource}:read")
        call = {"name": "write_file", "arguments": {"path": "/a"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
        with serving(server.http_app(stateless_http=True, json_response=True), sock):
            answer = httpx2.post(uri, json=body, headers=headers)
    assert answer.status_code == 403, answer.text
    bearer, dpop = answer.headers.get_list("www-authenticate")
    assert bearer.startswith('Bearer error="insufficient_scope", ')
    assert f'scope="{resource}:write"' in bearer
    assert f'resource_metadata="http://127.0.0.1:{port}/.well-known/oauth-protected-resource/mcp"' in bearer
    assert dpop.startswith('DPoP error="insufficient_scope", ')


def public_token(issuer: str, browser: PersonBrowser, resource: str, scope: str) -> str:
    """Register a client, and return its bearer token after the consent of the person."""
    callback, verifier = "http://127.0.0.1/callback", "v" * 48
    client = httpx2.post(f"{issuer}/register", json={"client_name": "App", "redirect_uris": [callback]}).json()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": client["client_id"],
        "redirect_uri": callback,
        "scope": scope,
        "resource": resource,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    arrived = browser.authorize(f"{issuer}/authorize?{urlencode(query)}")
    code = parse_qs(urlsplit(arrived).query)["code"][0]
    form = {"grant_type": "authorization_code", "client_id": client["client_id"], "redirect_uri": callback}
    answer = httpx2.post(f"{issuer}/token", data=form | {"code": code, "code_verifier": verifier, "resource": resource})
    return str(answer.json()["access_token"])

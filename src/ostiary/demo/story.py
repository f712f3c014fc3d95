"""The story that the demo tells. Each step is done for real; what is printed is what came back."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent
from rich.console import Console
from rich.markup import escape

from ostiary import ambient
from ostiary.agent import AsyncAgent
from ostiary.core.errors import Refused
from ostiary.demo.files_server import build

out = Console(highlight=False, soft_wrap=True)


async def tell(folder: Path, *, stay: bool) -> None:
    """1. A server. 2. Who exists. 3. A guarded MCP server. 4. Two agents. 5. A task. 6. Revoke. 7. The ledger."""
    stage = Stage(folder)
    async with AsyncExitStack() as stack:
        stack.callback(stage.stop)
        url = stage.start_server()
        await stage.register()
        stage.start_files()
        reader = await stack.enter_async_context(stage.client("reader"))
        writer = await stack.enter_async_context(stage.client("writer"))
        await _read_and_write(stage, reader, writer)
        await _work_on_a_task(stage)
        await _revoke_in_the_middle(stage, writer)
        _verify(stage)
        if stay:
            _invite(stage, url)
            await asyncio.Event().wait()


async def _read_and_write(stage: Stage, reader: Client, writer: Client) -> None:
    _chapter("4", "Two agents at work, through MCP clients, each with its own key")
    await attempt("writer", writer, "write_file", path="reports/q3.txt", text="Revenue is up 4 %.")
    await attempt("reader", reader, "read_file", path="reports/q3.txt")
    await attempt("reader", reader, "list_files")
    out.print("   Now the reader is talked into harm by something that it read:", style="dim")
    await attempt("reader", reader, "delete_file", path="reports/q3.txt")
    await attempt("writer", writer, "delete_file", path="reports/q3.txt")


async def _work_on_a_task(stage: Stage) -> None:
    _chapter("5", "A declared task: bounds on the arguments, and an end")
    bounds = stage.folder / "bounds.json"
    limits = {"path": {"prefix": "reports/"}, "text": {"max_length": 200}}
    detail = {"type": "tool", "locations": [stage.files_uri], "actions": ["write_file"], "arguments": limits}
    bounds.write_text(json.dumps([detail]))
    purpose = ("--purpose", "Write the report for October", "--bounds", str(bounds))
    task = stage.ostiary("task", "start", "--agent", "writer", *purpose)["task_id"]
    out.print(f"   {task} for the writer: write_file, path begins with `reports/`, at most 200 characters")
    async with stage.client("writer", task=task) as writer:
        await attempt("writer", writer, "write_file", path="reports/october.txt", text="October was calm.")
        await attempt("writer", writer, "write_file", path="notes/private.txt", text="Not what I was asked to do.")
        stage.ostiary("task", "end", task)
        out.print("   The task ends; what was given under it is dead the same moment.", style="dim")
        await attempt("writer", writer, "write_file", path="reports/november.txt", text="Too late.")


async def _revoke_in_the_middle(stage: Stage, writer: Client) -> None:
    _chapter("6", "Revoke the writer in the middle of its work")
    calls, last_allowed = 0, 0

    async def work() -> str:
        nonlocal calls, last_allowed
        while True:
            try:
                await call(writer, "write_file", path=f"reports/draft-{calls % 10}.txt", text="work, work")
            except MCPError as error:
                return str(error)
            calls, last_allowed = calls + 1, ambient.now()

    working = asyncio.create_task(work())
    await asyncio.sleep(1)
    before = calls
    done = await asyncio.to_thread(stage.ostiary, "revoke", "agent", "writer")
    reason = await working
    out.print(f"   {before} calls were allowed before")
    out.print(f"   ended with it: {escape(json.dumps(done['revoked']))}")
    for guard in done["guards"]:
        out.print(f"   guard of `{guard['guard']}` denied [bold]{guard['ms']:.1f} ms[/] after the commit")
    after = (last_allowed - done["committed_at"]) / 1000
    out.print(f"   the last allowed call was answered {after:+.1f} ms from the commit, of {calls} in all")
    out.print(f"   writer [red]denied[/] {escape(reason)}, and no new token:", await _why_no_token(stage, "writer"))


async def _why_no_token(stage: Stage, name: str) -> str:
    async with AsyncAgent.from_credential(stage.folder / f"{name}.json", url=stage.url) as agent:
        try:
            await agent.token(resource=stage.files_uri)
        except Refused as refusal:
            return f"{refusal.code}, {refusal.message}"
    raise SystemExit("a revoked agent got a token")


def _verify(stage: Stage) -> None:
    _chapter("7", "The ledger: every act, the refused ones too")
    export = stage.folder / "export"
    stage.ostiary("audit", "export", str(export))
    report = stage.ostiary("audit", "verify", str(export))
    out.print(f"   [green]verified[/] {report['size']} entries of {report['origin']}")
    copy = stage.folder / "falsified"
    shutil.copytree(export, copy)
    bundle = next(file for file in sorted((copy / "tile" / "entries").rglob("*")) if file.is_file())
    data = bytearray(bundle.read_bytes())
    data[data.index(b'"outcome":"deny"') + 12] ^= 1
    bundle.write_bytes(data)
    out.print("   One bit of a denial is flipped in a copy:", style="dim")
    report = stage.ostiary("audit", "verify", str(copy), expect=5)
    for finding in report["findings"]:
        out.print(f"   [red]{finding['kind']}[/] entry {finding['index']}: {escape(finding['message'])}")


def _invite(stage: Stage, url: str) -> None:
    _chapter("8", "Look around; Ctrl-C ends it all")
    data = f"--data-dir {stage.data}"
    out.print(f"   {url}/.well-known/oauth-authorization-server")
    for line in ("audit tail", "audit search --outcome deny", "agent list", "doctor"):
        out.print(f"   .venv/bin/ostiary {line} {data}", markup=False)


async def attempt(name: str, client: Client, tool: str, **arguments: Any) -> None:
    """Call a tool and say what came of it."""
    said = ", ".join(f"{value!r}" for value in arguments.values())
    try:
        answer = await call(client, tool, **arguments)
    except MCPError as error:
        out.print(f"   {name:6} {tool}({escape(said)}) [red]denied[/] {escape(str(error))}")
    else:
        out.print(f"   {name:6} {tool}({escape(said)}) [green]allowed[/] {escape(answer[:60])}")


async def call(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    return " ".join(part.text for part in result.content if isinstance(part, TextContent))


class Stage:
    """The processes of the demo and where their files are."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.sandbox = folder, folder / "data", folder / "sandbox"
        self.sandbox.mkdir()
        self.url = ""
        self._port = _free_port()
        self.files_uri = f"http://127.0.0.1:{self._port}/mcp"
        self._processes: list[subprocess.Popen[str]] = []

    def start_server(self) -> str:
        _chapter("1", "One process: the server")
        command = ("serve", "--data-dir", str(self.data), "--listen", "127.0.0.1:0")
        self.url = self._start(*_ostiary(*command)).removeprefix("ready ")
        out.print(f"   ready at {self.url}, data in {self.data}")
        return self.url

    async def register(self) -> None:
        _chapter("2", "Somebody who answers, two agents with keys of their own, one resource")
        self.ostiary("owner", "create", "ada", "--email", "ada@example.org")
        catalogue = self.folder / "catalogue.json"
        catalogue.write_text(json.dumps(await _catalogue(self.sandbox)))
        key = str(self.folder / "files.json")
        given = ("--uri", self.files_uri, "--catalogue", str(catalogue), "--generate-key", key)
        self.ostiary("resource", "create", "files", *given)
        for name, scopes in (("reader", ["files:read"]), ("writer", ["files:read", "files:write"])):
            asked = [part for scope in scopes for part in ("--scope", scope)]
            key = str(self.folder / f"{name}.json")
            who = ("--owner", "ada", "--purpose", f"{name} of reports", "--generate-key", key)
            agent = self.ostiary("agent", "create", name, *who, *asked)
            out.print(f"   {name:6} {agent['spiffe_id']}  may {' '.join(scopes)}")

    def start_files(self) -> None:
        _chapter("3", "A real MCP server behind a guard")
        spool, key = self.folder / "spool", self.folder / "files.json"
        arguments = (str(self.sandbox), str(self._port), str(key), self.url, str(spool))
        self._start(sys.executable, "-m", "ostiary.demo.files_server", *arguments)
        answer = httpx2.post(self.files_uri, json={})
        out.print(f"   {self.files_uri} answers a stranger {answer.status_code}: {answer.headers['www-authenticate']}")

    @asynccontextmanager
    async def client(self, name: str, *, task: str | None = None) -> AsyncIterator[Client]:
        """An MCP client that calls as that agent."""
        async with (
            AsyncAgent.from_credential(self.folder / f"{name}.json", url=self.url) as agent,
            httpx2.AsyncClient(auth=agent.auth(self.files_uri, task=task)) as http,
            Client(streamable_http_client(self.files_uri, http_client=http)) as client,
        ):
            yield client

    def ostiary(self, *arguments: str, expect: int = 0) -> Any:
        """Run a command as a person would; its JSON."""
        command = _ostiary(*arguments, "--json", "--data-dir", str(self.data))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != expect:
            raise SystemExit(f"ostiary {' '.join(arguments)} exited with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(10)

    def _start(self, *command: str) -> str:
        """Start a process and wait for its first line."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{' '.join(command)} did not start")
        return line


def _ostiary(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "ostiary.cli", *arguments)


async def _catalogue(sandbox: Path) -> dict[str, Any]:
    """What the MCP server itself says about its tools: the result of tools/list."""
    tools = await build(sandbox).list_tools()
    return {"tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _chapter(number: str, title: str) -> None:
    out.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]")

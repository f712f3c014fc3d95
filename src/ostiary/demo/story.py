"""The story that the demo tells. Each step is done for real; what is printed is what came back."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
from mcp import MCPError
from mcp.client.client import Client
from mcp_types import TextContent
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from ostiary import ambient
from ostiary.core.errors import Conflict, Refused
from ostiary.demo.files_server import build
from ostiary.demo.stage import Stage

out = Console(highlight=False)
WIDTH, INDENT = 79, 3
CALLS = 50
"""How many calls the writer has behind it when it is revoked."""


async def tell(folder: Path, *, stay: bool) -> None:
    """All chapters; with `stay`, the server is up until this is cancelled."""
    stage = Stage(folder)
    out.print(f"[bold]Ostiary[/] at work. All of this really happens, in {folder}.")
    async with AsyncExitStack() as stack:
        stack.callback(stage.stop)
        _start(stage)
        await _register(stage)
        _guard(stage)
        async with stage.client("reader") as reader, stage.client("writer") as writer:
            await _read_and_write(stage, reader, writer)
            await _work_on_a_task(stage)
            await _hand_on(stage)
            await _revoke_in_the_middle(stage, writer)
        _verify(stage)
        if stay:
            await _look_around(stage)


def _start(stage: Stage) -> None:
    _chapter(1, "One process: the server")
    _shell(stage, "serve", "--data-dir", str(stage.data), "--listen", "127.0.0.1:0")
    stage.start_server()
    _say(f"ready {stage.url}")


async def _register(stage: Stage) -> None:
    _chapter(2, "Somebody who answers, one tool server, four agents with keys of their own")
    _run(stage, "owner", "create", "ada", "--email", "ada@example.org")
    catalogue = stage.folder / "catalogue.json"
    tools = await build(stage.sandbox).list_tools()  # what the tool server says of itself
    listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
    catalogue.write_text(json.dumps({"tools": listed}))
    made = ("--uri", stage.files_uri, "--catalogue", str(catalogue), "--generate-key", str(stage.folder / "files.json"))
    _run(stage, "resource", "create", "files", *made)
    for name in ("reader", "writer", "editor", "helper"):
        scopes = "files:read" if name == "reader" else "files:read files:write"
        key = str(stage.folder / f"{name}.json")
        who = ("--owner", "ada", "--scope", scopes, "--purpose", f"{name} of reports", "--generate-key", key)
        agent = _run(stage, "agent", "create", name, *who)
        stage.names[agent["agent_id"]] = name
        _say(f"{agent['spiffe_id']} may {scopes}")


def _guard(stage: Stage) -> None:
    _chapter(3, "A real MCP server behind a guard")
    stage.start_files()
    answer = httpx2.post(stage.files_uri, json={}, timeout=60)
    _say(f"{stage.files_uri} answers a stranger: {answer.status_code} {answer.reason_phrase}")


async def _read_and_write(stage: Stage, reader: Client, writer: Client) -> None:
    _chapter(4, "Both at work, through MCP clients; every call is decided at the tool server")
    await _attempt(stage, "writer", writer, "write_file", path="reports/q3.txt", text="Revenue is up 4 %.")
    await _attempt(stage, "reader", reader, "read_file", path="reports/q3.txt")
    _note("Then the reader is talked into harm by something that it read.")
    await _attempt(stage, "reader", reader, "delete_file", path="reports/q3.txt")


async def _work_on_a_task(stage: Stage) -> None:
    _chapter(5, "A task: bounds on the very arguments, and an end")
    bounds = stage.folder / "bounds.json"
    bounds.write_text(json.dumps([_writing(stage, path={"prefix": "reports/"}, text={"max_length": 200})]))
    asked = ("--agent", "writer", "--bounds", str(bounds), "--purpose", "Report for October")
    task = _run(stage, "task", "start", *asked)["task_id"]
    _say("only write_file, only under reports/, at most 200 characters")
    async with stage.client("writer", task=task) as writer:
        await _attempt(stage, "writer", writer, "write_file", path="reports/october.txt", text="October was calm.")
        await _attempt(stage, "writer", writer, "write_file", path="notes/private.txt", text="Not what was asked.")
        _note("The task ends, and what was given under it is dead the same moment.")
        _run(stage, "task", "end", task)
        stage.names[task] = "for October"
        await _attempt(stage, "writer", writer, "write_file", path="reports/november.txt", text="Too late.")


async def _hand_on(stage: Stage) -> None:
    _chapter(6, "A third agent hands a part of its task on to a sub-agent")
    async with stage.agent("editor") as editor, stage.client("editor") as apart, AsyncExitStack() as stack:
        blocks = AsyncExitStack()  # never left: the tasks are revoked before their blocks would end them
        whole = await blocks.enter_async_context(
            editor.task("Report for 2026", bounds=[_writing(stage, path={"prefix": "reports/"})], budget=[_writes(5)])
        )
        narrower = {"bounds": [_writing(stage, path={"prefix": "reports/figures/"})], "budget": [_writes(2)]}
        part = await blocks.enter_async_context(whole.delegate("helper", "Its figures", **narrower))
        stage.names |= {whole.id: "for 2026", part.id: "for its figures"}
        _say("the helper gets nothing secret: it acts on its part with its own key, and")
        _say("may write twice; that comes out of the five times of the whole")
        helper = await stack.enter_async_context(stage.client("helper", task=part.id))
        await _attempt(stage, "helper", helper, "write_file", path="reports/figures/q3.txt", text="4 %")
        await _attempt(stage, "helper", helper, "write_file", path="reports/summary.txt", text="Not its part.")
        _note("What is denied costs nothing; what is allowed uses its two calls up.")
        await _attempt(stage, "helper", helper, "write_file", path="reports/figures/q2.txt", text="3 %")
        await _attempt(stage, "helper", helper, "write_file", path="reports/figures/q1.txt", text="1 %")
        [left] = _run(stage, "task", "show", whole.id)["budgets"]
        _say(f"the editor has {left['left']} of {left['limit']['limit']} left for itself")
        _draw(stage, "task", "tree", whole.id)
        _note("The whole is revoked: the part dies with it, and nothing else does.")
        _run(stage, "revoke", "task", whole.id)
        await _attempt(stage, "helper", helper, "write_file", path="reports/figures/q4.txt", text="Too late.")
        await _attempt(stage, "editor", apart, "write_file", path="notes/editor.txt", text="Other work.")
        other = await stack.enter_async_context(stage.client("helper"))
        await _attempt(stage, "helper", other, "write_file", path="notes/helper.txt", text="Other work.")


def _writing(stage: Stage, **arguments: dict[str, Any]) -> dict[str, Any]:
    """Bounds: `write_file` alone, with its arguments within those conditions."""
    return {"type": "tool", "locations": [stage.files_uri], "actions": ["write_file"], "arguments": arguments}


def _writes(limit: int) -> dict[str, Any]:
    """A budget: so many calls of `write_file`."""
    return {"kind": "calls", "limit": limit, "tools": ["files/write_file"]}


async def _revoke_in_the_middle(stage: Stage, writer: Client) -> None:
    _chapter(7, "The writer is revoked in the middle of its work")
    last_allowed, calls = 0, 0

    async def write() -> None:
        nonlocal last_allowed, calls
        await _call(writer, "write_file", path=f"reports/draft-{calls % 10}.txt", text="work, work")
        last_allowed, calls = ambient.now(), calls + 1

    async def work() -> Refused:
        while True:
            try:
                await write()
            except MCPError as error:
                return _refusal(error)

    while calls < CALLS:
        await write()
    _say(f"{calls} calls of it were allowed, and it goes on")
    async with asyncio.TaskGroup() as both:
        working = both.create_task(work())
        done = await asyncio.to_thread(_run, stage, "revoke", "agent", "writer")
    refusal = working.result()
    for guard in done["guards"]:
        _say(f"the guard of `{guard['guard']}` denied [bold]{guard['ms']:.1f} ms[/] after the commit")
    after = (last_allowed - done["committed_at"]) / 1000
    _say(f"the last of {calls} allowed calls was answered {abs(after):.1f} ms {'after' if after > 0 else 'before'} it")
    _say(f"writer [red]denied[/]: {escape(_named(stage, refusal.message))}")
    _say(f"nor does it get a new token: {await _why_no_token(stage, 'writer')}")


async def _why_no_token(stage: Stage, name: str) -> str:
    async with stage.agent(name) as agent:
        try:
            await agent.token(resource=stage.files_uri)
        except Refused as refusal:
            return escape(refusal.message)
    raise Conflict(f"the {name} got a token though it is revoked")


def _verify(stage: Stage) -> None:
    _chapter(8, "The ledger: every act is in it, the refused ones too")
    export, copy = stage.folder / "export", stage.folder / "falsified"
    _run(stage, "audit", "export", str(export))
    report = _run(stage, "audit", "verify", str(export))
    _say(f"[green]verified[/] {report['size']} entries of {report['origin']}")
    _note("In a copy, one bit of a denial is flipped.")
    shutil.copytree(export, copy)
    bundle = next(file for file in sorted((copy / "tile" / "entries").rglob("*")) if file.is_file())
    data = bytearray(bundle.read_bytes())
    data[data.index(b'"outcome":"deny"') + len('"outcome":"')] ^= 1
    bundle.write_bytes(data)
    for finding in _run(stage, "audit", "verify", str(copy), expect=5)["findings"]:
        _say(f"[red]falsified[/] entry {finding['index']} was {finding['kind']}: {finding['message']}")


async def _look_around(stage: Stage) -> None:
    _chapter(9, "The server is up: look around, then end it with Ctrl-C")
    ostiary = "ostiary" if shutil.which("ostiary") else sys.argv[0]
    commands = ("audit tail", "audit search --outcome deny", "agent show reader", "doctor", "--help")
    for line in (f"export OSTIARY_DATA_DIR={stage.data}", *(f"{ostiary} {command}" for command in commands)):
        out.print(f"{'':{INDENT}}{line}", markup=False, soft_wrap=True)  # to be copied
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None:
            task.uncancel()  # this is how it is meant to end
        out.print()


async def _attempt(stage: Stage, name: str, client: Client, tool: str, **arguments: str) -> None:
    """Call a tool and say what came of it."""
    what = f"{name}  {tool:11} {arguments['path']:22}"
    try:
        answer = await _call(client, tool, **arguments)
    except MCPError as error:
        refusal = _refusal(error)
        _say(f"{what} [red]denied[/]")
        _say(f"        {escape(_named(stage, refusal.message))}")
        if refusal.hint:
            _note(f"        {_named(stage, refusal.hint)}")
    else:
        _say(f"{what} [green]allowed[/]: {escape(answer)}")


async def _call(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    return " ".join(part.text for part in result.content if isinstance(part, TextContent))


def _refusal(error: MCPError) -> Refused:
    """What the guard says: the first of its reasons. Raises what is no denial."""
    data = error.data
    if not isinstance(data, dict) or "error" not in data:
        raise error
    said = {"message": error.message.removeprefix("denied: ").removesuffix(f" ({data['hint']})"), "hint": data["hint"]}
    first = next(iter(data.get("reasons", [])), said)
    return Refused(first["message"], hint=first.get("hint", ""), code=data["error"])


def _run(stage: Stage, *arguments: str, expect: int = 0) -> Any:
    """Show a command, and run it."""
    _shell(stage, *arguments)
    return stage.ostiary(*arguments, expect=expect)


def _draw(stage: Stage, *arguments: str) -> None:
    """Show a command, and what it shows to people."""
    _shell(stage, *arguments)
    for line in stage.seen(*arguments).splitlines():
        _say(escape(_cut(line)))


def _shell(stage: Stage, *arguments: str) -> None:
    _note(_cut(f"$ ostiary {shlex.join(arguments)}".replace(f"{stage.folder}/", "")))


def _cut(line: str) -> str:
    room = WIDTH - INDENT
    return line if len(line) <= room else line[: room - 2] + " …"


def _named(stage: Stage, text: str) -> str:
    """Names instead of ids."""
    for id, name in stage.names.items():
        text = text.replace(id, name)
    return text


def _chapter(number: int, title: str) -> None:
    out.print(f"\n[bold cyan]{number}[/]  [bold]{title}[/]")


def _say(line: str, *, style: str = "") -> None:
    """Wrapped within the indent."""
    out.print(Padding(line, (0, 0, 0, INDENT), expand=False), style=style)


def _note(line: str) -> None:
    _say(escape(line), style="dim")

"""How the demo tells: what is printed, and what of it is done while it is printed."""

from __future__ import annotations

import shlex
from typing import Any

from mcp import MCPError
from mcp.client.client import Client
from mcp_types import TextContent
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from ostiary.core.errors import Refused
from ostiary.demo.stage import Stage

out = Console(highlight=False)
WIDTH, INDENT = 79, 3


async def attempt(stage: Stage, name: str, client: Client, tool: str, **arguments: str) -> None:
    """Call a tool and say what came of it."""
    what = f"{name}  {tool:12} {arguments.get('path') or arguments['to']:22}"
    try:
        answer = await call(client, tool, **arguments)
    except MCPError as error:
        refusal = refusal_of(error)
        say(f"{what} [red]denied[/]")
        say(f"        {escape(named(stage, refusal.message))}")
        if refusal.hint:
            note(f"        {named(stage, refusal.hint)}")
    else:
        say(f"{what} [green]allowed[/]: {escape(answer.strip())}")


async def call(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    return " ".join(part.text for part in result.content if isinstance(part, TextContent))


def refusal_of(error: MCPError) -> Refused:
    """What the guard says: the first of its reasons. Raises what is no denial."""
    data = error.data
    if not isinstance(data, dict) or "error" not in data:
        raise error
    said = {"message": error.message.removeprefix("denied: ").removesuffix(f" ({data['hint']})"), "hint": data["hint"]}
    first = next(iter(data.get("reasons", [])), said)
    return Refused(first["message"], hint=first.get("hint", ""), code=data["error"])


def run(stage: Stage, *arguments: str, expect: int = 0) -> Any:
    """Show a command, and run it."""
    shell(stage, *arguments)
    return stage.ostiary(*arguments, expect=expect)


def draw(stage: Stage, *arguments: str) -> None:
    """Show a command, and what it shows to people."""
    shell(stage, *arguments)
    for line in stage.seen(*arguments).splitlines():
        say(escape(cut(line)))


def shell(stage: Stage, *arguments: str) -> None:
    line = f"$ ostiary {shlex.join(arguments)}".replace(f"{stage.folder}/", "")
    note(cut(line))


def cut(line: str) -> str:
    room = WIDTH - INDENT
    return line if len(line) <= room else line[: room - 2] + " …"


def named(stage: Stage, text: str) -> str:
    """Names instead of ids."""
    for id, name in stage.names.items():
        text = text.replace(id, name)
    return text


def chapter(number: int, title: str) -> None:
    out.print(f"\n[bold cyan]{number}[/]  [bold]{title}[/]")


def say(line: str, *, style: str = "") -> None:
    """Wrapped within the indent."""
    out.print(Padding(line, (0, 0, 0, INDENT), expand=False), style=style)


def note(line: str) -> None:
    say(escape(line), style="dim")

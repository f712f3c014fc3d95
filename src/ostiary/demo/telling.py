"""The commentary of the demo: its text, and the commands that run between its lines."""

from __future__ import annotations

import re
import shlex
import textwrap
from itertools import count
from typing import Any

from mcp import MCPError
from mcp.client.client import Client
from mcp_types import TextContent
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from ostiary.demo.stage import PATIENCE_S, Stage
from ostiary.guard.server_rpc import ASK_S
from ostiary.protocol.errors import Refused, Unavailable

out = Console(highlight=False)
INDENT = 3
_WORDS = re.compile(r"(?:--\S+ (?!--))?(?:'[^']*'|\S+)")
"""words of a command line; an option and its value are one word"""
_NUMBERS = count(1)
"""numbers of the chapters: one process tells one story"""


async def attempt(stage: Stage, name: str, client: Client, tool: str, **arguments: str) -> None:
    """Call a tool of the demo as a client, and print the result or the refusal."""
    call_text = f"{name}  {tool:12} {arguments.get('path') or arguments['to']:22}"
    sent = [f'"{arguments["text"]}"'] if "to" in arguments else []
    try:
        answer = (await call(client, tool, **arguments)).strip()
    except MCPError as error:
        refusal = refusal_of(error)
        say(f"{call_text} [red]denied[/]")
        below(*sent, add_names(stage, refusal.message))
        if refusal.hint:
            below(refusal.hint, style="dim")  # may be a command
    else:
        short = len(call_text) + len(answer) < count_columns() - len(" allowed: ")
        say(f"{call_text} [green]allowed[/]" + (f": {escape(answer)}" if short else ""))
        below(*sent, *([] if short else answer.splitlines()))


async def call(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool as a client of the demo; return the text of the tool's result. On a busy machine the server may be
    late with the memory of a task: the call is repeated if it has not run, or only reads. Raises Unavailable if the
    memory stays unavailable.
    """
    for _ in range(round(PATIENCE_S / ASK_S)):
        try:
            result = await client.call_tool(tool, arguments)
        except MCPError as error:
            is_late = isinstance(error.data, dict) and error.data.get("error") == "memory_unavailable"
            if not is_late or not (tool == "read_file" or error.message.startswith("denied: ")):
                raise
        else:
            return " ".join(part.text for part in result.content if isinstance(part, TextContent))
    raise Unavailable(f"the memory of the task was not available for {PATIENCE_S:.0f} s")


async def find_refusal(client: Client, tool: str, **arguments: Any) -> Refused | None:
    """Call a tool; return the refusal if the call is denied, or None if it is allowed."""
    try:
        await call(client, tool, **arguments)
    except MCPError as error:
        return refusal_of(error)
    return None


def refusal_of(error: MCPError) -> Refused:
    """Return the first reason of a guard's denial. Raises the error itself if it is not a denial."""
    data = error.data
    if not isinstance(data, dict) or "error" not in data:
        raise error
    reason = {
        "message": error.message.removeprefix("denied: ").removesuffix(f" ({data['hint']})"),
        "hint": data["hint"],
    }
    first = next(iter(data.get("reasons", [])), reason)
    return Refused(first["message"], hint=first.get("hint", ""), code=data["error"])


def run(stage: Stage, *arguments: str, expect: int = 0) -> Any:
    """Print a command, run it, and return its JSON."""
    shell(stage, *arguments)
    return stage.ostiary(*arguments, expect=expect)


def draw(stage: Stage, *arguments: str, wraps: bool = False) -> None:
    """Print a command and its output. With `wraps`, long lines are wrapped, otherwise cut."""
    shell(stage, *arguments)
    for line in stage.output_of(*arguments).splitlines():
        further = " " * (len(line) - len(line.lstrip()) + 8)
        wrapped = textwrap.wrap(line, count_columns(), subsequent_indent=further, break_on_hyphens=False)
        for part in wrapped if wraps else [cut(line)]:
            say(escape(part))


def shell(stage: Stage, *arguments: str) -> None:
    """Print a command line in full, so that a person can copy it; a long one continues on the next line."""
    lines = ["$ ostiary"]
    for words in _WORDS.findall(shlex.join(arguments).replace(f"{stage.folder}/", "")):
        if len(f"{lines[-1]} {words} \\") <= count_columns():
            lines[-1] += f" {words}"
        else:
            lines[-1] += " \\"
            lines.append(f"    {words}")
    for line in lines:
        out.print(f"{'':{INDENT}}{line}", style="dim", markup=False, soft_wrap=True)


def count_columns() -> int:
    """Return the number of columns of the terminal without the indent."""
    return out.width - 1 - INDENT


def cut(line: str) -> str:
    """Return a line, cut to the width of the terminal."""
    return line if len(line) <= count_columns() else line[: count_columns() - 2] + " …"


def add_names(stage: Stage, text: str) -> str:
    """Return the text with each known id followed by its name in parentheses."""
    for id, name in stage.names.items():
        text = text.replace(id, f"{id} ({name})")
    return text


def chapter(title: str) -> None:
    """Print the heading of a chapter with the next number."""
    out.print(f"\n[bold cyan]{next(_NUMBERS)}[/]  [bold]{title}[/]")


def say(line: str) -> None:
    """Print a line with markup, wrapped within the indent."""
    out.print(Padding(line, (0, 0, 0, INDENT), expand=False))


def below(*lines: str, style: str = "") -> None:
    """Print lines below the present step, with a deeper indent."""
    for line in lines:
        out.print(Padding(Text(line), (0, 0, 0, INDENT + 8), expand=False), style=style)


def note(line: str) -> None:
    """Print a dimmed line, wrapped within the indent."""
    out.print(Padding(Text(line), (0, 0, 0, INDENT), expand=False), style="dim")

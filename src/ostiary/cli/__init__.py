"""The command line. `--data-dir` and `--json` may stand anywhere; every other option belongs to its command."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import httpx2
from cyclopts import App, Parameter

from ostiary.cli import audit, doctor, policy, registry, respond, tasks
from ostiary.cli.session import Session, fail
from ostiary.core.errors import Refused, Unavailable

app = App(
    name="ostiary",
    help="The doorkeeper for AI agents: identity, task-scoped access, policy as code, a tamper-evident ledger.",
    version=lambda: version("ostiary"),
    result_action="return_value",
)


def _assemble() -> None:
    for module in (registry, tasks, policy, respond, audit, doctor):
        module.add_to(app)
    for entry in entry_points(group="ostiary.commands"):  # `serve` and `demo`, when the server is installed
        try:
            entry.load()(app)
        except ModuleNotFoundError as missing:
            if not (missing.name or "").startswith(("ostiaryd", "starlette", "uvicorn", "cedarpy")):
                raise
            app.command(_needs_server(entry.name), name=entry.name)


def _needs_server(name: str) -> Any:
    def command() -> None:
        """(needs the server: pip install "ostiary[server]")"""
        raise Unavailable(f"`ostiary {name}` needs the server", hint='pip install "ostiary[server]"')

    return command


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    data_dir: Annotated[Path | None, Parameter(help="Data folder of the server on this machine")] = None,
    json: Annotated[bool, Parameter(help="Print JSON", negative="")] = False,
) -> Any:
    command, bound, ignored = app.parse_args(tokens)
    extra = {"session": Session(data_dir, json)} if "session" in ignored else {}
    return command(*bound.args, **bound.kwargs, **extra)


def main() -> None:
    """The console script."""
    _assemble()
    try:
        sys.exit(app.meta() or 0)
    except Refused as refusal:
        fail(refusal)
    except httpx2.TransportError as error:
        fail(Unavailable(f"the server does not answer: {error}", hint="is it running? `ostiary serve --data-dir DIR`"))
    except BrokenPipeError:  # the reader of our output went away, as in `ostiary audit search | head`
        sys.stderr.close()
        sys.exit(0)

"""`ostiary kill`: stop agents or other things at every guard, until a person lifts the stop."""

from __future__ import annotations

import sys
from typing import Any, Literal, TypeAlias

from cyclopts import App
from rich.markup import escape

from ostiary.cli.exit_codes import FAILED
from ostiary.cli.names import Names
from ostiary.cli.output import out, table
from ostiary.cli.revoke import guards_after, print_guards
from ostiary.cli.session import Here, Word

kill = App(name="kill", help="Stop an agent, an owner, a model, .. and print when each guard denied.")
StopKind: TypeAlias = Literal["agent", "task", "owner", "resource", "segment", "model", "everything"]
COLUMNS = {
    "what": "KIND",
    "name": "NAME",
    "since_at": "SINCE",
    "by": "BY",
    "why": "REASON",
    "incident": "INCIDENT",
}


@kill.default
def start(kind: StopKind, name: Word = "", /, *, reason: str, session: Here) -> None:
    """Stop an agent, an owner, a model, .. and print when each guard denied.

    An agent is quarantined, and its incident waits for a person. Anything else stays stopped until `ostiary kill lift`.
    An agent that administers the server is stopped by name even if no person has a key to release the agent.
    `ostiary help stopping` compares all commands that stop.

    Args:
        kind: Kind of thing to stop.
        name: Name or id; `everything` has none.
        reason: Reason; it is recorded in the ledger.
    """
    done = session.api("POST", "/kill", {"what": kind, "name": name, "why": reason})
    done["guards"] = guards_after(session, done)
    session.show(done, lambda value: _print(kind, name, value))
    _end(done)


@kill.command(name="list")
def list_stops(*, session: Here) -> None:
    """List the stops in force."""
    session.show(session.pages("/kill", "stops"), lambda rows: _print_stops(rows, Names(session)))


@kill.command(name="lift")
def lift(kind: StopKind, name: Word = "", /, *, reason: str, session: Here) -> None:
    """Lift a stop that `ostiary kill` began. For an agent, use `ostiary incident release` instead.

    Args:
        kind: Kind of thing.
        name: Name or id of the thing, or its name in `ostiary kill list`; `everything` has none.
        reason: Reason; it is recorded in the ledger.
    """
    done = session.api("POST", "/kill/lift", {"what": kind, "name": name, "why": reason})
    done["guards"] = guards_after(session, done)
    session.show(done, lambda value: _print_lifted(kind, name, value))
    _end(done)


def _print_stops(stops: list[dict[str, Any]], names: Names) -> None:
    rows = [one | {"since_at": one["since"], "name": names(one["name"]), "by": names(one["by"] or "")} for one in stops]
    table(rows, COLUMNS, empty="no stop is in force")


def _print(kind: str, name: str, done: dict[str, Any]) -> None:
    state = "quarantined" if kind == "agent" else "stopped"
    out.print(f"[bold]{escape(f'{kind} {name}'.rstrip())} is {state}[/]")
    print_guards(done["guards"])
    if done["incident"] is not None:
        out.print(f"  incident {done['incident']} waits for a person", markup=False)
    out.print(f"undo: {done['undo']}", markup=False)


def _print_lifted(kind: str, name: str, done: dict[str, Any]) -> None:
    out.print(f"[bold]{escape(f'{kind} {name}'.rstrip())} is no longer stopped[/]")
    print_guards(done["guards"], does="allows it")


def _end(done: dict[str, Any]) -> None:
    if not all(guard["applied"] for guard in done["guards"]):
        sys.exit(FAILED)

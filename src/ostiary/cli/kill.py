"""`ostiary kill`: stop what is on fire, at every guard, until somebody lets go."""

from __future__ import annotations

import sys
from typing import Any, Literal, TypeAlias

from cyclopts import App
from rich.markup import escape

from ostiary.cli.names import Names
from ostiary.cli.paper import out, table
from ostiary.cli.revoke import guards_after, print_guards
from ostiary.cli.session import FAILED, Here, Word

kill = App(name="kill", help="Stop an agent, an owner, a model, .. at once, and time each guard.")
What: TypeAlias = Literal["agent", "task", "owner", "resource", "segment", "model", "everything"]
COLUMNS = {"what": "WHAT", "name": "NAME", "since_at": "SINCE", "by": "BY", "why": "WHY", "incident": "INCIDENT"}


@kill.default
def start(what: What, name: Word = "", /, *, reason: str, session: Here) -> None:
    """Stop an agent, an owner, a model, .. at once, and time each guard.

    An agent is quarantined, and its incident waits for a person; anything else stands still until it is lifted.

    Args:
        what: What kind of thing.
        name: Its name or id; everything has none.
        reason: Why; it goes on record.
    """
    done = session.api("POST", "/kill", {"what": what, "name": name, "why": reason})
    done["guards"] = guards_after(session, done)
    session.show(done, lambda value: _print(what, name, value))
    _end(done)


@kill.command(name="list")
def list_stops(*, session: Here) -> None:
    """List what is stopped."""
    session.show(session.pages("/kill", "stops"), lambda found: _print_stops(found, Names(session)))


@kill.command(name="lift")
def lift(what: What, name: Word = "", /, *, reason: str, session: Here) -> None:
    """Lift a stop: what has not ended meanwhile goes on. A person releases an agent: `ostiary incident release`.

    Args:
        what: What kind of thing.
        name: As `ostiary kill list` names it, or by name or id.
        reason: Why; it goes on record.
    """
    done = session.api("POST", "/kill/lift", {"what": what, "name": name, "why": reason})
    done["guards"] = guards_after(session, done)
    session.show(done, lambda value: _print_lifted(what, name, value))
    _end(done)


def _print_stops(found: list[dict[str, Any]], names: Names) -> None:
    rows = [one | {"since_at": one["since"], "name": names(one["name"]), "by": names(one["by"] or "")} for one in found]
    table(rows, COLUMNS, empty="nothing is stopped")


def _print(what: str, name: str, done: dict[str, Any]) -> None:
    out.print(f"[bold]{escape(f'{what} {name}'.rstrip())} is stopped[/]")
    print_guards(done["guards"])
    if done["incident"] is not None:
        out.print("  a person decides what becomes of it", markup=False)
    out.print(f"undo: {done['undo']}", markup=False)


def _print_lifted(what: str, name: str, done: dict[str, Any]) -> None:
    out.print(f"[bold]{escape(f'{what} {name}'.rstrip())} goes on[/]")
    print_guards(done["guards"], does="knows")


def _end(done: dict[str, Any]) -> None:
    if not all(guard["applied"] for guard in done["guards"]):
        sys.exit(FAILED)

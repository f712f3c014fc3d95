"""`ostiary elevation`: more than an agent has, for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.agents import words
from ostiary.cli.paper import facts, table
from ostiary.cli.session import PAGE, Here

elevation = App(name="elevation", help="More than an agent has, for a while: allow, request, list.")


@elevation.command(name="allow")
def allow(agent: str, /, *scope: str, undeclared: bool = False, session: Here) -> None:
    """Say what an agent may be elevated to, all of it; what is elevated to more ends at once.

    Args:
        agent: Name or id.
        scope: As RESOURCE:CLASS; none takes all away.
        undeclared: Accept scopes that no registered resource declares.
    """
    body = {"scopes": words(scope), "undeclared": undeclared}
    session.show(session.api("PUT", f"/agents/{agent}/eligible", body), facts)


@elevation.command(name="request")
def request(*scope: str, reason: str, as_: Path, minutes: int = 30, break_glass: bool = False, session: Here) -> None:
    """Ask as an agent for more than it has. Where a person is asked, ask the same again once there is an answer.

    Args:
        scope: One or more, as RESOURCE:CLASS.
        reason: What for; people read it, and it goes on record.
        as_: Credential of the agent.
        minutes: How long; it ends by itself.
        break_glass: In an emergency: two people are asked, whatever policies ask, and everybody hears of it.
    """
    session.act_as(as_)
    body: dict[str, Any] = {
        "scopes": words(scope), "reason": reason, "minutes": minutes, "break_glass": break_glass
    }  # fmt: skip
    session.show(session.api("POST", "/elevations", body), facts)


@elevation.command(name="list")
def list_elevations(*, limit: int = PAGE, as_: Path | None = None, session: Here) -> None:
    """List elevations, the newest first. `ostiary task end TASK` ends one before its time.

    Args:
        limit: How many at most.
        as_: Credential of an agent, which sees its own; the administrator's otherwise.
    """
    session.act_as(as_)
    columns = {
        "task_id": "TASK", "agent": "AGENT", "scopes": "SCOPES", "state": "STATE", "break_glass": "GLASS",
        "people": "BY", "expires_at": "UNTIL",
    }  # fmt: skip
    found = session.pages("/elevations", "elevations", limit=limit)
    session.show(found, lambda rows: table(rows, columns, empty="no elevations"))

"""`ostiary elevation`: additional access for a limited time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.agents import split_words
from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here

elevation = App(name="elevation", help="Allow, request and list additional access for a limited time.")


@elevation.command(name="allow")
def allow(agent: str, /, *scope: str, undeclared: bool = False, session: Here) -> None:
    """Set the additional scopes that an agent may request for a limited time. Elevations to other scopes end at once.

    Args:
        agent: Name or id.
        scope: All scopes, as RESOURCE:CLASS; none forbids elevation.
        undeclared: Accept scopes that no registered resource declares.
    """
    body = {"scopes": split_words(scope), "undeclared": undeclared}
    session.show(session.api("PUT", f"/agents/{agent}/eligible", body), facts)


@elevation.command(name="request")
def request(*scope: str, reason: str, as_: Path, minutes: int = 30, break_glass: bool = False, session: Here) -> None:
    """Request additional access as an agent. If a person must approve it first, repeat the command after the approval.

    Args:
        scope: One or more scopes, as RESOURCE:CLASS.
        reason: Reason; people read it, and it is recorded in the ledger.
        as_: Credential of the agent.
        minutes: Minutes until the elevation ends.
        break_glass: Emergency access: two people must approve, even if policies require fewer, and webhooks report it.
    """
    session.act_as(as_)
    body: dict[str, Any] = {
        "scopes": split_words(scope),
        "reason": reason,
        "minutes": minutes,
        "break_glass": break_glass,
    }
    session.show(session.api("POST", "/elevations", body), facts)


@elevation.command(name="list")
def list_elevations(*, limit: int = PAGE, as_: Path | None = None, session: Here) -> None:
    """List elevations, newest first. `ostiary task end TASK` ends an elevation early.

    Args:
        limit: Largest number of rows.
        as_: Credential of an agent, which sees its own elevations; by default, the administrator's.
    """
    session.act_as(as_)
    columns = {
        "task_id": "TASK",
        "agent": "AGENT",
        "scopes": "SCOPES",
        "state": "STATE",
        "break_glass": "EMERGENCY",
        "people": "BY",
        "expires_at": "UNTIL",
    }
    rows = session.pages("/elevations", "elevations", limit=limit)
    session.show(rows, lambda rows: table(rows, columns, empty="no elevations: ostiary elevation allow --help"))

"""`ostiary clock`: the server's time, and what an operator says to a jump of its wall clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.paper import facts, moment
from ostiary.cli.session import Here

clock = App(name="clock", help="Show the server's time; confirm it after a jump of its wall clock.")


@clock.command(name="show")
def show(*, as_: Path | None = None, session: Here) -> None:
    """Show the server's time beside its wall clock, and whether the server grants.

    Args:
        as_: Credential of a person; the administrator's otherwise.
    """
    session.act_as(as_)
    session.show(session.api("GET", "/clock"), _print)


@clock.command(name="accept")
def accept(*, as_: Path | None = None, session: Here) -> None:
    """Confirm that the server's wall clock is right, after it jumped.

    After a jump forward the server's time follows at once, and what has expired by then is expired for good. After a
    jump back the server's time stands still until the wall clock is level. Look at the wall clock before.

    Args:
        as_: Credential of the person who confirms; the administrator's otherwise.
    """
    session.act_as(as_)
    seen = session.api("GET", "/clock")
    session.show(session.api("POST", "/clock/accept", {"wall": seen["wall"]}), _print)


def _print(value: Mapping[str, Any]) -> None:
    facts(
        {
            "state": value["state"],
            "time": f"{moment(value['time'])}Z",
            "wall clock": f"{moment(value['wall'])}Z, {value['difference_s']:+.1f} s",
            "grants": "yes" if value["is_granting"] else "no, until the time is confirmed or back",
        }
    )

"""`ostiary clock`: the server's time, and its confirmation after a jump of the wall clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment
from ostiary.cli.session import Here

clock = App(name="clock", help="Show the server's time, and confirm it after a clock jump.")


@clock.command(name="show")
def show(*, as_: Path | None = None, session: Here) -> None:
    """Show the server's time, its wall clock, and whether the server grants access.

    Args:
        as_: Credential of a person; by default, the administrator's.
    """
    session.act_as(as_)
    session.show(session.api("GET", "/clock"), _print)


@clock.command(name="accept")
def accept(*, as_: Path | None = None, session: Here) -> None:
    """Confirm that the server's wall clock is right, after a jump. Check the wall clock first.

    After a jump forward, the server's time jumps to the wall clock, and everything that has expired by then stays
    expired. After a jump back, the server's time runs at half speed until the wall clock has caught up.

    Args:
        as_: Credential of the person who confirms; by default, the administrator's.
    """
    session.act_as(as_)
    shown = session.api("GET", "/clock")
    session.show(session.api("POST", "/clock/accept", {"wall": shown["wall"]}), _print)


def _print(value: Mapping[str, Any]) -> None:
    facts(
        {
            "state": value["state"],
            "time": f"{moment(value['time'])}Z",
            "wall clock": f"{moment(value['wall'])}Z, {value['difference_s']:+.1f} s",
            "grants": "yes" if value["is_granting"] else "no, until the time is confirmed or correct again",
        }
    )

"""`ostiary feed`: the connected guards."""

from __future__ import annotations

from cyclopts import App

from ostiary.cli.output import table
from ostiary.cli.session import Here

feed = App(name="feed", help="List the connected guards.")


@feed.command(name="list")
def list_guards(*, session: Here) -> None:
    """List the connected guards. `ostiary doctor` measures after how many milliseconds a change is in force at them."""
    columns = {"guard": "GUARD", "since_at": "SINCE", "applied": "UP TO DATE", "seq": "SEQ", "resource_id": "ID"}
    rows = session.pages("/feeds", "guards")
    session.show(
        rows,
        lambda rows: table(
            [{**row, "since_at": row["since"]} for row in rows],
            columns,
            empty="no guard is connected: ostiary protect --help",
        ),
    )

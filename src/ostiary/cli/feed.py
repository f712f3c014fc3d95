"""`ostiary feed`: the guards that are connected."""

from __future__ import annotations

from cyclopts import App

from ostiary.cli.paper import table
from ostiary.cli.session import Here

feed = App(name="feed", help="The guards that are connected, and what they have heard.")


@feed.command(name="list")
def list_guards(*, session: Here) -> None:
    """List the connected guards. `ostiary doctor` measures how far they lag."""
    columns = {"guard": "GUARD", "since_at": "SINCE", "applied": "UP TO DATE", "seq": "SEQ", "resource_id": "ID"}
    found = session.pages("/feeds", "guards")
    session.show(
        found,
        lambda rows: table([{**row, "since_at": row["since"]} for row in rows], columns, empty="no guard is connected"),
    )

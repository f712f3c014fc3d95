"""`ostiary threats`: lists of what others know to be evil, which guards look for before each call."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from ostiary.cli.files import read_text
from ostiary.cli.paper import facts, table
from ostiary.cli.session import Here

threats = App(name="threats", help="Threat lists: hosts and indicators checked before each call.")


@threats.command(name="add")
def add(
    name: str,
    /,
    url: str = "",
    *,
    file: Path | None = None,
    form: Literal["stix", "plain"] = "plain",
    points: int = 60,
    session: Here,
) -> None:
    """Add a list; by a URL it is fetched once an hour.

    Args:
        name: What findings call it.
        url: https://HOST/PATH, of a public address.
        file: Hand it in once instead.
        form: A bundle of STIX 2.1, or a value on each line (a file of hosts too).
        points: How far who names something on it is doubted, 1 to 100.
    """
    text = "" if file is None else read_text(file)
    body = {"name": name, "url": url, "text": text, "form": form, "points": points}
    session.show(session.api("POST", "/threat-lists", body), facts)


@threats.command(name="list")
def list_threats(*, session: Here) -> None:
    """List threat lists, how much is on each and what went wrong."""
    columns = {
        "name": "NAME", "form": "FORM", "count": "NAMES", "skipped": "SKIPPED", "points": "POINTS", "url": "URL",
        "refreshed_at": "FETCHED", "failed": "FAILED",
    }  # fmt: skip
    found = session.pages("/threat-lists", "lists")
    session.show(found, lambda rows: table(rows, columns, empty="no threat list: ostiary threats add NAME URL"))


@threats.command(name="remove")
def remove(name: str, /, *, session: Here) -> None:
    """Remove a list; its entries are not checked any more.

    Args:
        name: As `ostiary threats list` shows it.
    """
    session.show(session.api("DELETE", f"/threat-lists/{name}"), lambda _: None)

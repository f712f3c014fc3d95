"""`ostiary threats`: lists of hosts and indicators that guards check before each call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, TypeAlias

from cyclopts import App

from ostiary.cli.exit_codes import FAILED
from ostiary.cli.files import read_text
from ostiary.cli.output import facts, table
from ostiary.cli.session import Here

Form: TypeAlias = Literal["stix", "plain"]

threats = App(name="threats", help="Add, list and remove threat lists, checked before each call.")


@threats.command(name="add")
def add(
    name: str,
    /,
    url: str = "",
    *,
    file: Path | None = None,
    form: Form = "plain",
    points: int = 60,
    session: Here,
) -> None:
    """Add a threat list. A list with a URL is fetched once an hour.

    Args:
        name: Name of the list, as findings show it.
        url: https://HOST/PATH at a public address.
        file: Upload this file once, instead of a URL.
        form: `stix`, a STIX 2.1 bundle; or `plain`, one value on each line, such as a hosts file.
        points: Points that a match adds to the risk score, 1 to 100.
    """
    text = "" if file is None else read_text(file)
    body = {"name": name, "url": url, "text": text, "form": form, "points": points}
    session.show(session.api("POST", "/threat-lists", body), facts)


@threats.command(name="list")
def list_threats(*, session: Here) -> None:
    """List threat lists with their number of values and their last error."""
    columns = {
        "name": "NAME",
        "form": "FORM",
        "count": "VALUES",
        "skipped": "SKIPPED",
        "points": "POINTS",
        "url": "URL",
        "refreshed_at": "FETCHED",
        "failed": "ERROR",
    }
    rows = session.pages("/threat-lists", "lists")
    session.show(rows, lambda rows: table(rows, columns, empty="no threat list: ostiary threats add NAME URL"))


@threats.command(name="test")
def try_threats(name: str, /, *, session: Here) -> None:
    """Fetch a threat list now, and show what would change. The stored list stays as it is.

    Args:
        name: Name from `ostiary threats list`.
    """
    tested = session.api("POST", f"/threat-lists/{name}/test")
    session.show(tested, lambda row: facts({("error" if key == "failed" else key): row[key] for key in row}))
    if tested["failed"]:
        sys.exit(FAILED)


@threats.command(name="remove")
def remove(name: str, /, *, session: Here) -> None:
    """Remove a threat list. Guards stop checking its values.

    Args:
        name: Name from `ostiary threats list`.
    """
    session.show(session.api("DELETE", f"/threat-lists/{name}"), lambda _: None)

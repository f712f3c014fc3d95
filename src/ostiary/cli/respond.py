"""`ostiary revoke`: one act ends everything derived; the stopwatch says when each guard denied it."""

from __future__ import annotations

import sys
from typing import Any, Literal

from cyclopts import App
from rich.markup import escape

from ostiary.cli.registry import Hidden
from ostiary.cli.session import FAILED, out

revoke = App(name="revoke", help="End an agent's access, a task, a token, a key, or all that an owner answers for.")
WAIT_MS = 5000
Kind = Literal["agent", "task", "token", "key", "owner"]


def add_to(app: App) -> None:
    app.command(revoke)


@revoke.default
def revoke_(kind: Kind, id: str, *, session: Hidden) -> None:
    """Revoke, then wait until every connected guard has said that it denies; exits with 5 if one has not.

    Parameters
    ----------
    kind: agent, task, token, key or owner.
    id: Name or id of it; for a token its `jti`, for a key its thumbprint.
    """
    done = session.api("POST", "/revoke", {"kind": kind, "id": id})
    query = {"seq": done["seq"], "since": done["committed_at"], "wait_ms": WAIT_MS}
    done["guards"] = session.api("GET", "/feeds", query=query)["guards"]
    session.show(done, lambda value: _print(kind, id, value))
    if not all(guard["applied"] for guard in done["guards"]):
        sys.exit(FAILED)


def _print(kind: Kind, id: str, done: dict[str, Any]) -> None:
    out.print(f"[bold]{kind} {escape(id)} is revoked[/]")
    for name, count in done["revoked"].items():
        out.print(f"  {count} {name} ended")
    if not done["guards"]:
        out.print("  no guard is connected", style="dim")
    for guard in done["guards"]:
        if guard["applied"]:
            out.print(f"  the guard of `{escape(guard['guard'])}` denies, {guard['ms']:.1f} ms after the commit")
        else:
            out.print(
                f"  [red]the guard of `{escape(guard['guard'])}` has not answered[/]; it denies once its feed is old"
            )

"""`ostiary revoke`: one act ends everything derived; the stopwatch says when each guard denied it."""

from __future__ import annotations

from typing import Any, Literal

from cyclopts import App

from ostiary.cli.registry import Hidden
from ostiary.cli.session import facts, out, table

revoke = App(name="revoke", help="End an agent's access, a task, a token, a key, or all that an owner answers for.")
Kind = Literal["agent", "task", "token", "key", "owner"]


def add_to(app: App) -> None:
    app.command(revoke)


@revoke.default
def revoke_(kind: Kind, id: str, *, session: Hidden) -> None:
    """Revoke, then wait until every connected guard has said that it denies.

    Parameters
    ----------
    kind: agent, task, token, key or owner.
    id: Name or id of it; for a token its `jti`, for a key its thumbprint.
    """
    done = session.api("POST", "/revoke", {"kind": kind, "id": id})

    def render(value: dict[str, Any]) -> None:
        facts({"revoked": f"{kind} {id}", **{f"{name} ended": count for name, count in value["revoked"].items()}})
        table(value["guards"], {"guard": "GUARD", "applied": "DENIES", "ms": "AFTER ms"}, empty="no guard is connected")
        out.print(f"committed in {value['commit_ms']} ms")

    session.show(done, render)

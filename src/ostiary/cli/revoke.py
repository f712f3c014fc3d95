"""`ostiary revoke`: one act ends everything derived; the stopwatch says when each guard denied it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.markup import escape

from ostiary.cli.paper import out
from ostiary.cli.session import FAILED, Here, Session, Word

WAIT_MS = 5000
FINAL = {
    "agent": "a decommissioned agent never acts again",
    "task": "an ended task cannot be resumed; start another: ostiary task start",
    "token": "its agent can get another token; to stop the agent: ostiary revoke agent NAME",
    "key": "a revoked key never comes back; add another: ostiary key add AGENT",
    "owner": "its agents go on under their deputies; see ostiary agent list",
}
"""What is said where nothing undoes a revocation."""


def revoke(kind: Literal["agent", "task", "token", "key", "owner"], id: Word, /, *, session: Here) -> None:
    """End access with all that came of it, and time each guard.

    Args:
        kind: What is revoked; an owner leaves with everything that the owner answers for.
        id: Name or id; of a token its `jti`, of a key its thumbprint.
    """
    done = session.api("POST", "/revoke", {"kind": kind, "id": id})
    done["guards"] = guards_after(session, done)
    session.show(done, lambda value: _print(kind, id, value))
    if not all(guard["applied"] for guard in done["guards"]):
        sys.exit(FAILED)


def _print(kind: str, id: str, done: dict[str, Any]) -> None:
    is_now = f": it is {done['state']} now" if kind == "agent" else ""
    out.print(f"[bold]{kind} {escape(id)} is revoked[/]{is_now}")
    for name, count in done["revoked"].items():
        out.print(f"  {count} {name}{'' if count == 1 else 's'} ended")
    print_guards(done["guards"])
    out.print(f"undo: {done['undo']}" if done["undo"] else FINAL[kind], style="dim", markup=False)
    if kind == "owner":
        out.print("agents that are suspended with their owner stay so: ostiary agent resume NAME", style="dim")


def guards_after(session: Session, done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each guard says to an act that was committed: whether it has applied it, and after how many milliseconds."""
    query = {"seq": done["seq"], "since": done["committed_at"], "wait_ms": WAIT_MS}
    return session.pages("/feeds", "guards", query=query)


def print_guards(guards: Sequence[Mapping[str, Any]], *, does: str = "denies") -> None:
    if not guards:
        out.print("  no guard is connected", style="dim")
    for guard in guards:
        if guard["applied"]:
            out.print(f"  the guard of `{escape(guard['guard'])}` {does}, {guard['ms']:.1f} ms after the commit")
        else:
            name = escape(guard["guard"])
            out.print(f"  [red]the guard of `{name}` has not answered[/]; it denies once its feed is old")

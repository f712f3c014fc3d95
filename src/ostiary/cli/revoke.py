"""`ostiary revoke`: end access with everything derived from it, and measure when each guard denied the access."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.markup import escape

from ostiary.cli.exit_codes import FAILED
from ostiary.cli.output import out
from ostiary.cli.session import Here, Session, Word

WAIT_MS = 5000
STATES = {"agent": "is {state}", "task": "is cancelled", "owner": "has left"}
"""The state that the command prints after a revocation, by kind of object; for any other kind, `revoked`."""
FINAL = {
    "agent": "a decommissioned agent cannot be resumed",
    "task": "an ended task cannot be resumed; start another: ostiary task start",
    "token": "the agent can get another token; to stop the agent: ostiary revoke agent NAME",
    "key": "a revoked key cannot be used again; add another: ostiary key add AGENT",
    "owner": "the owner's agents continue under their deputies; see ostiary agent list",
}
"""The text that is printed after a revocation, by kind of object: that it cannot be undone, and the next step."""


def revoke(kind: Literal["agent", "task", "token", "key", "owner"], id: Word, /, *, session: Here) -> None:
    """Revoke access with everything derived from it, and print when each guard denied it.

    An agent is suspended. `ostiary help stopping` compares all commands that stop.

    Args:
        kind: Kind of thing to revoke. An owner counts as having left: the owner's agents pass to their deputies, or are
            suspended.
        id: Name or id of an agent, a task or an owner; `jti` of a token; thumbprint of a key.
    """
    done = session.api("POST", "/revoke", {"kind": kind, "id": id})
    done["guards"] = guards_after(session, done)
    session.show(done, lambda value: _print(kind, id, value))
    if not all(guard["applied"] for guard in done["guards"]):
        sys.exit(FAILED)


def _print(kind: str, id: str, done: dict[str, Any]) -> None:
    state = STATES.get(kind, "is revoked").format(state=done["state"])
    out.print(f"[bold]{kind} {escape(id)} {state}[/]")
    for name, count in done["revoked"].items():
        out.print(f"  {count} {name}{'' if count == 1 else 's'} revoked")
    print_guards(done["guards"])
    out.print(f"undo: {done['undo']}" if done["undo"] else FINAL[kind], style="dim", markup=False)
    if kind == "owner":
        out.print("agents that were suspended with their owner: ostiary agent resume NAME", style="dim")


def guards_after(session: Session, done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each connected guard: whether the committed act `done` is in force there (`applied`), and how
    many milliseconds after the commit (`ms`). Waits at most WAIT_MS for the guards.
    """
    query = {"seq": done["seq"], "since": done["committed_at"], "wait_ms": WAIT_MS}
    return session.pages("/feeds", "guards", query=query)


def print_guards(guards: Sequence[Mapping[str, Any]], *, does: str = "denies") -> None:
    """Print for each guard how many milliseconds after the commit the act was in force there; `does`: the verb for the
    effect, such as `denies`.
    """
    if not guards:
        out.print("  no guard is connected", style="dim")
    for guard in guards:
        if guard["applied"]:
            out.print(f"  the guard of `{escape(guard['guard'])}` {does}, {guard['ms']:.1f} ms after the commit")
        else:
            name = escape(guard["guard"])
            out.print(f"  [red]the guard of `{name}` has not answered[/]; it denies when its feed is stale")

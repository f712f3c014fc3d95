"""`ostiary doctor`: experiments, performed now, outside and inside of the server. Exits with 5 when a line is red."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2
from cyclopts import App
from rich.markup import escape

from ostiary import ambient
from ostiary.cli.registry import Hidden
from ostiary.cli.session import FAILED, Session, out
from ostiary.core.errors import Conflict, Refused

MAX_SKEW_S = 5
_COLOURS = {"ok": "green", "weak": "yellow", "fail": "red"}


def add_to(app: App) -> None:
    app.command(doctor)


def doctor(*, session: Hidden) -> None:
    """Prove that the server fails closed, keeps time, signs, records and verifies; name what is not protected."""
    lines = [_perform(name, experiment, session) for name, experiment in EXPERIMENTS]
    if not any(line["state"] == "fail" for line in lines[:2]):
        lines += _inside(session)
    session.show(lines, _print)
    if any(line["state"] == "fail" for line in lines):
        sys.exit(FAILED)


def _print(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        colour = _COLOURS[line["state"]]
        out.print(f"[{colour}]{line['state']:4}[/] [bold]{line['name']:20}[/] {escape(line['saw'])}")
        if line["hint"]:
            out.print(f"{'':26}[dim]{escape(line['hint'])}[/]")


def _perform(name: str, experiment: Callable[[Session], str], session: Session) -> dict[str, Any]:
    started = time.perf_counter()
    state, hint = "ok", ""
    try:
        saw = experiment(session)
    except Refused as refusal:
        state, saw, hint = "fail", refusal.message, refusal.hint
    except httpx2.TransportError as error:
        state, saw, hint = "fail", f"no answer: {error}", "is it running? ostiary serve --data-dir DIR"
    ms = round((time.perf_counter() - started) * 1000, 2)
    return {"name": name, "state": state, "saw": saw, "hint": hint, "ms": ms}


def _answers(session: Session) -> str:
    metadata = httpx2.get(f"{session.url}/.well-known/oauth-authorization-server").json()
    return f"{session.url} answers as the issuer {metadata['issuer']}"


def _credential(session: Session) -> str:
    path = session.credential
    if not path.exists():
        raise Conflict(f"{path} is not there", hint="set OSTIARY_CREDENTIAL to where it is")
    if path.stat().st_mode & 0o077:
        raise Conflict(f"{path} can be read by others", hint=f"chmod 600 {path}")
    return f"{path} is for you alone"


def _strangers(session: Session) -> str:
    """Without a token, and with one that is none."""
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "DPoP nonsense"}):
        status = httpx2.get(f"{session.url}/api/v1/agents", headers=headers).status_code
        if status != 401:
            raise Conflict(f"a stranger was answered {status}", hint="this must not happen: take the server down")
    return "a stranger is refused, with no token and with a false one"


def _stolen(session: Session) -> str:
    """A real token, without the key that it is bound to."""
    with session.agent() as agent:
        token = agent.token(resource=f"{agent.issuer}/api/v1")["access_token"]
    status = httpx2.get(f"{session.url}/api/v1/agents", headers={"Authorization": f"Bearer {token}"}).status_code
    if status != 401:
        raise Conflict(f"a stolen token was answered {status}", hint="this must not happen: take the server down")
    return "a token without its key is refused"


def _inside(session: Session) -> list[dict[str, Any]]:
    try:
        visit = session.api("GET", "/doctor")
    except Refused as refusal:
        return [{"name": "inside", "state": "fail", "saw": refusal.message, "hint": refusal.hint, "ms": 0.0}]
    skew = (visit["now"] - ambient.now()) / 1e6
    clock: dict[str, Any] = {"name": "clock", "state": "ok", "saw": f"{skew:+.3f} s from here", "hint": "", "ms": 0.0}
    if abs(skew) > MAX_SKEW_S:
        clock |= {"state": "fail", "hint": "guards and clients will refuse: set the clocks by NTP"}
    lines: list[dict[str, Any]] = [clock, *visit["lines"]]
    return lines


EXPERIMENTS: tuple[tuple[str, Callable[[Session], str]], ...] = (
    ("server", _answers),
    ("credential", _credential),
    ("strangers", _strangers),
    ("stolen token", _stolen),
)

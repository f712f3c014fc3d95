"""`ostiary doctor`: experiments that check the server as a client and from inside. Exits with 5 if an
experiment fails.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from rich.text import Text

from ostiary import ambient
from ostiary.agent import Agent
from ostiary.cli.exit_codes import FAILED, UNREACHABLE
from ostiary.cli.files import read_bytes
from ostiary.cli.output import hang, out
from ostiary.cli.session import Here, Session, decoded
from ostiary.keys import parse_credential
from ostiary.protocol.errors import Conflict, Refused
from ostiary.run.egress import NOT_HIDDEN

MAX_SKEW_S = 5
NOBODY = {
    "subject": {"type": "Nobody", "id": "nobody"},
    "action": {"name": "do_anything"},
    "resource": {"type": "Nothing", "id": "nothing"},
}
_COLOURS = {"ok": "green", "weak": "yellow", "fail": "red"}
_ALARM = "this must not happen: take the server down"

Line = dict[str, Any]


def doctor(*, deep: bool = False, session: Here) -> None:
    """Check by experiments that the server works correctly.

    Exits with 5 if an experiment fails.

    Args:
        deep: Compare every database row that decisions or the search of the ledger use with the whole ledger, and check
            every page of the database.
    """
    lines = examine(session, deep=deep)
    session.show(lines, _print)
    if lines[0]["state"] == "fail":
        sys.exit(UNREACHABLE)
    if any(line["state"] == "fail" for line in lines):
        sys.exit(FAILED)


def examine(session: Session, *, now: Callable[[], int] = ambient.now, deep: bool = False) -> list[Line]:
    """Run each experiment, and return a row for each: name, state (ok, weak, fail), observation (`saw`), hint,
    milliseconds. If the server does not answer, return only the first row.
    """
    url = session.url
    lines = [_perform("server", lambda: _answers(session))]
    if lines[0]["state"] == "fail":
        return lines
    lines.append(_perform("clock", lambda: _clock(url, now)))
    lines.append(_perform("credential", lambda: _credential(session)))
    session.agent = Agent(parse_credential(read_bytes(session.credential), of=session.credential), url=url)
    lines.append(_perform("strangers", lambda: _strangers(url)))
    lines.append(_perform("stolen token", lambda: _stolen(session)))
    lines.append(_perform("replayed proof", lambda: _replayed(session)))
    lines.append(_perform("default deny", lambda: _default_deny(session)))
    lines.append(_separation())
    return lines + _inside(session, deep=deep)


def _perform(name: str, experiment: Callable[[], str]) -> Line:
    started = time.perf_counter()
    state, hint = "ok", ""
    try:
        saw = experiment()
    except Refused as refusal:
        state, saw, hint = "fail", refusal.message, refusal.hint
    except httpx2.HTTPError as error:
        state, saw, hint = "fail", f"no answer: {error}", "check that the server runs: ostiary serve --data-dir DIR"
    ms = round((time.perf_counter() - started) * 1000, 2)
    return {"name": name, "state": state, "saw": saw, "hint": hint, "ms": ms}


def _answers(session: Session) -> str:
    metadata = decoded(httpx2.get(f"{session.url}/.well-known/oauth-authorization-server"))
    if not isinstance(metadata, dict) or "issuer" not in metadata:
        raise Conflict(f"{session.url} names no issuer", hint="check the URL of the server")
    return f"{session.url} answers as the issuer {metadata['issuer']}"


def _clock(url: str, now: Callable[[], int]) -> str:
    """Return how far the server's clock is from the clock of this machine, by the `Date` header of an answer. Raises
    Conflict if the difference is too large. `Date` counts whole seconds, so the result is exact to about a second.
    """
    before = now()
    try:
        date = parsedate_to_datetime(httpx2.get(f"{url}/jwks").headers.get("date", "")).timestamp()
    except ValueError:
        raise Conflict(
            "the server's answers have no `Date` header",
            hint="check whether a proxy in front of the server removes the header",
        ) from None
    skew = date + 1 - (before + now()) / 2e6
    if abs(skew) > MAX_SKEW_S:
        raise Conflict(
            f"the server's clock differs from this machine's clock by {skew:+.1f} s",
            hint="guards and clients refuse tokens of such a server: set both clocks by NTP",
        )
    return f"the server's clock is within {abs(skew) + 1:.1f} s of this machine's"


def _credential(session: Session) -> str:
    path = session.credential
    if path.stat().st_mode & 0o077:
        raise Conflict(f"{path} is open to other users", hint=f"chmod 600 {path}")
    return f"only its owner can read {path}"


def _strangers(url: str) -> str:
    """Check that the server refuses requests without a token and with a malformed token. Raises Conflict if it does
    not.
    """
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "DPoP nonsense"}):
        status = httpx2.get(f"{url}/api/v1/agents", headers=headers).status_code
        if status != 401:
            raise Conflict(f"a request without a valid token was answered with status {status}", hint=_ALARM)
    return "requests without a token and with a malformed token are refused"


def _stolen(session: Session) -> str:
    """Check that the server refuses a valid token that is sent without a proof of its key. Raises Conflict if it does
    not.
    """
    token = session.agent.token(resource=f"{session.agent.issuer}/api/v1")["access_token"]
    for scheme in ("Bearer", "DPoP"):
        headers = {"Authorization": f"{scheme} {token}"}
        status = httpx2.get(f"{session.url}/api/v1/agents", headers=headers).status_code
        if status != 401:
            raise Conflict(f"a token without its key was answered with status {status}", hint=_ALARM)
    return "a token without its key is refused"


def _replayed(session: Session) -> str:
    """Check that the server refuses a copy of an answered request, as an eavesdropper would send it. Raises Conflict if
    it does not.
    """
    answered = session.request("GET", "/api/v1/agents", query={"limit": 1})
    decoded(answered)
    headers = {name: answered.request.headers[name] for name in ("authorization", "dpop")}
    status = httpx2.get(answered.request.url, headers=headers).status_code
    if status != 401:
        raise Conflict(f"a second request with the same DPoP proof was answered with status {status}", hint=_ALARM)
    return "a request that is sent again is refused"


def _default_deny(session: Session) -> str:
    if session.api("POST", "/decide", NOBODY)["decision"]:
        raise Conflict(
            "the policies allow a request of an unknown subject", hint="show the active policies: ostiary policy show"
        )
    return "calls that no policy permits are denied"


def _separation() -> Line:
    """Report whether this user can start a program that cannot read the keys of the user's egress proxy."""
    line = {"name": "egress", "state": "ok", "hint": "", "ms": 0.0}
    if os.geteuid() == 0:
        return line | {"saw": "`ostiary run --egress --user` hides secrets from a program"}
    saw = f"secrets of `ostiary run --egress` are {NOT_HIDDEN}: a program runs as the user of the proxy"
    return line | {
        "state": "weak",
        "saw": saw,
        "hint": "start `ostiary run` as root with --user, or run `ostiary egress serve` as another user",
    }


def _inside(session: Session, *, deep: bool) -> list[Line]:
    try:
        lines: list[Line] = session.api("GET", "/doctor", query={"deep": "true"} if deep else {})["lines"]
    except (Refused, httpx2.HTTPError) as error:
        return [{"name": "inside", "state": "fail", "saw": str(error), "hint": "", "ms": 0.0}]
    return lines


def _print(lines: list[Line]) -> None:
    width = max(len(line["name"]) for line in lines)
    for line in lines:
        head = ((f"{line['state']:4}", _COLOURS[line["state"]]), " ", (f"{line['name']:{width}}", "bold"), " ")
        indent = width + 6
        out.print(Text.assemble(*head, hang(line["saw"], indent)))
        if line["hint"]:
            out.print(Text.assemble(" " * indent, (hang(line["hint"], indent), "dim")))

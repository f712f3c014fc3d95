"""The decision on one call of the agent at one of its servers, whatever fails.

The guard decides in this process. A thread gets the agent's token and shows it to the guard with a proof of its key, as
to any server, so that no call waits for the network; only the first one waits until both have connected.

A call that cannot be decided is denied, except in mode `watch`: then it passes and is recorded as undecided. The mode
is the last one from the signed feed, in this life or an earlier one; without any, calls are denied. Also in mode
`watch` a call is denied if the server itself reports that the agent, its task, its token or its key is revoked.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from ostiary import ambient
from ostiary.agent import Agent, Task
from ostiary.agent.identity import TaskInfo
from ostiary.caller import Caller
from ostiary.client import TokenRefused
from ostiary.guard import Call, Denied, Guard, Verified, Withheld
from ostiary.keys import Credential, load_key
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.destination import Destination, check_secret
from ostiary.protocol.errors import Forbidden, Refused, Unavailable
from ostiary.protocol.jose import InvalidToken
from ostiary.run.events import Teller, Trouble, called
from ostiary.run.plan import Plan

log = logging.getLogger("ostiary.run")

PATIENCE_S = 10.0
"""Seconds that a call waits for the first connection, counted from the start."""
RENEWAL_S = 2.0
"""Seconds that a call waits for another token in place of a revoked one."""
RETRY_S = 1.0
MAX_TOLD = 1000
"""Tools that are reported."""
DEAD = frozenset({"invalid_client", "invalid_grant"})
"""Errors of the token endpoint that mean an ended agent or task."""


class Injection(NamedTuple):
    """A request into which a secret is put, as the server decides it. `decided`: the token and the policies by which
    the guard allows the request; "" if the rules do not allow it.
    """

    destination: str
    method: str
    host: str
    path: str
    decided: str


class SecretFinder(Protocol):
    """The secrets of a run, by their forms."""

    def find(self, data: bytes) -> bool:
        """Return whether data has a secret."""


class SecretSent(Forbidden):
    """A call has a secret that the agent must not have."""

    code = "secret_sent"


class _Destinations(msgspec.Struct):
    destinations: list[Destination]


class _Secret(msgspec.Struct):
    secret: str


_decode_destinations, _decode_secret = json_decoder(_Destinations), json_decoder(_Secret)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` it is denied, had it been enforced (None: allowed); `call` is on record, None where even that failed."""

    passes: bool
    why: Refused | None
    call: Call | None


class Gate:
    """Thread-safe."""

    def __init__(self, plan: Plan) -> None:
        """Start the guard of a plan. Raises Invalid, SpoolFailed."""
        self._plan, self._teller = plan, Teller(plan.events)
        self._credential: Credential = load_key(plan.agent)
        self._agent = Agent(self._credential, url=plan.url)
        self._guard = Guard(plan.guard, spool_dir=plan.spool, url=plan.url, learn=True)
        task = None if plan.task is None else Task(self._agent, TaskInfo(plan.task, {}))
        self._caller = Caller(self._guard, task or self._agent, uri=plan.uri)
        self._memory = Path(plan.mode)
        self._remembered = stored_mode(self._memory)
        self.secrets: SecretFinder | None = None
        self._verified: Verified | None = None
        self._trouble: Refused | None = Unavailable("the control plane has not answered yet")
        self._ready, self._wake, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._attempts = 0
        self._told = set[str]()
        self._until = ambient.tick() + round(PATIENCE_S * 1e6)
        self._keeper = threading.Thread(target=self._keep, name="ostiary-token", daemon=True)

    def start(self) -> None:
        """Connect, beside whatever the caller does next."""
        self._keeper.start()

    def close(self) -> None:
        """Report the remaining records."""
        self._closing.set()
        self._wake.set()
        try:
            self._remember()
            self._guard.close()
        finally:
            self._agent.close()
            self._teller.close()

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Decide a call and record the decision. Never raises.

        A call with a secret that an egress proxy put into a request is denied in both modes: the agent can have the
        secret from a leak alone.
        """
        caller: Verified | None = None
        try:
            if self.secrets is not None and self.secrets.find(msgspec.json.encode(arguments)):
                return self._undecided(
                    None, tool, arguments, SecretSent("an argument has a secret of the egress proxy")
                )
            caller = self._present()
            call = self._guard.decide(caller, tool, arguments)
        except Refused as refusal:
            return self._undecided(caller, tool, arguments, refusal)
        except Exception:
            log.exception("the guard failed")
            return self._undecided(caller, tool, arguments, Unavailable("the guard failed", code="guard_failed"))
        why = None if call.decision.verdict else Denied(call.decision, missing_scope=call.missing_scope)
        self._tell(tool, "deny" if why else "allow", passed=call.decision.allowed, why=why, caller=caller)
        return Verdict(call.decision.allowed, why, call)

    def undecided(self, tool: str, why: Refused) -> Verdict:
        """Return the verdict on input that is no message, or that finds no room."""
        self._await()
        return self._undecided(None, tool, {}, why)

    def listed(self, tools: list[dict[str, Any]] | None) -> None:
        """Note a listing of the server (None: unreadable), and report tools that its catalogue lacks."""
        self._guard.listing.note(tools)
        names = {name for tool in tools or () if isinstance(name := tool.get("name"), str)}
        with suppress(Refused):  # the catalogue is unknown without a feed
            catalogued = self._guard.feed.current().facts.resource.tools
            fresh = sorted(names - catalogued.keys() - self._told)
            if fresh and len(self._told) < MAX_TOLD:
                self._told.update(fresh[:MAX_TOLD])
                text = f"{len(fresh)} tools are not in its catalogue: {', '.join(map(ascii, fresh[:5]))[:200]}"
                self._teller.tell(Trouble(server=self._plan.server, text=text))

    def basis(self, verdict: Verdict) -> str:
        """Return the token and the policies by which a call is allowed; "" if the rules do not allow it."""
        caller, call = self._verified, verdict.call
        if verdict.why is not None or call is None or caller is None:
            return ""
        return f"{caller.principal.claims.jti} {call.decision.policy_hash}"

    def list_destinations(self) -> list[Destination]:
        """Return the destinations of secrets. Raises Refused."""
        return _decode_destinations(self._guard.request("GET", "destinations")).destinations

    def use_secret(self, injection: Injection) -> str:
        """Return the secret for a request, if the server permits its use. Raises Refused."""
        caller = self._present()
        body = {
            "token": caller.principal.claims.jti,
            "destination": injection.destination,
            "method": injection.method,
            "host": injection.host,
            "path": injection.path,
        }
        return check_secret(_decode_secret(self._guard.request("POST", "use-secret", body)).secret)

    @property
    def enforces(self) -> bool:
        """Return whether verdicts are carried out."""
        return self._mode != "watch"

    def is_alive(self) -> bool:
        """Return whether notifications of the server may reach the agent. If the token is revoked, wait for another
        one; if the agent was stopped, subscriptions have ended.
        """
        if (caller := self._verified) is None:
            return True  # no call was made yet
        try:
            self._guard.check_alive(caller)
        except InvalidToken:
            self._wake.set()
            return False
        except Refused:
            return self._mode == "watch"
        return True

    def observe(self, call: Call, output: object) -> None:
        """Add an output to the memory of the task. Raises Withheld if the agent must not get the output."""
        self._guard.observe(call, output)

    def finish(self, call: Call, *, ok: bool, bytes: int | None = None) -> None:
        """Record the outcome of a call."""
        with suppress(Withheld):  # the proxy has asked ahead, and has not handed it out
            call.result(ok=ok, bytes=bytes)
        self._guard.finish(call)

    def _undecided(self, caller: Verified | None, tool: str, arguments: Mapping[str, Any], why: Refused) -> Verdict:
        is_stopped = isinstance(why, SecretSent) or (isinstance(why, TokenRefused) and why.code in DEAD)
        passes = self._mode == "watch" and not is_stopped
        call = None
        try:
            call = self._guard.undecided(caller, self._credential.client_id, tool, arguments, why, passes=passes)
        except Refused as refusal:
            log.error("%s: a call of %s is not on record: %s", self._plan.server, tool, refusal.message)
            self._teller.tell(Trouble(server=self._plan.server, text=f"not on record: {refusal.message}"[:300]))
        self._tell(tool, "undecided", passed=passes, why=why, caller=caller)
        return Verdict(passes, why, call)

    def _tell(
        self,
        tool: str,
        verdict: Literal["allow", "deny", "undecided"],
        *,
        passed: bool,
        why: Refused | None,
        caller: Verified | None,
    ) -> None:
        claims = caller.principal.claims if caller is not None else None
        owner, task = (claims.owner, claims.task) if claims is not None else ("", "")
        self._teller.tell(
            called(self._plan.server, tool, verdict=verdict, passed=passed, owner=owner, task=task, why=why)
        )

    def _present(self) -> Verified:
        """Return the verified caller. Raises Refused."""
        self._await()
        caller = self._verified
        if caller is None:
            raise self._trouble or Unavailable("there is no token yet")
        try:
            self._guard.check_alive(caller)
        except InvalidToken:
            return self._another(caller)
        return caller

    def _await(self) -> None:
        """Wait until both have connected once, or the time is up: the mode is unknown before."""
        if not self._ready.is_set():
            self._ready.wait(max(self._until - ambient.tick(), 0) / 1e6)

    def _another(self, dead: Verified) -> Verified:
        """Return another token than the revoked one; or the revoked one, which the guard will deny."""
        with self._changed:
            before = self._attempts
            self._wake.set()
            self._changed.wait_for(lambda: self._attempts > before, RENEWAL_S)
        if self._verified is dead and isinstance(self._trouble, Unavailable):
            raise self._trouble
        return self._verified or dead

    def _keep(self) -> None:
        """Connect the guard, then have a token that is shown to it before the last one ends."""
        self._guard.start(wait=PATIENCE_S / 2)
        while not self._closing.is_set():
            self._wake.clear()
            if self._needs_token():
                try:
                    self._enter()
                except Exception as error:  # noqa: BLE001 because the next one may succeed; until then calls know why
                    self._lose(error)
                self._ready.set()
            self._remember()
            self._wake.wait(RETRY_S)

    def _needs_token(self) -> bool:
        """Return whether there is no token, its end is near, or it was revoked."""
        try:
            return self._caller.cached() is None
        except Unavailable:  # the guard has no fresh feed; the token is as good as before
            return False

    def _enter(self) -> None:
        """Get a token and show it to the guard. Raises Refused, httpx2.HTTPError."""
        caller = self._caller.enter()
        if self._trouble is not None and self._ready.is_set():
            self._teller.tell(Trouble(server=self._plan.server, text="the control plane answers again"))
        with self._changed:
            self._verified, self._trouble = caller, None
            self._attempts += 1
            self._changed.notify_all()

    def _lose(self, error: Exception) -> None:
        refusal = error if isinstance(error, Refused) else Unavailable(f"the control plane does not answer: {error}")
        if self._trouble is None or not self._ready.is_set():
            self._teller.tell(Trouble(server=self._plan.server, text=refusal.message[:300]))
            log.warning("%s: no token: %s", self._plan.server, refusal.message)
        with self._changed:
            self._trouble = refusal
            self._attempts += 1
            self._changed.notify_all()

    @property
    def _mode(self) -> str:
        return self._guard.feed.mode or self._remembered

    def _remember(self) -> None:
        """Store the mode for a start without the server."""
        if (mode := self._mode) == self._remembered:
            return
        fresh = self._memory.with_name(f"{self._memory.name}.{os.getpid()}")
        try:
            fresh.write_text(mode, "utf-8")
            fresh.replace(self._memory)
        except OSError as error:
            log.error("cannot remember that the mode is %s: %s", mode, error)
        else:
            self._remembered = mode


def stored_mode(memory: Path) -> str:
    """Return the stored mode; `enforce` if it is missing or unreadable."""
    try:
        return memory.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return "enforce"

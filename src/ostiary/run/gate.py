"""The decision on each call of the agent at one of its servers, even while the Ostiary server does not answer.

The guard decides in this process. A thread gets a token for the agent, and presents it to the guard with a proof of the
agent's key. Calls wait for a token only at the start, and after a revocation of the token.

A call that cannot be decided is denied. In mode `watch` it passes, and is recorded as undecided. The mode comes from
the last signed feed of this process, or from the file of an earlier process; without either, calls are denied. A call
is also denied in mode `watch` if the server reports that the agent, its task, its token or its key has ended or is
revoked.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
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
from ostiary.guard.drivers import Waits, Work, run, run_async
from ostiary.guard.secret_search import SecretsUnsearched, unsearched
from ostiary.keys import Credential, load_key
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.destination import Destination, check_secret
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.protocol.jose import InvalidToken
from ostiary.protocol.secret_forms import SecretSent, texts_in
from ostiary.run.events import EventSender, Trouble, called
from ostiary.run.plan import Plan

log = logging.getLogger("ostiary.run")

PATIENCE_S = 10.0
"""Maximum number of seconds that a call waits for the first connection, counted from the creation of the gate."""
RENEWAL_S = 2.0
"""Maximum number of seconds that a call waits for a new token after the token of the gate was revoked."""
RETRY_S = 1.0
MAX_TOLD = 1000
"""Maximum number of uncatalogued tools that are reported."""
LEAKS = (SecretSent, SecretsUnsearched)
"""refusals that deny a call in mode `watch` too, because otherwise a secret could leak"""
DEAD = frozenset({"invalid_client", "invalid_grant"})
"""Errors of the token endpoint for an agent or a task that has ended."""


class Injection(NamedTuple):
    """The facts of a request that needs a secret. The Ostiary server gets all of them except `decided`, and decides
    whether the request may have the secret.

    `decided`: token id and policy hash with which the guard has allowed the request; empty if the rules do not allow
    the request. The proxy reuses a secret only for a request with the same facts that the rules allow.
    """

    destination: str
    method: str
    host: str
    path: str
    decided: str


class InjectedSecret(NamedTuple):
    """The value of a secret for one request, and the time at which the secret expires, in seconds since the epoch; 0
    for a secret that does not expire.
    """

    value: str
    expires_at: int = 0

    def __repr__(self) -> str:
        """Return a text with the time of expiry and without the value, which is secret."""
        return f"InjectedSecret({self.expires_at})"


class SecretFinder(Protocol):
    """A search for the secrets of a run, in each of their encodings."""

    def find(self, data: bytes) -> bool:
        """Return whether `data` contains a secret of the run, in any encoding that masking knows."""


class _Destinations(msgspec.Struct):
    destinations: list[Destination]


class _Secret(msgspec.Struct):
    secret: str
    expires_at: int = 0


_decode_destinations, _decode_secret = json_decoder(_Destinations), json_decoder(_Secret)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a call. `passes`: true if the call is forwarded. `why`: the reason for a denial, stated even if
    the call passes in mode `watch`; None if the rules allow the call. `call`: the recorded call; None if the record
    failed. `caller`: the agent with its verified token; None if no token could be verified.
    """

    passes: bool
    why: Refused | None
    call: Call | None
    caller: Verified | None = None


class Gate:
    """The guard of one MCP server, HTTP API or egress proxy of a run, with the token of the agent. Thread-safe."""

    def __init__(self, plan: Plan) -> None:
        """Prepare the guard of a plan; `start` connects it. Raises Invalid for a credential that cannot be used,
        SpoolFailed if the spool cannot be used.
        """
        self._plan, self._event_sender = plan, EventSender(plan.events)
        self._credential: Credential = load_key(plan.agent)
        self._agent = Agent(self._credential, url=plan.url)
        self._guard = Guard(plan.guard, spool_dir=plan.spool, url=plan.url, learn=True)
        task = None if plan.task is None else Task(self._agent, TaskInfo(plan.task, {}))
        self._caller = Caller(self._guard, task or self._agent, uri=plan.uri)
        self._memory = Path(plan.mode)
        self._remembered = stored_mode(self._memory)
        self.secrets: SecretFinder | None = None
        self._verified: Verified | None = None
        self._trouble: Refused | None = Unavailable("the Ostiary server has not answered yet")
        self._ready, self._wake, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._attempts = 0
        self._told = set[str]()
        self._until = ambient.tick() + round(PATIENCE_S * 1e6)
        self._keeper = threading.Thread(target=self._keep, name="ostiary-token", daemon=True)

    def start(self) -> None:
        """Start the thread that connects the guard to the server and keeps a live access token of the agent.

        The thread gets the next token before the present token expires, or as soon as the present token is revoked.
        The first token is not there yet when this method returns.
        """
        self._keeper.start()

    def close(self) -> None:
        """Send the remaining records, and close the connections."""
        self._closing.set()
        self._wake.set()
        try:
            self._remember()
            self._guard.close()
        finally:
            self._agent.close()
            self._event_sender.close()

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Decide a call and record the decision. Never raises.

        A call that contains a secret of the egress proxy is denied in both modes: the agent can have the secret only
        from a leak.
        """
        return run(self._decide_in_steps(tool, arguments))

    async def decide_async(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Decide a call (`decide`) without blocking the event loop; a thread is used only for a wait."""
        return await run_async(self._decide_in_steps(tool, arguments))

    def _decide_in_steps(self, tool: str, arguments: Mapping[str, Any]) -> Waits[Verdict]:
        caller: Verified | None = None
        try:
            if self.secrets is not None and self.secrets.find(texts_in(arguments).encode()):
                return self._undecided(
                    None,
                    tool,
                    arguments,
                    SecretSent("an argument has a secret of the egress proxy", hint="send the placeholder"),
                )
            caller = self._alive() or (yield Work(self._present))
            call = yield from self._guard.decide_in_steps(caller, tool, arguments)
        except Refused as refusal:
            return self._undecided(caller, tool, arguments, refusal)
        except Exception:
            log.exception("the guard failed")
            failed = Unavailable("the guard failed", hint="the log of the guard has the error", code="guard_failed")
            return self._undecided(caller, tool, arguments, failed)
        why = None if call.decision.verdict else Denied(call.decision, missing_scope=call.missing_scope)
        self._tell(tool, "deny" if why else "allow", passed=call.decision.allowed, why=why, caller=caller)
        return Verdict(call.decision.allowed, why, call, caller)

    def undecided(self, tool: str, why: Refused) -> Verdict:
        """Return the verdict on a message that cannot be read or tracked, and record it as undecided."""
        self._await()
        return self._undecided(None, tool, {}, why)

    def listed(self, tools: list[dict[str, Any]] | None) -> None:
        """Store the definitions of the tools that the MCP server lists (None: the listing was unreadable), and report
        tools that are not in the catalogue to the user of `ostiary run`, each tool once.
        """
        self._guard.listing.store_definitions(tools)
        names = {name for tool in tools or () if isinstance(name := tool.get("name"), str)}
        with suppress(Refused):  # the catalogue is unknown without a feed
            catalogued = self._guard.feed.current().facts.resource.tools
            fresh = sorted(names - catalogued.keys() - self._told)
            if fresh and len(self._told) < MAX_TOLD:
                self._told.update(fresh[:MAX_TOLD])
                text = f"{len(fresh)} tools are not in its catalogue: {', '.join(map(ascii, fresh[:5]))[:200]}"
                self._event_sender.send(Trouble(server=self._plan.server, text=text))

    def basis(self, verdict: Verdict) -> str:
        """Return the token id and the policy hash by which a call is allowed, separated by a blank; an empty text if
        the rules do not allow the call.
        """
        caller, call = verdict.caller, verdict.call
        if verdict.why is not None or call is None or caller is None:
            return ""
        return f"{caller.principal.claims.jti} {call.decision.policy_hash}"

    def serving(self, verdict: Verdict) -> AbstractAsyncContextManager[object]:
        """Return a context in which a call runs that passes. The block of the context is cancelled as soon as the token
        of the agent is revoked; for a call without a verified token, never. Raises InvalidToken if the token is not
        valid any more, Unavailable if the feed is too old to tell.
        """
        return nullcontext() if verdict.caller is None else self._guard.serving(verdict.caller)

    def list_destinations(self) -> list[Destination]:
        """Return all destinations of secrets that the Ostiary server knows. Raises Refused if the server refuses, or
        does not answer.
        """
        return _decode_destinations(self._guard.request("GET", "destinations")).destinations

    def use_secret(self, injection: Injection) -> InjectedSecret:
        """Return the secret for a request. Raises Refused if the server does not permit its use, or does not answer."""
        caller = self._present()
        body = {
            "token": caller.principal.claims.jti,
            "destination": injection.destination,
            "method": injection.method,
            "host": injection.host,
            "path": injection.path,
        }
        used = _decode_secret(self._guard.request("POST", "use-secret", body))
        return InjectedSecret(check_secret(used.secret), used.expires_at)

    @property
    def enforces(self) -> bool:
        """Return whether denials are enforced: the mode is not `watch`."""
        return self._mode != "watch"

    def is_alive(self) -> bool:
        """Return whether notifications of the MCP server may reach the agent. The result is false if the token has
        ended, because subscriptions end with the token, the task or the agent; then the renewal of the token is
        started. If the feed is too old to tell, the result is true only in mode `watch`.
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
        """Add the output of a call to the memory of its task. Raises Withheld if the agent must not get the output."""
        self._guard.observe(call, output)

    def finish(self, call: Call, *, ok: bool, bytes: int | None = None) -> None:
        """Record the outcome of a call; `bytes` is the size of its output."""
        with suppress(Withheld):  # the caller has stated this result before, and has not delivered it
            call.result(ok=ok, bytes=bytes)
        self._guard.finish(call)

    def _undecided(self, caller: Verified | None, tool: str, arguments: Mapping[str, Any], why: Refused) -> Verdict:
        is_stopped = isinstance(why, LEAKS) or (isinstance(why, TokenRefused) and why.code in DEAD)
        passes = self._mode == "watch" and not is_stopped
        if passes and self._guard.have_used_secrets(self._agents(caller or self._verified)):
            passes, why = False, unsearched(why.message)
        call = None
        try:
            call = self._guard.undecided(caller, self._credential.client_id, tool, arguments, why, passes=passes)
        except Refused as refusal:
            log.error("%s: a call of %s is not on record: %s", self._plan.server, tool, refusal.message)
            self._event_sender.send(
                Trouble(server=self._plan.server, text=f"the call is not on record: {refusal.message}"[:300])
            )
        self._tell(tool, "undecided", passed=passes, why=why, caller=caller)
        return Verdict(passes, why, call, caller)

    def _agents(self, caller: Verified | None) -> list[str]:
        """Return the ids of the agents in the chain of a call; without a verified token, of the agent of this gate."""
        return [self._credential.client_id] if caller is None else [agent for agent, _ in caller.principal.agents]

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
        self._event_sender.send(
            called(self._plan.server, tool, verdict=verdict, passed=passed, owner=owner, task=task, why=why)
        )

    def _present(self) -> Verified:
        """Return the verified caller with a token that is not revoked; wait for one. Raises Refused if there is none
        after the wait.
        """
        self._await()
        if (caller := self._alive()) is not None:
            return caller
        if self._verified is None:
            raise self._trouble or Unavailable("there is no token yet")
        return self._another(self._verified)

    def _alive(self) -> Verified | None:
        """Return the verified caller; None if there is none yet, or its token is revoked. Raises Unavailable if the
        guard has no present facts of the feed.
        """
        if (caller := self._verified) is None:
            return None
        try:
            self._guard.check_alive(caller)
        except InvalidToken:
            return None
        return caller

    def _await(self) -> None:
        """Wait until the first connection has succeeded or failed, at most until the time limit: the mode is
        unknown before.
        """
        if not self._ready.is_set():
            self._ready.wait(max(self._until - ambient.tick(), 0) / 1e6)

    def _another(self, dead: Verified) -> Verified:
        """Return the caller with a new token in place of the revoked one; or with the revoked token, which the
        guard denies. Raises Unavailable if the server does not answer.
        """
        with self._changed:
            before = self._attempts
            self._wake.set()
            self._changed.wait_for(lambda: self._attempts > before, RENEWAL_S)
        if self._verified is dead and isinstance(self._trouble, Unavailable):
            raise self._trouble
        return self._verified or dead

    def _keep(self) -> None:
        """Connect the guard, then renew the token and show it to the guard before the previous token expires."""
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
        """Return whether a new token is needed: there is none, or the present token is revoked or close to expiry."""
        try:
            return self._caller.cached() is None
        except Unavailable:  # without a fresh feed, nothing is known against the token
            return False

    def _enter(self) -> None:
        """Get a token and show it to the guard. Raises Refused if the server does not answer or issues no token, or the
        guard refuses the token.
        """
        caller = self._caller.enter()
        if self._trouble is not None and self._ready.is_set():
            self._event_sender.send(Trouble(server=self._plan.server, text="the Ostiary server answers again"))
        with self._changed:
            self._verified, self._trouble = caller, None
            self._attempts += 1
            self._changed.notify_all()

    def _lose(self, error: Exception) -> None:
        refusal = error if isinstance(error, Refused) else Unavailable(f"the Ostiary server does not answer: {error}")
        if self._trouble is None or not self._ready.is_set():
            self._event_sender.send(Trouble(server=self._plan.server, text=refusal.message[:300]))
            log.warning("%s: no token: %s", self._plan.server, refusal.message)
        with self._changed:
            self._trouble = refusal
            self._attempts += 1
            self._changed.notify_all()

    @property
    def _mode(self) -> str:
        return self._guard.feed.mode or self._remembered

    def _remember(self) -> None:
        """Store the mode, for a later start without the server."""
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
    """Return the mode in the file `memory`; `enforce` if the file is missing or unreadable."""
    try:
        return memory.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return "enforce"

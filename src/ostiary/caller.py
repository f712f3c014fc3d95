"""The caller of tools in this process: an agent at one guard, or a caller whose token is already verified."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import httpx2

from ostiary.agent import AsyncTask, Task
from ostiary.agent.identity import POLL_S, TIMEOUT_S, Identity
from ostiary.client import StepUpNeeded, Target, Token, TokenRefused, run
from ostiary.decision.access import Reason
from ostiary.guard import Guard, KeyUnheard, NonceNeeded, Verified
from ostiary.protocol.errors import Unavailable
from ostiary.protocol.jose import InvalidToken

UNHEARD_RETRY_S, UNHEARD_RETRIES = 0.1, 30
"""Pause in seconds, and number of attempts, after the server has signed a token by a new key that the feed of the guard
has not announced yet.
"""

AnyCaller = Identity | Task | AsyncTask | Verified
"""an agent (for its standing task), a declared task of an agent, or a caller whose token the guard has verified"""


class Caller:
    """An agent that calls tools at one guard in this process. Each new token of the agent is presented to the guard,
    with a proof of the agent's key.
    """

    def __init__(self, guard: Guard, identity: Identity | Task | AsyncTask, *, uri: str | None = None) -> None:
        """Create the caller for `identity` at the resource `uri`. Without `uri`, the resource is that of the
        guard's feed.
        """
        self._guard, self._own_uri = guard, uri
        self._task = None if isinstance(identity, Identity) else identity
        self._identity: Identity = identity if isinstance(identity, Identity) else identity._agent
        self._client = self._identity._client
        self._mutex = threading.Lock()
        self._cached: tuple[Verified, Token] | None = None

    @property
    def _uri(self) -> str:
        """Return the URI of the guard's resource. Raises Unavailable until the guard has a feed."""
        return self._own_uri or self._guard.resource.uri

    def cached(self) -> Verified | None:
        """Return the verified caller while its token is fresh and not revoked; None if a new token is needed. Raises
        Unavailable while the guard has no current feed.
        """
        if self._cached is None or not self._client.is_fresh(self._cached[1]):
            return None
        try:
            self._guard.check_alive(self._cached[0])
        except InvalidToken:
            return None
        return self._cached[0]

    def enter(self) -> Verified:
        """Return the verified caller. If necessary, get a token first, and present it to the guard. Raises Refused if
        the server or the guard refuses, or the server does not answer.
        """
        with self._mutex:
            if (cached := self.cached()) is not None:
                return cached
            target = Target(self._uri, task=self._task.id if self._task is not None else None)
            with httpx2.Client(timeout=TIMEOUT_S) as http:
                token = run(http, self._client.token(target))
                try:
                    verified = self._show(token)
                except InvalidToken:  # the token was revoked; get another, if the agent may have one
                    self._client.forget(target)
                    token = run(http, self._client.token(target))
                    verified = self._show(token)
            self._cached = verified, token
            return verified

    def step_up(self, demand: Reason) -> Verified:
        """Return the caller with a token that meets the demand of a denial (RFC 9470), for the same task.

        Raises StepUpNeeded if the server refuses such a token, Refused if the guard refuses the token, or the server
        does not answer.
        """
        task = self._task.id if self._task is not None else None
        target = Target(self._uri, task=task, acr_values=demand.acr_values or None, max_age=demand.max_age)
        with httpx2.Client(timeout=TIMEOUT_S) as http:
            try:
                return self._show(run(http, self._client.token(target)))
            except TokenRefused as refusal:
                raise StepUpNeeded(target, refusal) from None

    def wait(self, approval: str, *, within: float) -> None:
        """Wait at most `within` seconds until a person has answered the approval with the id `approval`. Raises Refused
        if the server does not show the approval, or does not answer.
        """
        for _ in range(round(within / POLL_S)):
            if not self._is_open(approval):
                return
            threading.Event().wait(POLL_S)

    async def wait_async(self, approval: str, *, within: float) -> None:
        """Wait for the answer to an approval request (`wait`), without blocking the event loop."""
        for _ in range(round(within / POLL_S)):
            if not await asyncio.to_thread(self._is_open, approval):
                return
            await asyncio.sleep(POLL_S)

    def _is_open(self, approval: str) -> bool:
        with httpx2.Client(timeout=TIMEOUT_S) as http:
            return run(http, self._identity._approval(approval)).is_open

    def _show(self, token: Token) -> Verified:
        """Present the token to the guard, with a proof that has the guard's nonce if it requires one. Return the
        verified caller. Raises Refused if the guard does not accept the token.
        """
        nonce = None
        for left in reversed(range(UNHEARD_RETRIES)):
            proof = self._client.proof(method="POST", uri=self._uri, token=token, nonce=nonce)
            try:
                return self._guard.verify(authorization=f"DPoP {token.text}", proof=proof, method="POST", uri=self._uri)
            except NonceNeeded as needed:
                if nonce is not None:
                    break
                nonce = needed.nonce
            except KeyUnheard:
                if not left:
                    raise
                threading.Event().wait(UNHEARD_RETRY_S)
        raise Unavailable(
            "the guard asked twice for a new DPoP nonce",
            hint="try again; if this repeats, check whether the clock of this machine jumps",
        )


@dataclass(frozen=True, slots=True)
class VerifiedCaller:
    """A caller whose token the guard has already verified."""

    verified: Verified

    def cached(self) -> Verified:
        """Return the verified caller."""
        return self.verified

    enter = cached

    def wait(self, approval: str, *, within: float) -> None:
        """Return at once. Only the agent itself can query an approval, so the remote caller waits and repeats
        its call.
        """

    async def wait_async(self, approval: str, *, within: float) -> None:
        """Return at once, as `wait` does."""


def caller_of(guard: Guard, caller: AnyCaller) -> Caller | VerifiedCaller:
    """Return the caller for the tools of a guard: for an agent or a task, a caller that gets tokens for the guard's
    resource.
    """
    return VerifiedCaller(caller) if isinstance(caller, Verified) else Caller(guard, caller)

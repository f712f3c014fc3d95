"""Who calls tools of this process: an agent at one guard, or whoever has shown a token already."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import httpx2

from ostiary.agent import AsyncTask, Task
from ostiary.agent.identity import POLL_S, TIMEOUT_S, Identity
from ostiary.client import Target, Token, run
from ostiary.guard import Guard, NonceNeeded, Verified
from ostiary.protocol.errors import Conflict, Unavailable
from ostiary.protocol.jose import InvalidToken

Who = Identity | Task | AsyncTask | Verified
"""Who calls: an agent (its standing task), a declared task of an agent, or whoever showed a token to the guard."""


class Caller:
    """An agent at one guard: its token, shown to the guard with a proof of its key whenever it is a new one."""

    def __init__(self, guard: Guard, who: Identity | Task | AsyncTask, *, uri: str | None = None) -> None:
        """Keep the token of `who` for the resource `uri`; if left out, the resource of the guard's feed."""
        self._guard, self._own_uri = guard, uri
        self._task = None if isinstance(who, Identity) else who
        self._identity: Identity = who if isinstance(who, Identity) else who._agent
        self._client = self._identity._client
        self._mutex = threading.Lock()
        self._held: tuple[Verified, Token] | None = None

    @property
    def _uri(self) -> str:
        """Raises Unavailable while the guard has no feed that names its resource."""
        return self._own_uri or self._guard.resource.uri

    def held(self) -> Verified | None:
        """Who calls, if that can be said without the network. Raises Unavailable."""
        if self._held is None or not self._client.is_fresh(self._held[1]):
            return None
        try:
            self._guard.check_alive(self._held[0])
        except InvalidToken:
            return None
        return self._held[0]

    def enter(self) -> Verified:
        """Who calls. Raises Refused, httpx2.HTTPError."""
        with self._mutex:
            if (held := self.held()) is not None:
                return held
            if self._task is not None and not self._task.id:
                raise Conflict("the task is not declared yet", hint="async with agent.task(..) as task: ..")
            target = Target(self._uri, task=self._task.id if self._task is not None else None)
            with httpx2.Client(timeout=TIMEOUT_S) as http:
                token = run(http, self._client.token(target))
                try:
                    who = self._show(token)
                except InvalidToken:  # it was revoked; if the agent may have another one, that one counts
                    self._client.forget(target)
                    token = run(http, self._client.token(target))
                    who = self._show(token)
            self._held = who, token
            return who

    def wait(self, approval: str, *, within: float) -> None:
        """Until a person has answered, or the time is over. Raises Refused, httpx2.HTTPError."""
        for _ in range(round(within / POLL_S)):
            if not self._is_open(approval):
                return
            threading.Event().wait(POLL_S)

    async def wait_async(self, approval: str, *, within: float) -> None:
        """The same; the event loop goes on."""
        for _ in range(round(within / POLL_S)):
            if not await asyncio.to_thread(self._is_open, approval):
                return
            await asyncio.sleep(POLL_S)

    def _is_open(self, approval: str) -> bool:
        with httpx2.Client(timeout=TIMEOUT_S) as http:
            return run(http, self._identity._approval(approval)).is_open

    def _show(self, token: Token) -> Verified:
        """Show the token to the guard, once it has said its nonce. Raises Refused."""
        request: dict[str, str] = {"method": "POST", "uri": self._uri}
        nonce = None
        for _ in range(2):
            proof = self._client.proof(**request, token=token, nonce=nonce)
            try:
                return self._guard.verify(authorization=f"DPoP {token.text}", proof=proof, **request)
            except NonceNeeded as needed:
                nonce = needed.nonce
        raise Unavailable("the guard takes no proof of ours", hint="do the clocks of this machine agree?")


@dataclass(frozen=True, slots=True)
class Shown:
    """Somebody who has shown a token already."""

    who: Verified

    def held(self) -> Verified:
        return self.who

    enter = held

    def wait(self, approval: str, *, within: float) -> None:
        """Only whose agent is here can ask how it stands; who made the call waits, and makes it again."""

    async def wait_async(self, approval: str, *, within: float) -> None:
        """The same."""


def caller_of(guard: Guard, who: Who) -> Caller | Shown:
    return Shown(who) if isinstance(who, Verified) else Caller(guard, who)

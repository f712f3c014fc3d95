"""What the tasks remember whose calls are decided here: copies of what the server keeps (`ostiary.core.recall`).

A copy that lags behind knows less, and to know less makes nothing more trusted (`ostiary.core.origins`). So a decision
asks the server only where to know more could change it, and what a tool returned is handed out once the server has
taken it. Whoever gets no answer in time is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import httpx2

from ostiary.core import access
from ostiary.core.errors import Refused, Unavailable
from ostiary.core.jose import b64u
from ostiary.core.origins import Memory, Part, learned, observed
from ostiary.core.recall import Recall, parse_recalled, render_recall
from ostiary.guard.asker import ASK_S, Asker
from ostiary.guard.feed import Feed

MAX_COPIES = 256
"""tasks; a copy has at most 64 KB"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A call of a task that remembers what it returns."""

    principal: access.Principal
    ready: access.ReadyTool
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Copy:
    seq: int
    memory: Memory


class Memories:
    """Thread-safe."""

    def __init__(self, asker: Asker, *, resource_id: str, feed: Feed, random: Callable[[int], bytes]) -> None:
        self._asker, self._resource_id, self._feed, self._random = asker, resource_id, feed, random
        self._mutex = threading.Lock()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    def of(self, principal: access.Principal) -> Memory | None:
        """What is known here of what the token's task remembers."""
        copy = self._copies.get(principal.claims.memory)
        return None if copy is None else copy.memory

    def recall(self, principal: access.Principal) -> None:
        """Know as much as the server did when this was called. Raises Unavailable."""
        _await(self._submit(principal, None))

    async def recall_async(self, principal: access.Principal) -> None:
        """The same; the event loop goes on."""
        await _await_async(self._submit(principal, None))

    def observe(self, watched: Watched, output: object) -> None:
        """Let the task remember what a tool has returned. Raises Unavailable."""
        _await(self._submit(watched.principal, lambda memory: self._parts(memory, watched, output), watched))

    def _parts(self, memory: Memory, watched: Watched, output: object) -> tuple[Part, ...]:
        ready = watched.ready
        return observed(memory, ready.uid.id, ready.tool, watched.arguments, output)

    def _submit(
        self,
        principal: access.Principal,
        find: Callable[[Memory], tuple[Part, ...]] | None,
        watched: Watched | None = None,
    ) -> Future[None]:
        tool = "" if watched is None else watched.ready.tool.name

        def work(until: int) -> None:
            if find is None:
                self._exchange(principal, until)
                return
            memory = self.of(principal)
            if memory is None:
                memory = self._exchange(principal, until)
            if parts := find(memory):
                self._exchange(principal, until, tool=tool, parts=parts)

        return self._asker.submit(work)

    def _exchange(
        self, principal: access.Principal, until: int, *, tool: str = "", parts: tuple[Part, ...] = ()
    ) -> Memory:
        """Tell, and hear: the memory with that. Raises Unavailable."""
        task = principal.claims.memory
        with self._mutex:
            copy = self._copies.get(task)
        seq = 0 if copy is None else copy.seq
        body = render_recall(
            Recall(call=b64u(self._random(16)), token=principal.claims.jti, seq=seq, tool=tool, parts=parts)
        )
        try:
            answer = parse_recalled(
                self._asker.post("memory", body, until),
                keys=self._feed.feed_keys, issuer=self._feed.issuer, resource_id=self._resource_id, body=body,
            )  # fmt: skip
            memory = answer.memory()
        except httpx2.TimeoutException:
            raise _unavailable(f"the server took longer than {ASK_S:g} s") from None
        except (Refused, httpx2.HTTPError, OSError) as error:
            raise _unavailable(error.message if isinstance(error, Refused) else type(error).__name__) from None
        if memory is None:
            if copy is None:
                raise _unavailable("the server leaves it out")
            memory = learned(copy.memory, parts)
        self._keep(task, _Copy(answer.seq, memory))
        return memory

    def _keep(self, task: str, copy: _Copy) -> None:
        """Unless another call has heard of more meanwhile."""
        with self._mutex:
            known = self._copies.get(task)
            if known is None or known.seq < copy.seq:
                self._copies[task] = copy
            self._copies.move_to_end(task)
            while len(self._copies) > MAX_COPIES:
                self._copies.popitem(last=False)


def _unavailable(why: str) -> Unavailable:
    return Unavailable(f"what the task remembers is not to be had: {why}", hint="try again", code="memory_unavailable")


def _await(waiting: Future[None]) -> None:
    try:
        waiting.result(ASK_S)
    except TimeoutError:
        waiting.cancel()
        raise _unavailable(f"the server took longer than {ASK_S:g} s") from None


async def _await_async(waiting: Future[None]) -> None:
    try:
        await asyncio.wait_for(asyncio.wrap_future(waiting), ASK_S)
    except TimeoutError:
        waiting.cancel()
        raise _unavailable(f"the server took longer than {ASK_S:g} s") from None

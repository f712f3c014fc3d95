"""What the tasks remember whose calls are decided here: copies of what the server keeps (`ostiary.decision.recall`).

A copy that lags behind knows less, and to know less makes nothing more trusted (`ostiary.provenance.origins`). So a
decision asks the server only where to know more could change it, and what a tool returned is handed out once the
server has taken it. Whoever gets no answer in time is refused.

Of what happened before (`ostiary.provenance.history`) a copy must not lag: a call counts once the server has taken it
in as the next one after all that the guard knows.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import httpx2

from ostiary.decision import access
from ostiary.decision.recall import Next, Past, Recall, Recalled, render_recall
from ostiary.guard.asker import ASK_S, Asker
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.protocol.jose import b64u
from ostiary.provenance.history import Before, Done, created_by
from ostiary.provenance.origins import Memory, Part, learned, marked, observed

T = TypeVar("T")
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


class Telling(NamedTuple):
    """What is to be told ahead of a decision: on what it rests, and the call, where it would be let through."""

    before: Before | None
    done: Done | None = None
    met: tuple[bytes, ...] = ()
    """its recipients, as the counterparts of its owner are known"""


class Memories:
    """Thread-safe."""

    def __init__(self, asker: Asker, *, random: Callable[[int], bytes]) -> None:
        self._asker, self._random = asker, random
        self._mutex = threading.Lock()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._pasts: OrderedDict[tuple[str, str], Before] = OrderedDict()

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
        return observed(memory, ready.uid.id, ready.tool, watched.arguments, output, ready.classes)

    def before(self, principal: access.Principal) -> Before | None:
        """What is known here of what happened before."""
        return self._pasts.get(_whose(principal))

    def happen(self, principal: access.Principal, tool: str, telling: Telling) -> bool:
        """Whether the server takes in that call, or where there is none says that nothing else has happened; if not,
        what has happened is known here from now on. Raises Unavailable.
        """
        return _await(self._asker.submit(lambda until: self._happen(principal, tool, telling, until)))

    async def happen_async(self, principal: access.Principal, tool: str, telling: Telling) -> bool:
        """The same; the event loop goes on."""
        return await _await_async(self._asker.submit(lambda until: self._happen(principal, tool, telling, until)))

    def made(self, watched: Watched, output: object) -> None:
        """Let the task remember what a call has created. Raises Unavailable."""
        principal, tool = watched.principal, watched.ready.tool
        before = self.before(principal)
        if before is None:
            return
        if values := created_by(before.key, watched.ready.uid.id, tool, watched.arguments, output):
            _await(self._asker.submit(lambda until: self._tell(principal, tool.name, until, made=values)))

    def _happen(self, principal: access.Principal, tool: str, telling: Telling, until: int) -> bool:
        known, done = telling.before, telling.done
        step = None if done is None else Next(done.recipients, done.is_more, telling.met)
        found, is_taken = self._tell(principal, tool, until, known=known, step=step)
        if step is not None:
            return is_taken
        return known is not None and (found.seq, found.day) == (known.seq, known.day)

    def _tell(
        self,
        principal: access.Principal,
        tool: str,
        until: int,
        *,
        known: Before | None = None,
        step: Next | None = None,
        made: tuple[bytes, ...] = (),
    ) -> tuple[Before, bool]:
        """What has happened by now, and whether the step was taken. Raises Unavailable."""
        past = Past()
        if known is not None:
            past = Past(known.seq, known.day, -1 if known.met is None else known.met.known.seq)
        recall = Recall(
            call=b64u(self._random(16)), token=principal.claims.jti, tool=tool, past=past, next=step, made=made
        )
        answer, found = self._ask(recall, until, lambda answer: answer.before(known))
        with self._mutex:
            kept = self._pasts.get(whose := _whose(principal))
            if kept is None or (kept.day, kept.seq) <= (found.day, found.seq):
                self._pasts[whose] = found
            self._pasts.move_to_end(whose)
            while len(self._pasts) > MAX_COPIES:
                self._pasts.popitem(last=False)
        return found, answer.past is not None and answer.past.is_accepted

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
        recall = Recall(call=b64u(self._random(16)), token=principal.claims.jti, seq=seq, tool=tool, parts=parts)
        answer, memory = self._ask(recall, until, Recalled.memory)
        if memory is None:
            if copy is None:
                raise _unavailable("the server leaves it out")
            memory = learned(copy.memory, parts)
        else:
            memory = marked(memory)
        self._keep(task, _Copy(answer.seq, memory))
        return memory

    def _ask(self, recall: Recall, until: int, read: Callable[[Recalled], T]) -> tuple[Recalled, T]:
        """The answer, and what is read from it. Raises Unavailable."""
        body = render_recall(recall)
        try:
            answer = self._asker.answer("memory", body, Recalled, until)
            return answer, read(answer)
        except httpx2.TimeoutException:
            raise _unavailable(f"the server took longer than {ASK_S:g} s") from None
        except (Refused, httpx2.HTTPError, OSError) as error:
            raise _unavailable(error.message if isinstance(error, Refused) else type(error).__name__) from None

    def _keep(self, task: str, copy: _Copy) -> None:
        """Unless another call has heard of more meanwhile."""
        with self._mutex:
            known = self._copies.get(task)
            if known is None or known.seq < copy.seq:
                self._copies[task] = copy
            self._copies.move_to_end(task)
            while len(self._copies) > MAX_COPIES:
                self._copies.popitem(last=False)


def _whose(principal: access.Principal) -> tuple[str, str]:
    """The topmost task, and the agent."""
    return principal.tasks[-1], principal.claims.client_id


def _unavailable(why: str) -> Unavailable:
    return Unavailable(f"what the task remembers is not to be had: {why}", hint="try again", code="memory_unavailable")


def _await(waiting: Future[T]) -> T:
    try:
        return waiting.result(ASK_S)
    except TimeoutError:
        waiting.cancel()
        raise _unavailable(f"the server took longer than {ASK_S:g} s") from None


async def _await_async(waiting: Future[T]) -> T:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(waiting), ASK_S)
    except TimeoutError:
        waiting.cancel()
        raise _unavailable(f"the server took longer than {ASK_S:g} s") from None

"""Memories and histories of tasks: copies of the server's (`ostiary.decision.recall`).

An outdated copy of a memory has fewer entries, and a missing entry never makes a value more trusted
(`ostiary.provenance.origins`). A decision therefore asks the server only if further entries could change the decision.
The output of a tool is returned to the agent after the server has stored it. A call that gets no answer in time is
refused.

A copy of a history (`ostiary.provenance.history`) must be current: a call is added to the history only if the server
accepts it as the next call after the calls that the guard knows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import httpx2

from ostiary.decision import access
from ostiary.decision.recall import HistoryVersion, Next, Recall, Recalled, render_recall
from ostiary.guard.drivers import Wait, Waits, run
from ostiary.guard.server_rpc import ASK_S, ServerRpc
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.protocol.jose import b64u
from ostiary.provenance.history import Done, PriorHistory, created_by
from ostiary.provenance.origins import Memory, Part, add_parts, observe_output, with_marks

T = TypeVar("T")
MAX_COPIES = 256
"""Maximum number of tasks with a copy; a copy has at most 112 KB."""


class Watched(NamedTuple):
    """An allowed call whose output the guard adds to the memory of the call's task, with the facts that this needs."""

    principal: access.Principal
    ready: access.ReadyTool
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Copy:
    seq: int
    memory: Memory


@dataclass(frozen=True, slots=True)
class HistoryClaim:
    """The claim, sent to the server, that no call was added to the history since the version `prior`. With `done`, the
    server then adds this call to the history. The answer is true if the server accepts the claim; if false, the guard
    has received the newer history.
    """

    prior: PriorHistory
    done: Done | None = None
    """the entry of the call in the history; None: the call is not added to the history"""
    met: tuple[bytes, ...] = ()
    """hashes of the call's recipients, comparable with the stored counterparts of the agent's owner"""


class TaskMemories:
    """The copies of memories and histories at one guard, for the most recently used tasks. Thread-safe."""

    def __init__(self, rpc: ServerRpc, *, random: Callable[[int], bytes]) -> None:
        self._rpc, self._random = rpc, random
        self._mutex = threading.Lock()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._histories: OrderedDict[tuple[str, str], PriorHistory] = OrderedDict()

    def of(self, principal: access.Principal) -> Memory | None:
        """Return this guard's copy of the memory of the token's task; None if there is no copy."""
        copy = self._copies.get(principal.claims.memory)
        return None if copy is None else copy.memory

    def recall(self, principal: access.Principal) -> Waits[Memory]:
        """Return the server's present memory of the token's task. Raises Unavailable if the server gives no valid
        answer.
        """
        return self._wait(partial(self._exchange, principal))

    def observe(self, watched: Watched, output: object) -> None:
        """Add a tool's output to the memory of the task. Raises Unavailable if the server gives no valid answer."""

        def add(until: int) -> None:
            principal, ready = watched.principal, watched.ready
            memory = self.of(principal)
            if memory is None:
                memory = self._exchange(principal, until)
            if parts := observe_output(memory, ready.uid.id, ready.tool, watched.arguments, output, ready.classes):
                self._exchange(principal, until, tool=ready.tool.name, parts=parts)

        run(self._wait(add))

    def history_copy(self, principal: access.Principal) -> PriorHistory | None:
        """Return this guard's copy of the history of the token's task and agent; None if there is no copy."""
        return self._histories.get(_key(principal))

    def history(self, principal: access.Principal, tool: str) -> Waits[PriorHistory]:
        """Return the server's present history before a call of the tool `tool`. Raises Unavailable if the server gives
        no valid answer.
        """
        return self._wait(lambda until: self._tell(principal, tool, until)[0])

    def claim(self, principal: access.Principal, tool: str, claim: HistoryClaim) -> Waits[bool]:
        """Send the claim to the server, and return whether the server accepts it. Raises Unavailable if the server
        gives no valid answer.
        """
        return self._wait(lambda until: self._claim(principal, tool, claim, until))

    def send_created(self, watched: Watched, output: object) -> None:
        """Compute from its arguments and output which objects a call has created, and send their hashes to the server,
        which adds them to the history. If there is no copy of the history, send nothing. Raises Unavailable if the
        server gives no valid answer.
        """
        principal, tool = watched.principal, watched.ready.tool
        prior = self.history_copy(principal)
        if prior is None:
            return
        if values := created_by(prior.key, watched.ready.uid.id, tool, watched.arguments, output):
            run(self._wait(lambda until: self._tell(principal, tool.name, until, made=values)))

    def _wait(self, work: Callable[[int], T]) -> Waits[T]:
        """Run `work` in another thread, and return its result. Raises Unavailable if `work` does, or takes longer than
        ASK_S seconds.
        """
        try:
            answer: T = yield Wait(self._rpc.submit(work, code="memory_unavailable"), ASK_S)
            return answer
        except TimeoutError:
            raise _unavailable(f"the server did not answer within {ASK_S:g} s") from None

    def _claim(self, principal: access.Principal, tool: str, claim: HistoryClaim, until: int) -> bool:
        base, done = claim.prior, claim.done
        step = None if done is None else Next(done.recipients, done.is_more, claim.met)
        now, is_taken = self._tell(principal, tool, until, base=base, step=step)
        return is_taken if step is not None else (now.seq, now.day) == (base.seq, base.day)

    def _tell(
        self,
        principal: access.Principal,
        tool: str,
        until: int,
        *,
        base: PriorHistory | None = None,
        step: Next | None = None,
        made: tuple[bytes, ...] = (),
    ) -> tuple[PriorHistory, bool]:
        """Send the server the next call (`step`) or created objects (`made`). Return the present history, and whether
        the server accepted the step. Raises Unavailable if the server gives no valid answer.
        """
        past = HistoryVersion()
        if base is not None:
            past = HistoryVersion(base.seq, base.day, -1 if base.met is None else base.met.counterparts.seq)
        recall = Recall(
            call=b64u(self._random(16)), token=principal.claims.jti, tool=tool, past=past, next=step, made=made
        )
        answer, now = self._ask(recall, until, lambda answer: answer.read_history(base))
        with self._mutex:
            kept = self._histories.get(key := _key(principal))
            if kept is None or (kept.day, kept.seq) <= (now.day, now.seq):
                self._histories[key] = now
            self._histories.move_to_end(key)
            while len(self._histories) > MAX_COPIES:
                self._histories.popitem(last=False)
        return now, answer.past is not None and answer.past.is_accepted

    def _exchange(
        self, principal: access.Principal, until: int, *, tool: str = "", parts: tuple[Part, ...] = ()
    ) -> Memory:
        """Send `parts` to the server, and return the server's memory, which includes them. Raises Unavailable if the
        server gives no valid answer.
        """
        task = principal.claims.memory
        with self._mutex:
            copy = self._copies.get(task)
        seq = 0 if copy is None else copy.seq
        recall = Recall(call=b64u(self._random(16)), token=principal.claims.jti, seq=seq, tool=tool, parts=parts)
        answer, memory = self._ask(recall, until, Recalled.memory)
        if memory is None:
            if copy is None:
                raise _unavailable("the server's answer has no memory")
            memory = add_parts(copy.memory, parts)
        else:
            memory = with_marks(memory)
        self._keep(task, _Copy(answer.seq, memory))
        return memory

    def _ask(self, recall: Recall, until: int, read: Callable[[Recalled], T]) -> tuple[Recalled, T]:
        """Send the request `recall`. Return the answer, and the value that `read` reads from the answer. Raises
        Unavailable if the server gives no valid answer.
        """
        body = render_recall(recall)
        try:
            answer = self._rpc.answer("memory", body, Recalled, until)
            return answer, read(answer)
        except httpx2.TimeoutException:
            raise _unavailable(f"the server did not answer within {ASK_S:g} s") from None
        except (Refused, httpx2.HTTPError, OSError) as error:
            raise _unavailable(error.message if isinstance(error, Refused) else type(error).__name__) from None

    def _keep(self, task: str, copy: _Copy) -> None:
        """Store a copy, unless another call has stored a later copy."""
        with self._mutex:
            present = self._copies.get(task)
            if present is None or present.seq < copy.seq:
                self._copies[task] = copy
            self._copies.move_to_end(task)
            while len(self._copies) > MAX_COPIES:
                self._copies.popitem(last=False)


def _key(principal: access.Principal) -> tuple[str, str]:
    """Return the key of a copied history: the id of the topmost task of the token, and the id of the agent."""
    return principal.tasks[-1], principal.claims.client_id


def _unavailable(why: str) -> Unavailable:
    message = f"the memory of the task is not available: {why}"
    return Unavailable(message, hint="try again", code="memory_unavailable")

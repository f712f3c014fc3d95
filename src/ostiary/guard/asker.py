"""The guard's fourth conversation with the server: what policies say that no guard can run (`ostiary.core.asking`).

Several calls ask at once. Each waits for at most ASK_S in all, and where too many wait already not at all; whoever gets
no answer to exactly its question is told why by each policy, as an error, which denies where the policy is enforced.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import httpx2
import msgspec

from ostiary import client
from ostiary.core import access, asking
from ostiary.core.access.elsewhere import Verdict
from ostiary.core.errors import Refused, Unavailable
from ostiary.core.jose import b64u
from ostiary.guard.feed import Feed

ASK_S = 1.0
"""How long a call waits for what is said elsewhere."""
MAX_ASKING = 64
"""calls that wait at once"""
CONNECTIONS = 8

Word = Literal["permit", "forbid", "neither", "error"]
Connect = Callable[[], Any]
"""A context: the conversation's own client, what shows who we are, and the issuer."""


class Asking:
    """One call that needs what is said elsewhere: first it is decided as far as it goes here, then with the answer."""

    __slots__ = ("_policies", "at", "question", "verdict")

    def __init__(self, policies: access.Policies, at: int) -> None:
        self._policies, self.at = policies, at
        self.question: bytes | None = None
        """what is to be asked; None while nothing is"""
        self.verdict: Verdict | None = None

    @property
    def hash(self) -> str:
        return self._policies.hash

    @property
    def policies(self) -> Mapping[str, bool]:
        return self._policies.elsewhere

    def decide(
        self, principal: access.Principal, tool: str, arguments: Mapping[str, Any], facts: access.Facts, now: int
    ) -> access.Decision | None:
        """The decision, as of when the call came but on what is alive `now`; None while an answer is needed."""
        if self.verdict is not None and (reason := access.dead(principal, facts, now)) is not None:
            return access.Decision(False, False, facts.policies.hash, (reason,))
        here = replace(facts, elsewhere=self._look_up if facts.policies is self._policies else self._swapped)
        decision = access.decide(principal, tool=tool, arguments=arguments, facts=here, now=self.at)
        return None if self.question is not None and self.verdict is None else decision

    def _look_up(self, question: bytes) -> Verdict:
        if self.verdict is None:
            self.question = question
            return ()
        return self.verdict if question == self.question else ()

    def _swapped(self, _: bytes) -> Verdict:
        return access.failed(self.policies, "the policies were changed while it was asked; try again")

    @property
    def said(self) -> dict[str, Word]:
        """For the record: what each policy said, by its name."""
        return {one.policy: _word(one) for one in self.verdict or ()}


def _word(said: access.Said) -> Word:
    return "error" if said.error else "forbid" if said.forbids else "permit" if said.permits else "neither"


class Asker:
    """Thread-safe."""

    def __init__(
        self,
        *,
        url: str,
        resource_id: str,
        feed: Feed,
        connect: Connect,
        tick: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._url, self._resource_id, self._feed = url, resource_id, feed
        self._connect, self._tick, self._random = connect, tick, random
        self._mutex, self._open = threading.Lock(), ExitStack()
        self._talk: tuple[httpx2.Client, client.Auth] | None = None
        self._room = threading.BoundedSemaphore(MAX_ASKING)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="ostiary-ask")

    def ask(self, asked: Asking, token: str) -> None:
        """See that `asked` has a verdict, for a call under that token (its `jti`)."""
        if (waiting := self._submit(asked, token)) is not None:
            try:
                asked.verdict = waiting.result(ASK_S)
            except TimeoutError:
                self._give_up(asked, waiting)

    async def ask_async(self, asked: Asking, token: str) -> None:
        """The same; the event loop goes on."""
        if (waiting := self._submit(asked, token)) is not None:
            try:
                asked.verdict = await asyncio.wait_for(asyncio.wrap_future(waiting), ASK_S)
            except TimeoutError:
                self._give_up(asked, waiting)

    def _submit(self, asked: Asking, token: str) -> Future[Verdict] | None:
        if not self._room.acquire(blocking=False):
            asked.verdict = access.failed(asked.policies, f"{MAX_ASKING} calls wait for the server already")
            return None
        try:
            waiting = self._threads.submit(self._answer, asked, token, self._tick() + round(ASK_S * 1e6))
        except RuntimeError:
            self._room.release()
            asked.verdict = access.failed(asked.policies, "the guard is closed")
            return None
        waiting.add_done_callback(lambda _: self._room.release())
        return waiting

    def _give_up(self, asked: Asking, waiting: Future[Verdict]) -> None:
        waiting.cancel()
        asked.verdict = access.failed(asked.policies, f"the server took longer than {ASK_S:g} s")

    def _answer(self, asked: Asking, token: str, until: int) -> Verdict:
        """What the server says; whatever goes wrong, each policy says that."""
        assert asked.question is not None
        question = msgspec.Raw(asked.question)
        try:
            body = asking.render_ask(
                asking.Ask(call=b64u(self._random(16)), token=token, policy=asked.hash, question=question)
            )
            answer = self._post_again(body, until)
            return asking.parse_answer(
                answer, keys=self._feed.feed_keys, issuer=self._feed.issuer, resource_id=self._resource_id,
                asked=asking.digest(body),
            )  # fmt: skip
        except httpx2.TimeoutException:
            return access.failed(asked.policies, f"the server took longer than {ASK_S:g} s")
        except (Refused, httpx2.HTTPError, OSError) as error:
            why = error.message if isinstance(error, Refused) else type(error).__name__
            return access.failed(asked.policies, f"the server cannot be asked: {why}")

    def _post_again(self, body: bytes, until: int) -> bytes:
        """The answer; asked once more where a connection had ended that lay idle."""
        try:
            return self._post(body, until)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError:
            return self._post(body, until)

    def _post(self, body: bytes, until: int) -> bytes:
        """Raises Refused, httpx2.HTTPError, OSError."""
        http, auth = self._conversation(until)
        headers = {"content-type": "application/json"}
        with http.stream("POST", f"{self._url}/feed/v1/ask", content=body, headers=headers, auth=auth) as response:
            answer = b""
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > asking.MAX_ANSWER:
                    raise Unavailable(f"it answers with more than {asking.MAX_ANSWER} bytes")
                self._check_time(until)
        if response.status_code != 200:
            raise Unavailable(f"it answers {response.status_code}{_words(answer)}")
        return answer

    def _conversation(self, until: int) -> tuple[httpx2.Client, client.Auth]:
        """What all calls ask through, from the first one on."""
        self._check_time(until)
        with self._mutex:
            self._check_time(until)
            if self._talk is None:
                self._talk = self._open.enter_context(self._connect())[:2]
            return self._talk

    def _check_time(self, until: int) -> None:
        """Raises Unavailable where whoever asked has given up."""
        if self._tick() >= until:
            raise Unavailable(f"it took longer than {ASK_S:g} s")

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        with self._mutex:
            self._talk = None
            self._open.close()


class _Problem(msgspec.Struct):
    message: str


def _words(answer: bytes) -> str:
    """What the server says is wrong."""
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return f": {problem.message[:200]}"

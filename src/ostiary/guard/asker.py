"""The guard's fourth conversation with the server: what policies say that no guard can run
(`ostiary.decision.asking`), and a person's yes, asked for or spent (`ostiary.decision.approval`), what tasks remember
(`ostiary.guard.memories`), and whether an agent that is held to a pace has had its calls (`ostiary.guard.pace`).

Several calls ask at once. Each waits for at most ASK_S in all, one that needs a person's yes for PERSON_S (somebody has
waited for that person), and where too many wait already not at all. Whoever gets no answer to exactly its question is
denied and told why: by each policy, as an error, which denies where the policy is enforced; by a refusal where a person
should have been asked.

A call that got no answer, or was not recorded after it, may have spent a yes all the same. So the same call, made again
here, asks with the same number (`ostiary.guard.unheard`) and gets the same answer: a yes is not lost, and lets one call
pass.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx2
import msgspec

from ostiary import client
from ostiary.decision import access, approval, asking
from ostiary.decision.access.elsewhere import Verdict
from ostiary.guard.asking import Asking
from ostiary.guard.feed import Feed
from ostiary.guard.person import Heard, Wanted
from ostiary.guard.unheard import Unheard
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Forbidden, Refused, Unavailable
from ostiary.protocol.jose import b64u
from ostiary.protocol.signed import Answer, parse_answer

ASK_S = 1.0
"""How long a call waits for what is said elsewhere."""
PERSON_S = 5.0
"""and for the answer of a person, which the server has or has not, but must write down"""
TOO_LONG = "the server took too long"
T = TypeVar("T")
A = TypeVar("A", bound=Answer)
SETTLED = frozenset({"approval_denied", "approval_spent", "approval_mismatch", "too_many_questions", "own_chain"})
"""Refusals after which the number of a call has spent no yes, and will spend none."""
MAX_ASKING = 64
"""calls that wait at once"""
MAX_ANSWER = asking.Answer.MAX_BYTES
"""of the longest kind"""
CONNECTIONS = 8

Connect = Callable[[], Any]
"""A context: the conversation's own client, what shows who we are, and the issuer."""


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
        unheard: Unheard,
    ) -> None:
        self._url, self._resource_id, self._feed = url, resource_id, feed
        self._connect, self._tick, self._random = connect, tick, random
        self._mutex, self._open = threading.Lock(), ExitStack()
        self._talk: tuple[httpx2.Client, client.Auth] | None = None
        self._room = threading.BoundedSemaphore(MAX_ASKING)
        self.unheard = unheard
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="ostiary-ask")

    def ask(self, asked: Asking, token: str) -> None:
        """See that `asked` has a verdict, for a call under that token (its `jti`)."""
        try:
            asked.verdict = _result(self.submit(partial(self._answer, asked, token)), ASK_S)
        except TimeoutError:
            asked.verdict = access.failed(asked.policies, TOO_LONG)
        except Refused as refusal:
            asked.verdict = access.failed(asked.policies, refusal.message)

    async def ask_async(self, asked: Asking, token: str) -> None:
        """The same; the event loop goes on."""
        try:
            waiting = self.submit(partial(self._answer, asked, token))
            asked.verdict = await asyncio.wait_for(asyncio.wrap_future(waiting), ASK_S)
        except TimeoutError:
            asked.verdict = access.failed(asked.policies, TOO_LONG)
        except Refused as refusal:
            asked.verdict = access.failed(asked.policies, refusal.message)

    def ask_person(self, wanted: Wanted) -> Heard:
        """What comes of asking a person about a call, or of a yes that is there."""
        try:
            with self._question(wanted) as asked:
                answer = _result(self.submit(partial(self._ask_person, asked.body), PERSON_S), PERSON_S)
                return asked.heard(answer)
        except TimeoutError:
            return Heard(wanted.policies, refusal=_unasked(TOO_LONG))
        except Refused as refusal:
            return Heard(wanted.policies, refusal=refusal)

    async def ask_person_async(self, wanted: Wanted) -> Heard:
        """The same; the event loop goes on."""
        try:
            with self._question(wanted) as asked:
                waiting = asyncio.wrap_future(self.submit(partial(self._ask_person, asked.body), PERSON_S))
                return asked.heard(await asyncio.wait_for(waiting, PERSON_S))
        except TimeoutError:
            return Heard(wanted.policies, refusal=_unasked(TOO_LONG))
        except Refused as refusal:
            return Heard(wanted.policies, refusal=refusal)

    @contextmanager
    def _question(self, wanted: Wanted) -> Iterator[_Question]:
        """The question about that call, with the number of the same one that is not on record yet. Raises Refused.

        Whatever goes wrong, the number is kept for the same call made again: only the server's word that the yes was
        spent by another ends it. A server that restarts refuses for many other reasons.
        """
        asked = _Question(wanted, self.unheard.begin(wanted.same, b64u(self._random(16))), self.unheard)
        try:
            yield asked
        except Forbidden as refusal:
            if refusal.code in SETTLED:
                self.unheard.drop(asked.number)
            raise
        finally:
            if not asked.is_spent:
                self.unheard.release(asked.number)

    def submit(self, work: Callable[[int], T], within_s: float | None = None) -> Future[T]:
        """Let a thread do that, given the moment when ASK_S (or so long) are over and whoever asked has gone. Raises
        Unavailable.
        """
        if not self._room.acquire(blocking=False):
            raise Unavailable(f"{MAX_ASKING} calls wait for the server already", code="approval_unavailable")
        try:
            waiting = self._threads.submit(work, self._tick() + round((within_s or ASK_S) * 1e6))
        except RuntimeError:
            self._room.release()
            raise Unavailable("the guard is closed", code="approval_unavailable") from None
        waiting.add_done_callback(lambda _: self._room.release())
        return waiting

    def _ask_person(self, body: bytes, until: int) -> approval.Answer:
        """Raises Forbidden in the server's words, Unavailable since nobody can be asked."""
        try:
            return self.answer("approval", body, approval.Answer, until)
        except Answered as answered:
            raise answered.own or _unasked(answered.message) from None
        except (Refused, httpx2.HTTPError, OSError) as error:
            raise _unasked(error.message if isinstance(error, Refused) else type(error).__name__) from None

    def _answer(self, asked: Asking, token: str, until: int) -> Verdict:
        """What the server says; whatever goes wrong, each policy says that."""
        assert asked.question is not None
        question = msgspec.Raw(asked.question)
        try:
            body = asking.render_ask(
                asking.Ask(call=b64u(self._random(16)), token=token, policy=asked.hash, question=question)
            )
            return self.answer("ask", body, asking.Answer, until).said
        except httpx2.TimeoutException:
            return access.failed(asked.policies, TOO_LONG)
        except (Refused, httpx2.HTTPError, OSError) as error:
            why = error.message if isinstance(error, Refused) else type(error).__name__
            return access.failed(asked.policies, f"the server cannot be asked: {why}")

    def answer(self, verb: str, body: bytes, kind: type[A], until: int) -> A:
        """What the server signed about just that. Raises Refused, httpx2.HTTPError, OSError."""
        return parse_answer(
            self.post(verb, body, until), kind, body=body, keys=self._feed.feed_keys, issuer=self._feed.issuer,
            resource_id=self._resource_id,
        )  # fmt: skip

    def post(self, verb: str, body: bytes, until: int) -> bytes:
        """The answer; asked once more where a connection had ended that lay idle. Raises as `_post`."""
        try:
            return self._post(verb, body, until)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError:
            return self._post(verb, body, until)

    def _post(self, verb: str, body: bytes, until: int) -> bytes:
        """Raises Refused, httpx2.HTTPError, OSError."""
        http, auth = self._conversation(until)
        headers, left_s = {"content-type": "application/json"}, max((until - self._tick()) / 1e6, 0.001)
        with http.stream(
            "POST", f"{self._url}/feed/v1/{verb}", content=body, headers=headers, auth=auth, timeout=left_s
        ) as response:
            answer = b""
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise Unavailable(f"it answers with more than {MAX_ANSWER} bytes")
                self._check_time(until)
        if response.status_code != 200:
            raise Answered(response.status_code, _problem(answer))
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
            raise Unavailable("it took too long")

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        with self._mutex:
            self._talk = None
            self._open.close()


@dataclass(slots=True)
class _Question:
    """A question that is being asked about a call."""

    wanted: Wanted
    number: str
    unheard: Unheard
    is_spent: bool = False

    @property
    def body(self) -> bytes:
        """Raises Malformed."""
        return approval.render_ask(self.wanted.ask(self.number))

    def heard(self, answer: approval.Answer) -> Heard:
        """What came of it. Raises SpoolFailed if a spent yes cannot be noted."""
        if answer.state != "spent":
            self.unheard.drop(self.number)
            return Heard(self.wanted.policies, answer)
        self.unheard.spend(self.number, answer.approval)
        self.is_spent = True
        return Heard(self.wanted.policies, answer, number=self.number)


def _unasked(why: str) -> Unavailable:
    return Unavailable(f"nobody can be asked: {why}", hint="try again", code="approval_unavailable")


def _result(waiting: Future[T], within_s: float) -> T:
    """Raises TimeoutError; then nobody begins with it any more."""
    try:
        return waiting.result(within_s)
    except TimeoutError:
        waiting.cancel()
        raise


class _Problem(msgspec.Struct):
    message: str
    error: str = "refused"
    hint: str = ""


class Answered(Unavailable):
    """The server gives no answer, and says why: `own` is its own refusal, if it is one."""

    def __init__(self, status: int, problem: _Problem | None) -> None:
        super().__init__(f"it answers {status}" + (f": {problem.message[:200]}" if problem else ""))
        self.own: Forbidden | None = None
        if problem is not None and 400 <= status < 500:
            self.own = Forbidden(problem.message[:200], hint=problem.hint[:200], code=problem.error[:64])


def _problem(answer: bytes) -> _Problem | None:
    """What the server says is wrong."""
    try:
        return json_decoder(_Problem)(answer)
    except (msgspec.DecodeError, RecursionError):
        return None

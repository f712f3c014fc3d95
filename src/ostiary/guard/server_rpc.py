"""Requests of the guard to the server while a call is decided.

They ask for verdicts of remote policies (`ostiary.decision.asking`), for a person's approval
(`ostiary.decision.approval`), for the memory of tasks, and for the rate of throttled agents.

Several calls ask at once. Each waits for at most ASK_S in all, a call that needs an approval for PERSON_S (the answer
is stored first). If too many calls wait already, a call does not wait at all. A call that gets no answer to exactly its
question is denied with a reason: an error of each remote policy, which denies if the policy is enforced; a
refusal if a person should have been asked.
"""

from __future__ import annotations

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
from ostiary.client.refusals import parse_refusal, read_object
from ostiary.decision import approval, asking
from ostiary.decision.access import RemotePolicies, fail_all
from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.guard.approvals import Approval, ApprovalOutcome, PendingApprovals
from ostiary.guard.drivers import Wait, Waits
from ostiary.guard.feed import Feed
from ostiary.protocol.errors import Forbidden, Refused, Unavailable
from ostiary.protocol.jose import b64u
from ostiary.protocol.signed import SignedAnswer, parse_answer

ASK_S = 1.0
"""Maximum wait of a call for an answer, in seconds."""
PERSON_S = 5.0
"""Maximum wait of a call for a spent approval, in seconds: the server stores the answer before it sends it."""
TOO_LONG = "the server took too long"
T = TypeVar("T")
A = TypeVar("A", bound=SignedAnswer)
SETTLED = frozenset({"approval_denied", "approval_spent", "approval_mismatch", "too_many_questions", "own_chain"})
"""Refusals after which the number of a call can never have spent an approval."""
MAX_ASKING = 64
"""Maximum number of calls that wait at once."""
MAX_ANSWER = asking.RemotePolicyAnswer.MAX_BYTES
"""Maximum size of an answer, in bytes."""
CONNECTIONS = 8

Connect = Callable[[], Any]
"""Function that opens a context: the HTTP client of the connection, its authentication, and the issuer."""


class ServerRpc:
    """Requests over one pool of connections. Thread-safe."""

    def __init__(
        self,
        *,
        url: str,
        resource_id: str,
        feed: Feed,
        connect: Connect,
        tick: Callable[[], int],
        random: Callable[[int], bytes],
        pending: PendingApprovals,
    ) -> None:
        self._url, self._resource_id, self._feed = url, resource_id, feed
        self._connect, self._tick, self._random = connect, tick, random
        self._mutex, self._open = threading.Lock(), ExitStack()
        self._connection: tuple[httpx2.Client, client.Auth] | None = None
        self._is_closed = False
        self._room = threading.BoundedSemaphore(MAX_ASKING)
        self.pending = pending
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="ostiary-ask")

    def ask_policies(self, need: RemotePolicies, token: str) -> Waits[RemoteVerdict]:
        """Return the verdict of the remote policies on a call under that token (its `jti`). If anything fails,
        each policy fails with that message.
        """
        names = need.policies.remote
        try:
            verdict: RemoteVerdict = yield Wait(self.submit(partial(self._ask_policies, need, token)), ASK_S)
            return verdict
        except TimeoutError:
            return fail_all(names, TOO_LONG)
        except Refused as refusal:
            return fail_all(names, refusal.message)

    def ask_person(self, need: Approval) -> Waits[ApprovalOutcome]:
        """Spend an approval for the call, or request one."""
        try:
            with self._question(need) as question:
                answer = yield Wait(self.submit(partial(self._ask_person, question.body), PERSON_S), PERSON_S)
                return question.outcome(answer)
        except TimeoutError:
            return ApprovalOutcome(need.policies, refusal=_unasked(TOO_LONG))
        except Refused as refusal:
            return ApprovalOutcome(need.policies, refusal=refusal)

    @contextmanager
    def _question(self, need: Approval) -> Iterator[_Question]:
        """Return the question about the call, with the number of the same call if that is not recorded yet. Raises
        Refused.

        Whatever fails, the number is kept for the repeated call, unless the server says that another call has spent the
        approval. A server that restarts refuses for many other reasons.
        """
        question = _Question(need, self.pending.begin(need.digest, b64u(self._random(16))), self.pending)
        try:
            yield question
        except Forbidden as refusal:
            if refusal.code in SETTLED:
                self.pending.drop(question.number)
            raise
        finally:
            if not question.is_spent:
                self.pending.release(question.number)

    def submit(
        self, work: Callable[[int], T], within_s: float | None = None, *, code: str = "approval_unavailable"
    ) -> Future[T]:
        """Run `work` in a thread. `work` gets the time at which the call gives up: after ASK_S, or `within_s` seconds.

        Raises Unavailable with that code if too many calls wait, or the guard is closed.
        """
        if not self._room.acquire(blocking=False):
            raise Unavailable(f"{MAX_ASKING} calls wait for the server already", hint="try again", code=code)
        try:
            waiting = self._threads.submit(work, self._tick() + round((within_s or ASK_S) * 1e6))
        except RuntimeError:
            self._room.release()
            raise Unavailable("the guard is closed", code=code) from None
        waiting.add_done_callback(lambda _: self._room.release())
        return waiting

    def _ask_person(self, body: bytes, until: int) -> approval.ApprovalAnswer:
        """Request a person's approval. Raises Forbidden with the server's message, Unavailable if no person can
        be asked.
        """
        try:
            return self.answer("approval", body, approval.ApprovalAnswer, until)
        except ServerRefused as refused:
            raise refused.own or _unasked(refused.message) from None
        except (Refused, httpx2.HTTPError, OSError) as error:
            raise _unasked(error.message if isinstance(error, Refused) else type(error).__name__) from None

    def _ask_policies(self, need: RemotePolicies, token: str, until: int) -> RemoteVerdict:
        names = need.policies.remote
        try:
            body = asking.render_ask(
                asking.RemotePolicyRequest(
                    call=b64u(self._random(16)),
                    token=token,
                    policy=need.policies.hash,
                    question=msgspec.Raw(need.question),
                )
            )
            return self.answer("ask", body, asking.RemotePolicyAnswer, until).results
        except httpx2.TimeoutException:
            return fail_all(names, TOO_LONG)
        except (Refused, httpx2.HTTPError, OSError) as error:
            why = error.message if isinstance(error, Refused) else type(error).__name__
            return fail_all(names, f"the server cannot be asked: {why}")

    def answer(self, verb: str, body: bytes, kind: type[A], until: int) -> A:
        """Return the server's signed answer to exactly this request. Raises Refused, httpx2.HTTPError, OSError."""
        return parse_answer(
            self.post(verb, body, until),
            kind,
            body=body,
            keys=self._feed.feed_keys,
            issuer=self._feed.issuer,
            resource_id=self._resource_id,
        )

    def post(self, verb: str, body: bytes, until: int) -> bytes:
        """Return the response. A connection that was closed while idle is replaced once. Raises as `_send`."""
        return self.request("POST", verb, body, until)

    def request(self, method: str, verb: str, body: bytes, until: int) -> bytes:
        """Return the answer to a request of any method, as `post` does."""
        try:
            return self._send(method, verb, body, until)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError:
            return self._send(method, verb, body, until)

    def _send(self, method: str, verb: str, body: bytes, until: int) -> bytes:
        """Send a request to the server, and return the body of the answer. Raises Refused, httpx2.HTTPError,
        OSError.
        """
        http, auth = self._connected(until)
        headers, left_s = {"content-type": "application/json"}, max((until - self._tick()) / 1e6, 0.001)
        with http.stream(
            method, f"{self._url}/feed/v1/{verb}", content=body, headers=headers, auth=auth, timeout=left_s
        ) as response:
            answer = b""
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise Unavailable(f"the answer has more than {MAX_ANSWER} bytes")
                self._check_time(until)
        if response.status_code != 200:
            raise ServerRefused(response.status_code, answer)
        return answer

    def _connected(self, until: int) -> tuple[httpx2.Client, client.Auth]:
        """Return the client that all calls share; the first call opens it."""
        self._check_time(until)
        with self._mutex:
            self._check_time(until)
            if self._is_closed:  # a request whose connection `close` has ended must not open another
                raise Unavailable("the guard is closed")
            if self._connection is None:
                self._connection = self._open.enter_context(self._connect())[:2]
            return self._connection

    def _check_time(self, until: int) -> None:
        """Check that the call still waits for the answer. Raises Unavailable."""
        if self._tick() >= until:
            raise Unavailable(TOO_LONG)

    def close(self) -> None:
        """Close the connection and the threads."""
        self._threads.shutdown(wait=False)
        with self._mutex:
            self._is_closed, self._connection = True, None
            self._open.close()


@dataclass(slots=True)
class _Question:
    """A question about a call that waits for its answer."""

    need: Approval
    number: str
    pending: PendingApprovals
    is_spent: bool = False

    @property
    def body(self) -> bytes:
        """Return the body of the request for an approval. Raises Malformed."""
        return approval.render_ask(self.need.ask(self.number))

    def outcome(self, answer: approval.ApprovalAnswer) -> ApprovalOutcome:
        """Return the effect of the answer on the call. Raises SpoolFailed if a spent approval cannot be recorded."""
        if answer.state != "spent":
            self.pending.drop(self.number)
            return ApprovalOutcome(self.need.policies, answer)
        self.pending.spend(self.number, answer.approval)
        self.is_spent = True
        return ApprovalOutcome(self.need.policies, answer, number=self.number)


def _unasked(why: str) -> Unavailable:
    return Unavailable(f"no person can be asked: {why}", hint="try again", code="approval_unavailable")


class ServerRefused(Unavailable):
    """The server answered with an error. `own` is its refusal, if it sent one."""

    def __init__(self, status: int, content: bytes) -> None:
        refusal = parse_refusal(status, content, kind=Forbidden)
        is_stated = bool(read_object(content).get("message"))
        super().__init__(f"the server answers {status}" + (f": {refusal.message}" if is_stated else ""))
        self.own = refusal if is_stated and isinstance(refusal, Forbidden) else None

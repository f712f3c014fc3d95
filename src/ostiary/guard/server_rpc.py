"""Requests of the guard to the server while a call is decided.

The requests ask for verdicts of remote policies (`ostiary.decision.asking`), for a person's approval
(`ostiary.decision.approval`), for the memory of tasks, and for the count of calls of throttled agents.

Several calls can wait at the same time. Each waits at most ASK_S in all, or PERSON_S for an approval, because the
server stores an approval as spent before it answers. If MAX_ASKING calls already wait, a further call is refused at
once. If the server does not answer exactly the sent question, each remote policy counts as failed (a failed policy
denies if it is enforced), and a request for an approval is refused.
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
"""Maximum time in seconds for which a call waits for an answer of the server; then the call is denied."""
PERSON_S = 5.0
"""Maximum wait of a call for an approval, in seconds. This wait is longer than ASK_S, because the server stores the
approval as spent before it answers.
"""
TOO_LONG = "the server took too long"
T = TypeVar("T")
A = TypeVar("A", bound=SignedAnswer)
SETTLED = frozenset({"approval_denied", "approval_spent", "approval_mismatch", "too_many_questions"})
"""Codes of refusals that prove that the number of a call has not spent an approval and never will."""
MAX_ASKING = 64
"""Maximum number of calls of a guard that wait for the server at the same time; a further call is denied."""
MAX_ANSWER = asking.RemotePolicyAnswer.MAX_BYTES
"""Maximum size of an answer of the server, in bytes."""
CONNECTIONS = 8

Connect = Callable[[], Any]
"""Function that returns a context manager, which yields (HTTP client, its authentication, issuer)."""


class ServerRpc:
    """The requests of a guard to the server about single calls, over one pool of connections. Thread-safe."""

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
        """Ask the server for the verdict of the remote policies on a call with the token whose `jti` is `token`, and
        return it. If the request fails, each policy in the verdict has failed with the message of the failure.
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
        """Spend an approval for the call, or request an approval of a person. Return the outcome; a failure is part of
        the outcome.
        """
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
        """Yield the question about the call, with the number of an earlier equal call if that call has no record yet.
        Raises the error of the block.

        If the block fails, the number is kept for a later equal call, unless the server's refusal is one of SETTLED.
        Any other refusal may be temporary, for example while the server restarts.
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
        """Run `work` in a thread, and return its future. The argument of `work` is its deadline (boot clock,
        microseconds): `within_s` seconds from now, ASK_S seconds if `within_s` is None. `work` must keep the deadline
        itself.

        Raises Unavailable with the code `code` if MAX_ASKING calls already wait, or the guard is closed.
        """
        if not self._room.acquire(blocking=False):
            raise Unavailable(f"{MAX_ASKING} calls wait for the server already", hint="try again", code=code)
        try:
            waiting = self._threads.submit(work, self._tick() + round((within_s or ASK_S) * 1e6))
        except RuntimeError:
            self._room.release()
            raise Unavailable("the guard is closed", code=code, hint="create and start another guard") from None
        waiting.add_done_callback(lambda _: self._room.release())
        return waiting

    def _ask_person(self, body: bytes, until: int) -> approval.ApprovalAnswer:
        """Send a request for a person's approval, and return the server's answer. Raises Forbidden with the server's
        message, Unavailable if no person can be asked.
        """
        try:
            return self.answer("approval", body, approval.ApprovalAnswer, until)
        except RpcRefused as refused:
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
        """Send a request, and return the parsed answer, whose signature covers this request. `until`: time at which the
        call stops waiting, in microseconds. Raises Refused if the server refuses the request or its answer is not
        valid, httpx2.HTTPError or OSError if the server cannot be reached.
        """
        return parse_answer(
            self.post(verb, body, until),
            kind,
            body=body,
            keys=self._feed.feed_keys,
            issuer=self._feed.issuer,
            resource_id=self._resource_id,
        )

    def post(self, verb: str, body: bytes, until: int) -> bytes:
        """Send a POST request, as `request` does, and return the body of the response."""
        return self.request("POST", verb, body, until)

    def request(self, method: str, verb: str, body: bytes, until: int) -> bytes:
        """Send a request with the HTTP method `method` to the path `verb` of the feed API, and return the body of the
        response. If the idle connection was closed, the request is sent again on a new connection. `until`: time at
        which the call stops waiting, in microseconds. Raises Refused if the server refuses the request,
        httpx2.HTTPError or OSError if the server cannot be reached.
        """
        try:
            return self._send(method, verb, body, until)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError:
            return self._send(method, verb, body, until)

    def _send(self, method: str, verb: str, body: bytes, until: int) -> bytes:
        """Send a request to the server, and return the body of the answer. Raises Refused if the server refuses the
        request, httpx2.HTTPError or OSError if the server cannot be reached.
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
                    raise Unavailable(f"the answer of the server has more than {MAX_ANSWER} bytes")
                self._check_time(until)
        if response.status_code != 200:
            raise RpcRefused(response.status_code, answer)
        return answer

    def _connected(self, until: int) -> tuple[httpx2.Client, client.Auth]:
        """Return the HTTP client that all calls share, and its authentication. The first call opens the client."""
        self._check_time(until)
        with self._mutex:
            self._check_time(until)
            if self._is_closed:  # after `close` has ended the connection, a request must not open a new one
                raise Unavailable("the guard is closed", hint="create and start another guard")
            if self._connection is None:
                self._connection = self._open.enter_context(self._connect())[:2]
            return self._connection

    def _check_time(self, until: int) -> None:
        """Check that the time `until` has not passed. Raises Unavailable otherwise."""
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
    """A request for an approval that the server has not answered yet. `number`: the number of the call."""

    need: Approval
    number: str
    pending: PendingApprovals
    is_spent: bool = False

    @property
    def body(self) -> bytes:
        """Return the body of the request for an approval. Raises Malformed for arguments without a canonical JSON
        form.
        """
        return approval.render_ask(self.need.ask(self.number))

    def outcome(self, answer: approval.ApprovalAnswer) -> ApprovalOutcome:
        """Return the outcome of a request for an approval from the server's answer. If the answer says that the call
        has spent an approval, record that first. Raises SpoolFailed if this record cannot be written.
        """
        if answer.state != "spent":
            self.pending.drop(self.number)
            return ApprovalOutcome(self.need.policies, answer)
        self.pending.spend(self.number, answer.approval)
        self.is_spent = True
        return ApprovalOutcome(self.need.policies, answer, number=self.number)


def _unasked(why: str) -> Unavailable:
    return Unavailable(f"no person can be asked: {why}", hint="try again", code="approval_unavailable")


class RpcRefused(Unavailable):
    """The server answered a request of the guard with an error status. `own`: for a status below 500, the refusal that
    the body states; otherwise, and without such a body, None.
    """

    def __init__(self, status: int, content: bytes) -> None:
        refusal = parse_refusal(status, content, kind=Forbidden)
        is_stated = bool(read_object(content).get("message"))
        super().__init__(
            f"the server answers {status}" + (f": {refusal.message}" if is_stated else ""), hint=refusal.hint
        )
        self.own = refusal if is_stated and isinstance(refusal, Forbidden) else None

"""The messages between one client and one MCP server over any transport: decisions on requests, and outcomes of
calls.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ostiary.guard import Call, Withheld, data_for_developer, text_for_model
from ostiary.guard.mcp import DENIED, is_unknown
from ostiary.protocol.errors import Malformed, Refused, Unavailable
from ostiary.run import frames
from ostiary.run.frames import Answer, Id, Message
from ostiary.run.gate import Gate, Verdict

MAX_IN_FLIGHT = 10_000


class Exchange:
    """The traffic between one client and one MCP server. Decides the client's requests, and records the outcomes of its
    calls. Thread-safe.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._counting = threading.Lock()
        self._in_flight: dict[Id, Call] = {}
        self._undecided = dict[Id, str]()
        """methods of requests in flight that need no decision, by the id of the request"""
        self._heard = list[tuple[bytes, Call, Answer]]()
        """(line of the answer, call, answer) for each answered call whose answer was not yet delivered to the client"""

    def admit(self, line: bytes, answer: Callable[[bytes], None], *, why: Malformed | None = None) -> bool:
        """Decide and record every request in a line of the client that needs a decision. Return whether the line may be
        forwarded to the server; if not, `answer` is called with each line that answers the client.

        `why`: a refusal if the server may read the line differently than the guard. The line is then refused; in mode
        `watch` it is forwarded.
        """
        try:
            if why is not None:
                raise why
            messages = frames.read(line)
        except Malformed as refusal:
            verdict = self._gate.undecided("(malformed)", refusal)
            if not verdict.passes:
                request_id, code = _answered(refusal)
                answer(frames.error(request_id, code, text_for_model(refusal), data_for_developer(refusal)))
            return verdict.passes
        reused = self._reused(messages)
        decided = [
            (message, self._decide(message, is_reused=message.id in reused))
            for message in messages
            if message.tool is not None or (message.method and message.id in reused)
        ]
        if all(verdict.passes for _, verdict in decided):
            self._follow(messages)
            for message, verdict in decided:
                self._await(message, verdict.call)
            return True
        self._refuse(messages, {id(message): verdict for message, verdict in decided}, answer)
        return False

    def _reused(self, messages: Sequence[Message]) -> set[Id]:
        """Return the ids that another request in flight, or another request of the line, also has: their
        answers cannot be distinguished.
        """
        ids = Counter(message.id for message in messages if message.method and message.id is not None)
        return {id for id, count in ids.items() if count > 1 or id in self._in_flight or id in self._undecided}

    def _decide(self, message: Message, *, is_reused: bool) -> Verdict:
        tool = message.tool or message.method
        if is_reused:
            why = Malformed("another request in flight has this `id`", hint="give each request a different `id`")
            return self._gate.undecided(tool, why)
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            full = Unavailable(f"{MAX_IN_FLIGHT} calls are in flight already", hint="wait for an answer, then retry")
            return self._gate.undecided(tool, full)
        return self._gate.decide(tool, message.arguments)

    def _refuse(
        self, messages: Sequence[Message], verdicts: dict[int, Verdict], answer: Callable[[bytes], None]
    ) -> None:
        """Answer every request of the line with an error. Calls of the line that were allowed are recorded as
        failed, since they were not sent.
        """
        batch_denial = Unavailable(
            "another call of the same batch is denied", hint="send this call in a separate request"
        )
        for message in messages:
            verdict = verdicts.get(id(message))
            why = verdict.why if verdict is not None and not verdict.passes else batch_denial
            if verdict is not None and verdict.passes and verdict.call is not None:
                self._gate.finish(verdict.call, ok=False)
            if message.id is None or not message.method:
                continue
            if why is not None and why.code == "unknown_tool" and is_unknown(message.method):
                answer(frames.error(message.id, frames.METHOD_NOT_FOUND, "Method not found", data_for_developer(why)))
            else:
                answer(_error(message.id, why or batch_denial))

    def _await(self, message: Message, call: Call | None) -> None:
        """Register a call that waits for its outcome. A call without an id gets no answer, and is recorded as
        failed. In mode `watch` a call may reuse the id of an earlier call, which is then recorded as failed.
        """
        with self._counting:
            lost = call if message.id is None else self._in_flight.pop(message.id, None)
            if message.id is not None and call is not None:
                self._in_flight[message.id] = call
            elif message.id is not None:
                self._undecided[message.id] = message.method
        if lost is not None:
            self._gate.finish(lost, ok=False)

    def receive(self, line: bytes) -> bytes:
        """Return the lines for the client in place of `line`, a line of the server. After the delivery, call
        `record_outcomes` with `line`.

        The result is the line itself, or lines with errors if the client must not get the answers in the line. The
        result is empty if the line has a notification that may not reach the agent (`Gate.is_alive`).
        """
        try:
            messages = frames.server_messages(line)
        except Malformed as refusal:
            return self._unread(line, refusal)
        if any(message.is_notification for message in messages) and not self._gate.is_alive():
            return b""
        answers = [message for message in messages if message.is_answer]
        if not answers:
            return line
        matched = [(answer, *self._take(line, answer)) for answer in answers]
        for answer, _, method in matched:  # note the listed tools before the agent can call one of them
            if method == "tools/list":
                self._gate.listed(answer.tools)
        try:
            if self._gate.enforces:
                _check_asked_for(matched)
            self._observe(matched)
        except Refused as refusal:
            withheld = Withheld.because_of(refusal)
            return b"".join(
                _error(_id(answer), withheld if call or method == "tools/call" else refusal)
                for answer, call, method in matched
                if call or method
            )
        return line

    def record_outcomes(self, line: bytes) -> None:
        """Record the outcomes of the calls that `line` answers; `line` is the same object that `receive` got."""
        if not self._heard:
            return
        with self._counting:
            noted = [one for one in self._heard if one[0] is line]
            self._heard = [one for one in self._heard if one[0] is not line]
        for _, call, answer in noted:
            self._gate.finish(call, ok=answer.is_ok, bytes=answer.size)

    def end(self) -> None:
        """Record all calls as failed whose answers were not received or not delivered. Call this when the server sends
        no further answers.
        """
        for call in self._take_all():
            self._gate.finish(call, ok=False)

    def _take(self, line: bytes, answer: Answer) -> tuple[Call | None, str]:
        """Return (call, method) for the request that `answer` answers: the decided call, or the method of a request
        that needed no decision; (None, "") for any other message. The `id` of the request can be reused afterwards.
        """
        id = _id(answer)
        with self._counting:
            method, call = self._undecided.pop(id, ""), self._in_flight.pop(id, None)
            if call is not None:
                self._heard.append((line, call, answer))
        return call, method

    def _observe(self, matched: Iterable[tuple[Answer, Call | None, str]]) -> None:
        """Process the answers of calls whose results are limited or are added to a task memory: state the size of each
        result, and add the output to the memory. Raises Malformed for an unreadable answer, Withheld for an answer
        that the client must not get.
        """
        for answer, call, _ in matched:
            if call is None or not (call.ahead or call.watched):
                continue
            call.result(ok=answer.is_ok, bytes=answer.size)
            try:
                returned = answer.returned
            except Malformed:
                if call.enforces:
                    raise
                continue
            for output in returned:
                self._gate.observe(call, output)

    def _unread(self, line: bytes, refusal: Malformed) -> bytes:
        """Return the lines for the client in place of a line of the server that cannot be read: an error for each
        waiting call whose result is limited or is added to a task memory, because the line may answer any of them. In
        mode `watch`, return the line itself.
        """
        if not self._gate.enforces:
            return line
        withheld = Withheld.because_of(refusal, is_certain=False)
        with self._counting:
            waiting = {id for id, call in self._in_flight.items() if call.ahead or call.watched}
        return b"".join(_error(id, withheld) for id in waiting)

    def _follow(self, messages: Sequence[Message]) -> None:
        """Note requests that pass without a decision, so that their answers are recognized. A cancelled call is
        recorded as failed.
        """
        for message in messages:
            if message.tool is None and message.method and message.id is not None:
                with self._counting:
                    if len(self._undecided) < MAX_IN_FLIGHT:
                        self._undecided[message.id] = message.method
            if message.cancels is not None:  # a cancelled request gets no answer (MCP "cancellation")
                with self._counting:
                    self._undecided.pop(message.cancels, None)
                    call = self._in_flight.pop(message.cancels, None)
                if call is not None:
                    self._gate.finish(call, ok=False)

    def _take_all(self) -> list[Call]:
        with self._counting:
            calls = [*self._in_flight.values(), *(call for _, call, _ in self._heard)]
            self._in_flight.clear()
            self._heard.clear()
        return calls


def _error(id: Id, refusal: Refused) -> bytes:
    """Return the line that answers a request with a refusal."""
    return frames.error(id, DENIED, text_for_model(refusal), data_for_developer(refusal))


def _answered(refusal: Malformed) -> tuple[Id, int]:
    """Return (id, error code) of the answer to a line that cannot be read (JSON-RPC 2.0 section 5.1)."""
    if isinstance(refusal, frames.InvalidParams):
        return refusal.id, frames.INVALID_PARAMS
    return None, frames.PARSE_ERROR if refusal.message.startswith("not JSON") else frames.INVALID_REQUEST


def _check_asked_for(matched: Iterable[tuple[Answer, Call | None, str]]) -> None:
    """Check that a line answers only requests in flight. Raises Unavailable otherwise.

    A second answer to a call, or an answer to a cancelled call, would reach the client unchecked. Some clients take an
    answer with the id `"1"`, or without an `id`, for the answer to the request `1`.
    """
    for answer, call, method in matched:
        is_matched = (call is not None or method) and (answer.result or answer.error)
        if not is_matched and (answer.result or answer.id is not None):
            raise Unavailable("the MCP server sent an answer for which no request is waiting")


def _id(answer: Answer) -> Id:
    """Return the id of an answer; None for a value that no request can have as its id."""
    id = answer.id
    return int(id) if isinstance(id, float) and id.is_integer() else id if isinstance(id, (str, int)) else None

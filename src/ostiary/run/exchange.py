"""The messages between one client and one MCP server, whatever carries them: what is decided, and what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ostiary.core.errors import Malformed, Unavailable
from ostiary.guard import Call, Withheld, data, words
from ostiary.guard.mcp import DENIED, is_unknown
from ostiary.run import frames
from ostiary.run.frames import Id, Message
from ostiary.run.gate import Gate, Verdict

MAX_IN_FLIGHT = 10_000


class Exchange:
    """Decides what the client sends, and follows the answers. Thread-safe."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._counting = threading.Lock()
        self._in_flight: dict[Id, Call] = {}
        self._listing = set[Id]()
        """requests for `tools/list` that are in flight"""

    def admit(self, line: bytes, answer: Callable[[bytes], None]) -> bool:
        """Whether the line goes to the server; if not, `answer` takes lines for the client.

        Everything in the line is decided and on record.
        """
        try:
            messages = frames.read(line)
        except Malformed as refusal:
            verdict = self._gate.undecided("(malformed)", refusal)
            if not verdict.passes:
                asked, code = _answered(refusal)
                answer(frames.error(asked, code, words(refusal), data(refusal)))
            return verdict.passes
        decided = [(message, self._decide(message)) for message in messages if message.tool is not None]
        if not decided:
            self._follow(messages)
            return True
        if all(verdict.passes for _, verdict in decided):
            for message, verdict in decided:
                self._await(message, verdict.call)
            return True
        self._refuse(messages, {id(message): verdict for message, verdict in decided}, answer)
        return False

    def _decide(self, message: Message) -> Verdict:
        assert message.tool is not None
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return self._gate.undecided(message.tool, Unavailable(f"{MAX_IN_FLIGHT} calls are in flight"))
        return self._gate.decide(message.tool, message.arguments)

    def _refuse(
        self, messages: Sequence[Message], verdicts: dict[int, Verdict], answer: Callable[[bytes], None]
    ) -> None:
        """Answer every request of the line; what was allowed beside it has not happened."""
        beside = Unavailable("another call of the same batch is denied", hint="send it by itself")
        for message in messages:
            verdict = verdicts.get(id(message))
            why = verdict.why if verdict is not None and not verdict.passes else beside
            if verdict is not None and verdict.passes and verdict.call is not None:
                self._gate.finish(verdict.call, ok=False)
            if message.id is None or not message.method:
                continue
            if why is not None and why.code == "unknown_tool" and is_unknown(message.method):
                answer(frames.error(message.id, frames.METHOD_NOT_FOUND, "Method not found", data(why)))
            else:
                answer(frames.error(message.id, DENIED, words(why or beside), data(why or beside)))

    def _await(self, message: Message, call: Call | None) -> None:
        """The outcome of the call is still to come; of one without an id nobody will hear it."""
        if call is None:
            return
        with self._counting:
            lost = call if message.id is None else self._in_flight.get(message.id)
            if message.id is not None:
                self._in_flight[message.id] = call
        if lost is not None:
            self._gate.finish(lost, ok=False)

    def receive(self, line: bytes) -> bytes:
        """Return what the client gets of a line of the server; call `note` once the client has it. Of a notification to
        an agent that was stopped that is nothing: subscriptions end with the token, the task or the agent.
        """
        if frames.is_notification(line) and not self._gate.is_alive():
            return b""
        if self._listing:
            self._hear(line)
        return self._withheld(line) or line

    def note(self, line: bytes) -> None:
        """Record the outcome of the calls that a line of the server answers."""
        if self._in_flight:
            self._note(line)

    def end(self) -> None:
        """No answers come any more."""
        for call in self._take_all():
            self._gate.finish(call, ok=False)

    def _hear(self, line: bytes) -> None:
        """What the server says of its tools, before the agent has it and can call one."""
        for answer in frames.answers(line):
            if answer.id in self._listing:
                self._listing.discard(answer.id)
                self._gate.listed(answer.tools)

    def _note(self, line: bytes) -> None:
        for answer in frames.answers(line):
            with self._counting:
                call = self._in_flight.pop(answer.id, None)  # type: ignore[arg-type]
            if call is not None:
                self._gate.finish(call, ok=answer.is_ok, bytes=len(bytes(answer.result or answer.error)))

    def _withheld(self, line: bytes) -> bytes | None:
        """What the agent hears instead of a line with more in it than its calls may return, or that their task cannot
        remember.
        """
        with self._counting:
            if not any(call.ahead or call.watched for call in self._in_flight.values()):
                return None
        answers = list(frames.answers(line))
        try:
            for answer in answers:
                call = self._in_flight.get(answer.id)  # type: ignore[arg-type]
                if call is not None:
                    call.result(ok=answer.is_ok, bytes=len(bytes(answer.result or answer.error)))
                    self._gate.observe(call, answer.returned)
        except Withheld as refusal:
            said = words(refusal), data(refusal)
            return b"".join(frames.error(answer.id, DENIED, *said) for answer in answers if answer.id is not None)
        return None

    def _follow(self, messages: Sequence[Message]) -> None:
        """What passes undecided and matters all the same."""
        for message in messages:
            if message.method == "tools/list" and len(self._listing) < MAX_IN_FLIGHT:
                self._listing.add(message.id)
            if message.cancels is not None:  # no answer comes to what was cancelled (MCP "cancellation")
                with self._counting:
                    call = self._in_flight.pop(message.cancels, None)
                if call is not None:
                    self._gate.finish(call, ok=False)

    def _take_all(self) -> list[Call]:
        with self._counting:
            calls = list(self._in_flight.values())
            self._in_flight.clear()
        return calls


def _answered(refusal: Malformed) -> tuple[Id, int]:
    """The id and the code of the error with which a line is answered that cannot be read (JSON-RPC 2.0 section 5.1)."""
    if isinstance(refusal, frames.InvalidParams):
        return refusal.id, frames.INVALID_PARAMS
    return None, frames.PARSE_ERROR if refusal.message.startswith("not JSON") else frames.INVALID_REQUEST

"""The process between the agent and one of its stdio MCP servers.

Lines pass as they are, byte for byte, but for what is to be decided: a tool call of the agent, and what else reads or
does something (`ostiary.guard.mcp`). What is denied does not reach the server, and is answered here with the JSON-RPC
error -32001. Of a batch all pass, or none. A line that the guard cannot read is denied too, unless the mode is `watch`.

When one side ends, so does the other, and this process with the server's exit code; signals are passed on.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from types import FrameType

from ostiary.core.errors import Malformed, Refused, Unavailable
from ostiary.guard import Call, Withheld, data, words
from ostiary.guard.mcp import DENIED
from ostiary.run import frames
from ostiary.run.frames import Id, Message
from ostiary.run.gate import Gate, Verdict

log = logging.getLogger("ostiary.run")

MAX_IN_FLIGHT = 10_000
STDIN, STDOUT = 0, 1
CANNOT_RUN = 127
"""Exit code where the command cannot be started, as a shell has it."""


class Proxy:
    """One agent, one server."""

    def __init__(self, gate: Gate, command: Sequence[str]) -> None:
        """Starts the server. Raises OSError."""
        self._gate = gate
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._speaking, self._counting = threading.Lock(), threading.Lock()
        self._in_flight: dict[Id, Call] = {}
        self._listing = set[Id]()
        """requests for `tools/list` that are in flight"""
        self._broken: Refused | None = None

    def run(self) -> int:
        """Until the server ends; its exit code, or 128 and the number of the signal that ended it."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._pass_on)
        threading.Thread(target=self._up, name="ostiary-up", daemon=True).start()
        self._down()
        code = self._server.wait()
        for call in self._take_all():
            self._gate.finish(call, ok=False)
        if self._broken is not None:
            log.error("%s", self._broken.message)
            return 1
        return code if code >= 0 else 128 - code

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._server.send_signal(number)

    def _up(self) -> None:
        """From the agent to the server."""
        assert self._server.stdin is not None
        to_server = self._server.stdin.fileno()
        try:
            for line in frames.lines(STDIN):
                if self._admit(line):
                    _write(to_server, line)
        except Malformed as refusal:
            self._break(refusal)
        except OSError as error:  # the server has gone: `_down` hears it too
            log.debug("the server reads no more: %s", error)
        except Exception:
            log.exception("the proxy failed")
            self._break(Unavailable("the proxy failed, and nothing passes any more"))
        finally:
            self._server.stdin.close()

    def _down(self) -> None:
        """From the server to the agent; the outcome of a call is noted once the agent has it."""
        assert self._server.stdout is not None
        try:
            for line in frames.lines(self._server.stdout.fileno()):
                if self._listing:
                    self._hear(line)
                self._say(self._withheld(line) or line)
                if self._in_flight:
                    self._note(line)
        except Malformed as refusal:
            self._break(refusal)
        except BrokenPipeError:  # the agent has gone
            self._server.terminate()

    def _break(self, refusal: Refused) -> None:
        """Nothing that cannot be followed goes on."""
        self._broken = refusal
        self._server.kill()

    def _say(self, line: bytes) -> None:
        with self._speaking:
            _write(STDOUT, line)

    def _admit(self, line: bytes) -> bool:
        """Whether the line goes to the server. Everything in it is decided and on record."""
        try:
            messages = frames.read(line)
        except Malformed as refusal:
            verdict = self._gate.undecided("(malformed)", refusal)
            if not verdict.passes:
                code = frames.PARSE_ERROR if refusal.message.startswith("not JSON") else frames.INVALID_REQUEST
                self._say(frames.error(None, code, words(refusal), data(refusal)))
            return verdict.passes
        decided = [(message, self._decide(message)) for message in messages if message.tool is not None]
        if not decided:
            self._follow(messages)
            return True
        if all(verdict.passes for _, verdict in decided):
            for message, verdict in decided:
                self._await(message, verdict.call)
            return True
        self._refuse(messages, {id(message): verdict for message, verdict in decided})
        return False

    def _decide(self, message: Message) -> Verdict:
        assert message.tool is not None
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return self._gate.undecided(message.tool, Unavailable(f"{MAX_IN_FLIGHT} calls are in flight"))
        return self._gate.decide(message.tool, message.arguments)

    def _refuse(self, messages: Sequence[Message], verdicts: dict[int, Verdict]) -> None:
        """Answer every request of the line; what was allowed beside it has not happened."""
        beside = Unavailable("another call of the same batch is denied", hint="send it by itself")
        for message in messages:
            verdict = verdicts.get(id(message))
            why = verdict.why if verdict is not None and not verdict.passes else beside
            if verdict is not None and verdict.passes and verdict.call is not None:
                self._gate.finish(verdict.call, ok=False)
            if message.id is not None and message.method:
                self._say(frames.error(message.id, DENIED, words(why or beside), data(why or beside)))

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


def _write(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

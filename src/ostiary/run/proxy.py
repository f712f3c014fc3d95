"""The process between the agent and one of its stdio MCP servers.

Lines pass byte for byte, except requests that need a decision: tool calls of the agent, and other requests with an
effect or a result (`ostiary.guard.mcp`). A denied call does not reach the server; the proxy answers it with the
JSON-RPC error -32001. A method that neither MCP nor the catalogue knows gets -32601, and parameters that cannot be
decided on get -32602. A batch passes only if each of its calls is allowed. A line that the guard cannot read is denied
too, unless the mode is `watch`. Notifications of a subscription end with the token, the task or the agent.

If the agent ends, the proxy closes the input of the server. If the server ends, the proxy ends with the server's exit
code. Signals are passed on.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from types import FrameType

from ostiary.protocol.errors import Malformed, Refused, Unavailable
from ostiary.run import frames
from ostiary.run.exchange import Exchange
from ostiary.run.gate import Gate

log = logging.getLogger("ostiary.run")

STDIN, STDOUT = 0, 1
CANNOT_RUN = 127
"""Exit code if the command cannot be started, as in a shell."""


class Proxy:
    """The proxy that `ostiary run` puts between an agent and one MCP server."""

    def __init__(self, gate: Gate, command: Sequence[str]) -> None:
        """Start the server. Raises OSError if the command cannot run."""
        self._exchange = Exchange(gate)
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._speaking = threading.Lock()
        self._broken: Refused | None = None

    def run(self) -> int:
        """Run until the server ends; return its exit code, or 128 plus the number of the signal that ended it.
        Return 1 if the proxy failed.
        """
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._pass_on)
        threading.Thread(target=self._up, name="ostiary-up", daemon=True).start()
        self._down()
        code = self._server.wait()
        self._exchange.end()
        if self._broken is not None:
            log.error("%s", self._broken.message)
            return 1
        return code if code >= 0 else 128 - code

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._server.send_signal(number)

    def _up(self) -> None:
        """Forward lines from the agent to the server."""
        assert self._server.stdin is not None
        to_server = self._server.stdin.fileno()
        try:
            for line in frames.lines(STDIN):
                if self._exchange.admit(line, self._say):
                    _write(to_server, line)
        except Malformed as refusal:
            self._break(refusal)
        except OSError as error:  # the server has ended, which `_down` detects too
            log.debug("the server has closed its input: %s", error)
        except Exception:
            log.exception("the proxy failed")
            self._break(Unavailable("the proxy failed; no further message is forwarded"))
        finally:
            self._server.stdin.close()

    def _down(self) -> None:
        """Forward lines from the server to the agent; record the outcome of a call once the agent has its answer."""
        assert self._server.stdout is not None
        try:
            for line in frames.lines(self._server.stdout.fileno()):
                self._say(self._exchange.receive(line))
                self._exchange.record_outcomes(line)
        except Malformed as refusal:
            self._break(refusal)
        except BrokenPipeError:  # the agent has gone
            self._server.terminate()

    def _break(self, refusal: Refused) -> None:
        """Stop forwarding and kill the server; `run` then reports the refusal."""
        self._broken = refusal
        self._server.kill()

    def _say(self, line: bytes) -> None:
        with self._speaking:
            _write(STDOUT, line)


def _write(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

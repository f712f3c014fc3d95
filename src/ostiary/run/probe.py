"""The listing of a stdio MCP server: the probe starts the server, requests its lists once, and ends the server.

The probe tries both handshakes of MCP on one connection: `initialize` (up to 2025-11-25), and `server/discover`
(2026-07-28). The output of the server is bounded and untrusted: it becomes a catalogue that is marked as proposed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ostiary import ambient
from ostiary.authorization.catalogue import MAX_TOOLS
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable

TIMEOUT_S = 60.0
"""Maximum number of seconds for the whole probe; the command may have to download the server first."""
MAX_LINE_BYTES = 8 << 20
MAX_LINES = 10_000
MAX_BYTES = 16 << 20
"""maximum number of bytes that a server may send while its tools are listed"""
MAX_PAGES = 100
MAX_CURSOR = 4096
"""Maximum number of characters of a `nextCursor`."""
GRACE_S = 2.0
HANDSHAKE, MODERN = "2025-11-25", "2026-07-28"
OURS = {"name": "ostiary", "version": "1"}
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": OURS,
    "io.modelcontextprotocol/clientCapabilities": {},
}
LISTS = {
    "tools": (("tools/list", "tools"),),
    "resources": (("resources/list", "resources"), ("resources/templates/list", "resourceTemplates")),
    "prompts": (("prompts/list", "prompts"),),
}
"""The lists of a server, by the capability that announces them: the method, and the member of its result."""


def probe(
    command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Start an MCP server by `command`, and return its capabilities and its lists of tools, resources and prompts
    (`read_lists`), for `Catalogue.from_mcp`. The server ends before the function returns. Raises Unavailable if the
    server does not start or answer, Malformed or Invalid for answers that are not lists of MCP.
    """
    try:
        server = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        place = f" in {cwd}" if cwd is not None and error.filename == cwd else ""
        raise Unavailable(f"cannot run {command[0]}{place}: {error.strerror}") from None
    try:
        return _Talk(server, ambient.tick() + round(timeout_s * 1e6)).ask()
    except BrokenPipeError:
        raise Unavailable(
            "the MCP server has closed its input", hint="run its command in a terminal to see its errors"
        ) from None
    finally:
        _end(server)


def read_lists(
    request: Callable[[str, Mapping[str, Any]], Mapping[str, Any]], capabilities: object, *, asks_tools: bool = False
) -> dict[str, Any]:
    """Return the capabilities, and all pages of the lists that they announce.

    The list of tools is complete. A list of resources or prompts is cut at MAX_TOOLS members, and before a page for
    which the server answers with an error. `request` returns the result of a method, and raises Invalid for an error of
    the server. `asks_tools`: true if the tools are requested even if the server does not announce them. Raises
    Malformed or Invalid for answers that are not lists of MCP or exceed a limit, and the errors of `request`.
    """
    if not isinstance(capabilities, dict):
        raise Malformed(
            "the MCP server's answer to `initialize` or `server/discover` has no object `capabilities`",
            hint="check that the command or the URL is that of an MCP server",
        )
    announced = {*capabilities, "tools"} if asks_tools else capabilities
    lists = [one for capability, lists in LISTS.items() if capability in announced for one in lists]
    return {"tools": [], "capabilities": capabilities} | {
        member: _read_list(request, method, member) for method, member in lists
    }


def _read_list(request: Callable[[str, Mapping[str, Any]], Mapping[str, Any]], method: str, member: str) -> list[Any]:
    """Return the members of all pages of a list. If the server answers with an error, return the members so
    far; for the list of tools, raise Invalid.
    """
    members, params = list[Any](), dict[str, Any]()
    for _ in range(MAX_PAGES):
        try:
            result = request(method, params)
        except Invalid:
            if member == "tools":
                raise
            return members
        page = result.get(member)
        if not isinstance(page, list):
            raise Malformed(f"the MCP server's answer to {method} has no `{member}` that is a list")
        members += page
        if len(members) > MAX_TOOLS:
            if member == "tools":
                raise Invalid(f"the MCP server lists more than {MAX_TOOLS} tools")
            return members[:MAX_TOOLS]
        cursor = result.get("nextCursor")
        if cursor is None:
            return members
        if not isinstance(cursor, str) or len(cursor) > MAX_CURSOR:
            raise Malformed(f"the `nextCursor` of {method} is not a text of at most {MAX_CURSOR} characters")
        params = {"cursor": cursor}
    raise Invalid(f"the MCP server answers {method} with more than {MAX_PAGES} pages")


def error_of(method: str, message: Mapping[str, Any]) -> Invalid:
    """Return the error for an answer of an MCP server that has no object `result`. If the answer has an `error`, the
    error quotes its message.
    """
    error = message.get("error")
    if error is None:
        return Invalid(f"the MCP server's answer to {method} has no object `result`")
    text = error.get("message") if isinstance(error, dict) else error
    return Invalid(f"the MCP server answers {method} with an error: {str(text)[:200]!a}")


class _Talk:
    def __init__(self, server: subprocess.Popen[bytes], until: int) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._in, self._out, self._until = server.stdin.fileno(), server.stdout.fileno(), until
        self._held = bytearray()
        self._id = self._lines = self._bytes = 0
        self._meta: dict[str, Any] | None = None

    def ask(self) -> dict[str, Any]:
        return read_lists(self._request, self._greet())

    def _greet(self) -> object:
        """Do the handshake, and return the server's capabilities."""
        try:
            params = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": OURS}
            answer = self._request("initialize", params)
            self._send({"method": "notifications/initialized"})
        except Invalid:  # since MCP 2026-07-28 there is no handshake
            self._meta = MODERN_META
            answer = self._request("server/discover", {})
        return answer.get("capabilities")

    def _request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, and return the result. Raises Invalid with the server's message if the server answers
        with an error.
        """
        self._id += 1
        meta = {} if self._meta is None else {"_meta": self._meta}
        self._send({"id": self._id, "method": method, "params": {**params, **meta}})
        while True:
            message = self._message()
            if "method" in message or message.get("id") != self._id:
                continue  # its own requests and notifications are for its user
            result = message.get("result")
            if isinstance(result, dict):
                return result
            raise error_of(method, message)

    def _send(self, message: Mapping[str, Any]) -> None:
        rest = memoryview(canonical.encode({"jsonrpc": "2.0", **message}) + b"\n")
        while rest:
            rest = rest[os.write(self._in, rest) :]

    def _message(self) -> dict[str, Any]:
        """Return the next message; skip lines that are not JSON objects. Raises Malformed for an invalid object."""
        while True:
            line = self._line()
            try:
                message = canonical.parse(line, max_bytes=MAX_LINE_BYTES, max_depth=2 * canonical.MAX_DEPTH)
            except Refused:
                if line.lstrip().startswith(b"{"):
                    raise
                continue  # a greeting on standard output, as some servers have it
            if isinstance(message, dict):
                return message

    def _line(self) -> bytes:
        """Return the next line, without its end. Raises Malformed for a line that is too long, Invalid for too many."""
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > MAX_LINE_BYTES:
                raise Malformed(f"the MCP server sends a line of more than {MAX_LINE_BYTES >> 20} MiB")
            self._read_more()
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._lines += 1
        if self._lines > MAX_LINES:
            raise Invalid(f"the MCP server sends more than {MAX_LINES} lines")
        return line

    def _read_more(self) -> None:
        left = (self._until - ambient.tick()) / 1e6
        if left <= 0 or not select.select([self._out], [], [], left)[0]:
            raise Unavailable(
                "the MCP server does not answer in time", hint="run its command in a terminal to see its errors"
            )
        chunk = os.read(self._out, 64 << 10)
        if not chunk:
            raise Unavailable(
                "the MCP server ended before it answered", hint="run its command in a terminal to see its errors"
            )
        self._bytes += len(chunk)
        if self._bytes > MAX_BYTES:
            raise Invalid(f"the MCP server sends more than {MAX_BYTES >> 20} MiB")
        self._held += chunk


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server as MCP requires: close its pipes, wait at most GRACE_S seconds, and then kill its process
    group.
    """
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()
    with suppress(subprocess.TimeoutExpired):
        server.wait(GRACE_S)
    with suppress(ProcessLookupError):  # no process of its group is left
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()

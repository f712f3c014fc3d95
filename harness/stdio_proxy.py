"""The agent's side of a stdio proxy: it writes and reads lines."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from harness.patience import PATIENCE_S
from ostiary.run.plan import Plan

STUB = Path(__file__).with_name("stub_server.py")
TOOLS: list[dict[str, Any]] = [
    {
        "name": "read_file",
        "effect": "read",
        "arguments": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
    *({"name": name, "effect": "read"} for name in ("die", "kill", "silent", "slow", "large", "fail", "refuse", "ask")),
    {"name": "endless", "effect": "read"},
    {"name": "write_file", "effect": "write"},
]


def call(id: object, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


PATIENT = f"""
import sys
from ostiary.run import __main__ as program, gate
gate.PATIENCE_S = {PATIENCE_S}
sys.exit(program.main(sys.argv[1:]))
"""
"""The program of a proxy that gives the Ostiary server more than 10 s to answer at the start."""


class StdioProxy:
    """A proxy with a server behind it, which ends with the block."""

    def __init__(self, folder: Path, plan: Plan, *, command: list[str] | None = None, is_patient: bool = True) -> None:
        """Start the proxy. `is_patient`: the proxy waits for the Ostiary server; false if that does not run."""
        self.heard = folder / "heard"
        self.log = folder / "log"
        file = folder / "plan.json"
        file.write_bytes(msgspec.json.encode(plan))
        words = command or [sys.executable, str(STUB), str(self.heard)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(("-c", PATIENT) if is_patient else ("-m", "ostiary.run")), str(file), "--", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        self._held = b""

    def __enter__(self) -> StdioProxy:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self._in.close()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._in.close()
        self._out.close()
        self.process.wait()

    def send(self, *values: Any) -> None:
        self.write(b"".join(json.dumps(value).encode() + b"\n" for value in values))

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._in.write(rest) or 0 :]

    def read(self) -> bytes:
        """Return the next line; empty at the end of the output."""
        while b"\n" not in self._held:
            assert select.select([self._out], [], [], PATIENCE_S)[0], f"nothing comes: {self.log.read_text()}"
            chunk = os.read(self._out.fileno(), 1 << 20)
            if not chunk:
                return b""
            self._held += chunk
        line, _, self._held = self._held.partition(b"\n")
        return line + b"\n"

    def hear(self) -> Any:
        return json.loads(self.read())

    def ask(self, value: Any) -> Any:
        self.send(value)
        return self.hear()

    def end(self) -> int:
        """Close the input of the proxy, as an agent does, and return the exit code of the proxy."""
        self._in.close()
        return self.process.wait(PATIENCE_S)

    def has_heard(self) -> bytes:
        """Return everything that the server received, after a line of the test has passed through the server."""
        self.ask({"jsonrpc": "2.0", "id": "last", "method": "ping"})
        return self.heard.read_bytes().rpartition(b'{"jsonrpc": "2.0", "id": "last"')[0]

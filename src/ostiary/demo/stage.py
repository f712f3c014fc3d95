"""The environment of the demo: its processes, its files, and the command line that a person would use."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from ostiary import ambient
from ostiary.agent import AsyncAgent
from ostiary.protocol.errors import Unavailable

PATIENCE_S, PAUSE_S = 60.0, 0.1
"""seconds to wait for a process, enough for a busy machine, and seconds between two requests that ask for its state"""


class Stage:
    """The processes and files of the demo; `stop` ends all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.sandbox = folder, folder / "data", folder / "sandbox" / "files"
        self.url = ""
        self._ports = {name: _free_port() for name in ("files", "vault")}
        self.files_uri, self.vault_uri = (f"http://127.0.0.1:{port}/mcp" for port in self._ports.values())
        self.names: dict[str, str] = {}
        """names of agents, tasks, questions and incidents, by their ids"""
        self.serving = (
            "serve",
            "--data-dir",
            str(self.data),
            "--listen",
            "127.0.0.1:0",
            "--config",
            str(folder / "ostiary.toml"),
        )
        self._processes: list[subprocess.Popen[str]] = []

    def start_server(self) -> None:
        """Start the Ostiary server of the demo, and wait until the server answers."""
        # a disk that is slow for a moment must not end the demo
        (self.folder / "ostiary.toml").write_text('private_hosts = "127.0.0.1"\nqueue_wait_ms = 60000\n')
        self.url = self._start("server", *_ostiary(*self.serving)).removeprefix("ready ")

    def start_tools(self, name: str) -> None:
        """Start a tool server, `files` or `vault`, and wait until its guard has connected. Raises Unavailable if the
        guard does not connect.
        """
        place, key, spool = self.sandbox.with_name(name), self.folder / f"{name}.json", self.folder / f"{name}.spool"
        place.mkdir(parents=True, exist_ok=True)
        arguments = (place, self._ports[name], key, self.url, spool)
        self._start(name, sys.executable, "-m", "ostiary.demo.files_server", *map(str, arguments))
        for _ in range(round(PATIENCE_S / PAUSE_S)):
            if httpx2.post(f"http://127.0.0.1:{self._ports[name]}/mcp", timeout=PATIENCE_S).status_code != 503:
                return
            time.sleep(PAUSE_S)
        raise Unavailable(f"the guard of {name} has not connected to the server after {PATIENCE_S:.0f} s")

    @asynccontextmanager
    async def client(self, name: str, *, task: str | None = None, uri: str = "") -> AsyncIterator[Client]:
        """Yield an MCP client that calls as the agent `name`, by default at `files`."""
        uri = uri or self.files_uri
        async with (
            self.agent(name) as agent,
            httpx2.AsyncClient(auth=agent.auth(uri, task=task), timeout=PATIENCE_S) as http,
            Client(streamable_http_client(uri, http_client=http)) as client,
        ):
            yield client

    def agent(self, name: str) -> AsyncAgent:
        """Return the agent of the credential file `name`.json."""
        return AsyncAgent.from_credential(self.folder / f"{name}.json", url=self.url)

    def ostiary(self, *arguments: str, expect: int = 0) -> Any:
        """Run a command; return its JSON. Raises Unavailable if its exit code is not `expect`."""
        return json.loads(self.output_of("--json", *arguments, expect=expect))

    def output_of(self, *arguments: str, expect: int = 0) -> str:
        """Run a command; return its output. Raises Unavailable if its exit code is not `expect`."""
        command = _ostiary("--data-dir", str(self.data), "--wide", *arguments)
        environment = ambient.environment() | {
            "TTY_COMPATIBLE": "1",
            "TERM": "dumb",
        }  # tables as on a terminal, no colours
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, start_new_session=True, env=environment
        )
        if done.returncode != expect:
            raise Unavailable(f"`ostiary {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """End all processes, in the reverse order of their start."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(PATIENCE_S / 4)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _start(self, name: str, *command: str) -> str:
        """Start a process, and return the first line of its output. Ctrl-C does not reach the process, so that `stop`
        ends all processes in order. Raises Unavailable if the process ends before it prints a line.
        """
        log = self.folder / f"{name}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        self._processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise Unavailable(f"the {name} did not start: {log.read_text().strip().rpartition(chr(10))[2]}")
        return line


def _ostiary(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "ostiary.cli", *arguments)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port

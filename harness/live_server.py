"""A running server with an administrator at hand, and the things that a test needs in it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from harness.patience import PATIENCE_S, eventually
from harness.server import Server, running
from ostiary import ambient
from ostiary.agent import Agent
from ostiary.guard import Guard, NonceNeeded, Verified
from ostiary.keys import save_key
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Refused

TOOLS: list[dict[str, Any]] = [
    {
        "name": "read_file",
        "effect": "read",
        "arguments": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
    {"name": "write_file", "effect": "write"},
]


class ServerFixture:
    """A running server, its administrator, and what a test needs in it: owners, resources with guards, agents.

    Names are unique in the process, because a later fixture may use the same server and names cannot be reused.
    """

    _numbers = itertools.count(1)

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.admin = Agent.from_credential(server.folder / "admin.json", url=server.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections of the administrator."""
        self.admin.close()

    def api(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Call the admin API, and return the decoded answer."""
        response = self.admin.request(
            method, f"{self.server.url}/api/v1{path}", resource=f"{self.admin.issuer}/api/v1", json=body, params=query
        )
        assert response.status_code < 400, response.text
        return response.json()

    def name(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def owner(self) -> str:
        name = self.name("owner")
        self.api("POST", "/persons", {"name": name, "email": f"{name}@example.org"})
        return name

    def resource(self, uri: str, tools: list[dict[str, Any]] = TOOLS) -> tuple[str, Path]:
        """Register a new resource, and return its name and the credential of its guard."""
        key, name = jose.generate("ES256"), self.name("files")
        made = self.api(
            "POST",
            "/resources",
            {
                "name": name,
                "uri": uri,
                "jwk": dict(key.public.jwk),
                "catalogue": {"resource": name, "tools": tools},
            },
        )
        path = self.folder / f"{name}.json"
        save_key(path, key, client_id=made["resource_id"], issuer=self.server.url)
        return name, path

    def agent(self, *scopes: str, owner: str = "") -> tuple[str, Path]:
        """Register a new agent with these scopes, and return its name and its credential. Without `owner`, the agent
        gets a new owner.
        """
        key, name = jose.generate("ES256"), self.name("agent")
        made = self.api(
            "POST",
            "/agents",
            {
                "name": name,
                "owner": owner or self.owner(),
                "purpose": "a test",
                "scopes": list(scopes),
                "undeclared": True,
                "jwk": dict(key.public.jwk),
            },
        )
        path = self.folder / f"{name}.json"
        save_key(path, key, client_id=made["agent_id"], issuer=self.server.url)
        return name, path

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        """Return entries of the ledger, the newest first."""
        found: list[dict[str, Any]] = self.api("GET", "/audit", **query)["entries"]
        return found


def free_socket() -> tuple[socket.socket, int]:
    """Return a listening socket on a free port of this machine, and the port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock, sock.getsockname()[1]


def free_port() -> int:
    """Return a port of this machine that nothing listens on, for a program that opens the port itself, or for no
    program. The port is below those that the system chooses for other sockets, so none of them takes the port.
    """
    for port in _PORTS:
        with suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports have no end")


def _list_ports() -> Iterator[int]:
    """Yield ports without end. Processes with neighbouring ids begin far from each other."""
    first = os.getpid() * 97
    for number in itertools.count(first):
        yield 20_000 + number % 12_000


_PORTS = _list_ports()


@contextmanager
def serving(app: Any, sock: socket.socket) -> Iterator[None]:
    """Serve an ASGI application on that socket in a thread, for the time of the block."""
    import uvicorn  # imported here, because some environments of frameworks do not have uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        sock.close()


URI = "https://files.example.org/mcp"


MAX_AGE_S = 2.0


@contextmanager
def own_server(folder: Path, *options: str, command: Sequence[str | Path] = ()) -> Iterator[ServerFixture]:
    """Start a server that the test may kill. Without `command`, the server starts from a process that has imported the
    program.
    """
    if command:
        start: AbstractContextManager[Server] = running(folder / "server", *options, command=command)
    else:
        from harness.prepared import PreparedServer  # imported here, because environments of frameworks have no server

        start = PreparedServer(folder / "server", *options)
    with start as server, ServerFixture(server, folder) as live_server:
        yield live_server


def authenticate(guard: Guard, agent_key: Path, uri: str = URI, *, task: str | None = None) -> Verified:
    """Return the credentials that an agent shows to the guard: a token, and proofs until one has the right nonce."""
    with Agent.from_credential(agent_key) as agent:
        token = str(agent.token(resource=uri, task=task)["access_token"])
        nonce: str | None = None
        while True:
            proof = dpop.make_proof(
                agent._client.credential.key,
                method="POST",
                uri=uri,
                now=ambient.now(),
                jti=os.urandom(16).hex(),
                nonce=nonce,
                access_token=token,
            )
            try:
                return guard.verify(authorization=f"DPoP {token}", proof=proof, method="POST", uri=uri)
            except NonceNeeded as needed:
                nonce = needed.nonce


def is_allowed(guard: Guard, who: Verified) -> bool:
    try:
        return guard.decide(who, "read_file", {"path": "/a"}).decision.allowed
    except Refused:
        return False


def pid_of(server: Server) -> int:
    return int(json.loads((server.folder / "server.json").read_text())["pid"])

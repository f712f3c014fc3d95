"""Ostiary as a product: `ostiaryd` started for real, with a `Guard` in front of the tools of one suite.

The suite is one resource, registered with what an MCP server would list. One agent works for one person; each session
is a task of it, started with the person's words. Calls go through `Tools`, as those of an agent's own process do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.contain.products import Opened, Question, Verdict
from benchmarks.contain.suites import Call, Output, Person, Suite, Tool
from ostiary import Agent, Guard, Tools, ambient
from ostiary.agent import Task
from ostiary.core import dpop, jose
from ostiary.core.errors import Refused, Unavailable
from ostiary.guard import NonceNeeded
from ostiary.keys import Credential
from ostiary.tools import Running
from tests.feed.house import House
from tests.server import running

COMMAND = Path(sys.prefix).parent / ".venv" / "bin" / "ostiary"
CLASSES = ("read", "write", "administer")
PATIENCE_S = 120.0
"""For a machine that stands still now and then: what cannot be decided now is no verdict."""
SHORT_S, LEEWAY_S = 5, 2.5
"""how long a credential lives that is to be expired, and for how long guards still take it"""
URI = "https://tools.example/mcp"
T = TypeVar("T")


@dataclass(slots=True)
class Session:
    task: Task
    tools: Tools | None
    """None: a thief has a `token` to show, once the time has come"""
    token: str = ""
    key: jose.PrivateKey | None = None
    not_before: float = 0
    running: Running | None = None


class Doorkeeper:
    name = "ostiary"
    thefts = ("token without its key", "token of another agent", "token of a task that is over", "expired token",
              "token of another session")  # fmt: skip

    def __init__(self, house: House, folder: Path, tools: Sequence[Tool]) -> None:
        key = jose.generate("ES256")
        listed = {"name": "suite", "uri": URI, "jwk": dict(key.public.jwk), "catalogue": {"tools": [*map(_mcp, tools)]}}
        made = house.api("POST", "/resources", listed)
        self._guard = Guard(Credential(key, made["resource_id"], house.server.url), spool_dir=folder / "spool").start()
        scopes = [f"suite:{word}" for word in CLASSES]
        self._agents = [Agent.from_credential(house.agent(*scopes)[1], url=house.server.url) for _ in range(2)]

    def close_all(self) -> None:
        for agent in self._agents:
            agent.close()
        self._guard.close()

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened:
        task = patient(lambda: self._agents[0].task(purpose))
        return Opened(Session(task, Tools(self._guard, task)))

    def decide(self, session: Session, call: Call) -> Verdict:
        try:
            tools = session.tools or self._shown(session)
            session.running = patient(lambda: tools.admit(call.tool, call.arguments))
        except Refused as refusal:
            return Verdict(False, refusal.code)
        return Verdict(True)

    def answer(self, session: Session, question: Question, *, yes: bool) -> Verdict:
        raise NotImplementedError("nothing is asked yet")

    def observe(self, session: Session, call: Call, output: Output) -> None:
        assert session.running is not None
        with session.running as running:
            value = output.text if output.data is None else output.data
            running.returned(output.error or value, ok=not output.error)
        session.running = None

    def close(self, session: Session) -> None:
        patient(session.task.end)

    def stolen(self, how: str, session: Session, other: Session) -> Session:
        owner, thief = self._agents
        if how == "token of another session":
            return Session(session.task, other.tools)
        taken = Session(session.task, None, self._token(owner, session.task.id), owner._client.credential.key)
        match how:
            case "token without its key":
                taken.key = jose.generate("ES256")
            case "token of another agent":
                taken.key = thief._client.credential.key
            case "token of a task that is over":
                taken.task = patient(lambda: owner.task("over"))
                taken.token = self._token(owner, taken.task.id)
                patient(taken.task.end)
            case "expired token":
                taken.task = patient(lambda: owner.task("short", ttl=SHORT_S))
                taken.token = self._token(owner, taken.task.id)
                taken.not_before = time.monotonic() + SHORT_S + LEEWAY_S
            case _:
                raise KeyError(how)
        return taken

    def _token(self, agent: Agent, task: str) -> str:
        return str(patient(lambda: agent.token(resource=URI, task=task))["access_token"])

    def _shown(self, session: Session) -> Tools:
        """What somebody gets who shows the token to the guard with a proof of his key. Raises Refused."""
        assert session.key is not None
        time.sleep(max(0.0, session.not_before - time.monotonic()))
        token, key, nonce = session.token, session.key, None
        for _ in range(2):
            proof = dpop.make_proof(
                key, method="POST", uri=URI, now=ambient.now(), jti=ambient.random(16).hex(), nonce=nonce,
                access_token=token,
            )  # fmt: skip
            try:
                shown = partial(self._guard.verify, authorization=f"DPoP {token}", proof=proof, method="POST", uri=URI)
                return Tools(self._guard, patient(shown))
            except NonceNeeded as needed:
                nonce = needed.nonce
        raise Unavailable("the guard takes no proof of ours")


@contextmanager
def doorkeeper(suite: Suite, folder: Path) -> Iterator[Doorkeeper]:
    """A server of its own with that suite behind a guard, until the block ends."""
    with running(folder / "data", command=(COMMAND,)) as server:
        product = Doorkeeper(House(server, folder), folder, suite.tools)
        try:
            yield product
        finally:
            product.close_all()


def patient(work: Callable[[], T]) -> T:
    """What comes of it once the server is there. Raises Refused."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _mcp(tool: Tool) -> dict[str, Any]:
    """The tool as `tools/list` has it."""
    listed = {"name": tool.name, "description": tool.description, "inputSchema": dict(tool.schema)}
    return listed | ({"annotations": dict(tool.hints)} if tool.hints else {})

"""Ostiary as a product: `ostiaryd` started for real, with a `Guard` in front of the tools of one suite.

The suite is one resource; its catalogue is what `owner` makes of what an MCP server would list. Each
session has an agent of its own (one may ask a person only so often) with a task that is started with what was drafted
from the person's words, accepted unseen; no document says whom. Calls go through `Tools`, as those of an agent's own
process do. Who is asked is a person with a key, who sees the question as the server shows it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from benchmarks.contain import rules
from benchmarks.contain.products import FOREIGN, Opened, Question, Verdict
from benchmarks.contain.suites import Call, Output, Person, Tool
from harness.live_server import ServerFixture
from harness.server import running
from ostiary import Agent, Guard, Tools, ambient
from ostiary.agent import Task
from ostiary.authorization.catalogue import Catalogue
from ostiary.catalogue_advisor.draft import draft
from ostiary.cli.session import decoded
from ostiary.guard import Denied, NonceNeeded
from ostiary.keys import Credential
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.tools import Running
from ostiaryd.approvals.model import find_stated

COMMAND = Path(sys.prefix).parent / ".venv" / "bin" / "ostiary"
PATIENCE_S = 120.0
"""For a machine that stands still now and then: what cannot be decided now is no verdict."""
NOT_NOW = ("unavailable", "feed_stale", "feed_broken")
"""how the code of a refusal ends that is none"""
SHORT_S, LEEWAY_S = 5, 2.5
"""how long a credential lives that is to be expired, and for how long guards still take it"""
URI = "https://tools.example/mcp"
T = TypeVar("T")


@dataclass(slots=True)
class Session:
    agent: Agent
    task: Task
    tools: Tools | None = None
    """None: a thief has a `token` to show, once the time has come"""
    token: str = ""
    key: jose.PrivateKey | None = None
    not_before: float = 0
    asked: Call | None = None
    """question for a person"""
    running: Running | None = None


class Doorkeeper:
    thefts = (
        "token without its key",
        "token of another agent",
        "token of a task that is over",
        "expired token",
        *FOREIGN,
    )

    def __init__(self, live_server: ServerFixture, folder: Path, catalogue: Catalogue, *, without: str) -> None:
        """`without`: the rule that is left out, as `rules` has them."""
        self.name = f"without {without}" if without else "ostiary"
        self._house, self._count, self._without = live_server, count(1), without
        self._owner = "approver"
        self._approver = self._person(self._owner)
        key = jose.generate("ES256")
        self._catalogue = catalogue
        self._scopes = sorted(self._catalogue.scopes)  # of all that the tools do: what holds an agent back is its task
        listed = {"name": "suite", "uri": URI, "jwk": dict(key.public.jwk), "catalogue": self._catalogue.render()}
        made = live_server.api("POST", "/resources", listed)
        if without not in ("", *rules.PARTS):
            live_server.api(
                "POST", "/policies", {"files": rules.without(active_files(live_server), without), "loses": [without]}
            )
        self._guard = Guard(
            Credential(key, made["resource_id"], live_server.server.url), spool_dir=folder / "spool"
        ).start()

    def close_all(self) -> None:
        self._approver.close()
        self._guard.close()

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened:
        works = patient(lambda: self._agent(f"{agent}-{next(self._count)}"))
        own = {name: value for name, value in asdict(person).items() if value}
        drafted = draft(
            purpose, [(URI, self._catalogue)], scopes=self._scopes, own=own, may_name_recipient=False
        ).render()
        declared = {name: drafted[name] for name in ("intent", "bounds", "budget")}
        if self._without == rules.INTENT:
            del declared["intent"]
        elif self._without == rules.ENDORSED:
            declared["intent"] |= {"endorsed": []}
        declared |= {"agent": works.client_id, "purpose": purpose}
        started = patient(lambda: self._house.api("POST", "/tasks", declared))
        task = patient(lambda: works.resume(started["task_id"]))
        return Opened(Session(works, task, Tools(self._guard, task)))

    def decide(self, session: Session, call: Call) -> Verdict:
        try:
            tools = session.tools or self._shown(session)
            session.running = patient(lambda: tools.admit(call.tool, call.arguments))
        except Denied as denied:
            if denied.code != "approval_needed" or self._without == rules.ASKING:
                return Verdict(False, denied.code)
            session.asked = call
            return Verdict(False, denied.code, self._question(denied.approval, call))
        except Refused as refusal:
            return Verdict(False, refusal.code)
        return Verdict(True)

    def answer(self, session: Session, question: Question, *, yes: bool) -> Verdict:
        stated, call = question.shows.get("must_state"), question.call
        value = {"value": str(find_stated(call.arguments, stated))} if yes and stated and call is not None else {}
        self._approving("POST", f"/{question.id}/{'approve' if yes else 'deny'}", {"reason": "as I was told"} | value)
        assert session.asked is not None
        return self.decide(session, session.asked) if yes else Verdict(False, "approval_denied")

    def _question(self, id: str, call: Call) -> Question:
        """Return the question as the server shows it to the person who answers: without hidden arguments, and with the
        value that the person must state, since a person who knows what the call is for looks it up.
        """
        shown = self._approving("GET", f"/{id}")
        arguments = {name: call.arguments.get(name, value) for name, value in shown["arguments"].items()}
        return Question(id, Call(shown["tool"].partition("/")[2], arguments), shown)

    def observe(self, session: Session, call: Call, output: Output) -> None:
        assert session.running is not None
        value = output.error or (output.text if output.data is None else output.data)
        with session.running as running:
            patient(lambda: running.returned(value, ok=not output.error))
        session.running = None

    def close(self, session: Session) -> None:
        patient(session.task.end)
        session.agent.close()

    def learning(self, *, keep: bool = False) -> AbstractContextManager[None]:
        return nullcontext()  # each session has an agent of its own

    def stolen(self, how: str, session: Session, other: Session) -> Session:
        mine = session.agent
        if how in FOREIGN:
            return other
        taken = Session(mine, session.task, token=self._token(mine, session.task.id), key=mine._client.credential.key)
        match how:
            case "token without its key":
                taken.key = jose.generate("ES256")
            case "token of another agent":
                taken.key = other.agent._client.credential.key
            case "token of a task that is over":
                over = patient(lambda: mine.task("over"))
                taken.token = self._token(mine, over.id)
                patient(over.end)
            case "expired token":
                taken.token = self._token(mine, patient(lambda: mine.task("short", ttl=SHORT_S)).id)
                taken.not_before = time.monotonic() + SHORT_S + LEEWAY_S
            case _:
                raise KeyError(how)
        return taken

    def _agent(self, name: str) -> Agent:
        """A new agent, which may ask for everything that the suite's tools do."""
        key = jose.generate("ES256")
        body = {"name": name, "owner": self._owner, "purpose": "works for a person", "scopes": self._scopes}
        made = self._house.api("POST", "/agents", body | {"jwk": dict(key.public.jwk)})
        return Agent(Credential(key, made["agent_id"], self._house.server.url))

    def _person(self, name: str) -> Agent:
        key = jose.generate("ES256")
        body = {"name": name, "email": f"{name}@example.org", "jwk": dict(key.public.jwk)}
        return Agent(Credential(key, self._house.api("POST", "/persons", body)["person_id"], self._house.server.url))

    def _approving(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request of the person who is asked, and return the answer."""
        api = f"{self._house.server.url}/api/v1"
        return patient(
            lambda: decoded(self._approver.request(method, f"{api}/approvals{path}", resource=api, json=body))
        )

    def _token(self, agent: Agent, task: str) -> str:
        return str(patient(lambda: agent.token(resource=URI, task=task))["access_token"])

    def _shown(self, session: Session) -> Tools:
        """Show the token to the guard with a proof of the session's key; return the tools. Raises Refused."""
        assert session.key is not None
        time.sleep(max(0.0, session.not_before - time.monotonic()))
        token, key, nonce = session.token, session.key, None
        for _ in range(2):
            proof = dpop.make_proof(
                key,
                method="POST",
                uri=URI,
                now=ambient.now(),
                jti=ambient.random(16).hex(),
                nonce=nonce,
                access_token=token,
            )
            try:
                shown = partial(self._guard.verify, authorization=f"DPoP {token}", proof=proof, method="POST", uri=URI)
                return Tools(self._guard, patient(shown))
            except NonceNeeded as needed:
                nonce = needed.nonce
        raise Unavailable("the guard takes no proof of ours")


@contextmanager
def doorkeeper(catalogue: Catalogue, folder: Path, *, without: str = "") -> Iterator[Doorkeeper]:
    """A server of its own with that suite behind a guard, until the block ends."""
    with running(folder / "data", command=(COMMAND,)) as server:
        live_server = ServerFixture(server, folder)
        product = Doorkeeper(live_server, folder, catalogue, without=without)
        try:
            yield product
        finally:
            product.close_all()
            live_server.admin.close()


def active_files(live_server: ServerFixture) -> dict[str, str]:
    """The policy set that decides, with copies of the safeguards that it extends."""
    [active] = [one for one in live_server.api("GET", "/policies")["policies"] if one["active"]]
    shown = live_server.api("GET", f"/policies/{active['hash']}")
    return {**shown["files"], **{f"{rules.COPIES}{id}.cedar": text for id, text in shown["extends"].items()}}


def patient(work: Callable[[], T]) -> T:
    """Return the result of `work`, tried again until there is one. Raises Refused."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except (Refused, httpx2.TransportError) as error:
            is_verdict = isinstance(error, Refused) and not error.code.endswith(NOT_NOW)
            if is_verdict or time.monotonic() > until:
                raise
        time.sleep(0.1)

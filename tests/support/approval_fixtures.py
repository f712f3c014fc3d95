"""A bank whose policies ask for approvals, an agent with a token for the bank, the requests of its guard, and people
who answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from harness.registry_fixtures import ADMIN, create_holding, create_person, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision import approval
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import JwkSet
from ostiary.protocol.signed import parse_answer
from ostiaryd.approvals import flows, store, wire_admin, wire_requests
from ostiaryd.approvals.model import Narrowing, Question, Says
from ostiaryd.feed import wire_feed
from ostiaryd.ground.http.edge import Call, Render, Wire
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import wire_authzen
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, Agent, Caller, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.support.api_fixtures import reconfigured
from tests.support.payment_fixtures import FILES, TOOLS
from tests.support.policy_fixtures import put

ROUTES = (*wire_authzen.ROUTES, *wire_requests.ROUTES, *wire_admin.ROUTES)
URI = "https://bank.example/mcp"
PAY: dict[str, Any] = {"amount": 500, "to": "ann"}


@dataclass
class Bank:
    world: World
    resource: Resource
    agent: Agent
    task: Task
    policy: str
    people: dict[str, str] = field(default_factory=dict)
    approvers: set[str] = field(default_factory=set)
    """names of people who have answered, and who may still answer"""
    _thrown: int = 0

    async def ask(
        self, arguments: dict[str, Any] | None = None, *, by: Resource | None = None, **changed: Any
    ) -> approval.ApprovalAnswer:
        """Return the server's answer to the guard of that resource about a call under the token `tok_1`. Raises
        Refused.
        """
        self._thrown += 1
        right: dict[str, Any] = {
            "call": f"{self._thrown:022}",
            "token": "tok_1",
            "policy": self.policy,
            "policies": ["large"],
            "tool": "pay",
            "arguments": PAY if arguments is None else arguments,
        }
        return await self.send(json.dumps(right | changed).encode(), by=by or self.resource)

    async def send(self, body: bytes, *, by: Resource) -> approval.ApprovalAnswer:
        who = Caller(kind="guard", id=by.resource_id, name=by.name, owner=None, scopes=frozenset({"ostiary:feed"}))
        headers = [(b"content-type", b"application/json")]
        world = reconfigured(self.world, approvers=" ".join(sorted(self.approvers)))
        reply = await wire_feed.ask_person(Call(world, "POST", "/feed/v1/approval", {}, "", headers, body, "rq_1", who))
        assert isinstance(reply.body, bytes)
        keys = JwkSet(tuple(self.world.keys.public("feed").values()))
        return parse_answer(
            reply.body,
            approval.ApprovalAnswer,
            body=body,
            keys=keys,
            issuer=self.world.config.issuer,
            resource_id=by.resource_id,
        )

    async def http(
        self, method: str, path: str, body: Any = None, *, by: Caller | None = None, key: str | None = None
    ) -> tuple[int, Any, dict[bytes, bytes]]:
        """A request behind its gate, with an `Idempotency-Key` or without: status, JSON, headers."""
        route, _, query = path.partition("?")
        wire, render, params = _route(method, route)
        headers, sent = [(b"content-type", b"application/json")], b"" if body is None else json.dumps(body).encode()
        headers += [] if key is None else [(b"idempotency-key", key.encode())]
        try:
            reply = await wire(Call(self.world, method, route, params, query, headers, sent, "rq_1", by or ADMIN))
        except Refused as refusal:
            reply = render(refusal)
        assert isinstance(reply.body, bytes)
        return reply.status, json.loads(reply.body), dict(reply.headers) | {b"content-type": reply.media_type.encode()}

    async def why(self, arguments: dict[str, Any] | None = None, **changed: Any) -> str:
        """Return the code of the refusal."""
        try:
            answer = await self.ask(arguments, **changed)
        except Refused as refusal:
            return refusal.code
        raise AssertionError(f"it is {answer.state}")

    async def person(self, name: str) -> Caller:
        """Return a person who may answer approval requests."""
        if name not in self.people:
            self.people[name] = await create_person(self.world, name)
        return Caller(
            kind="person", id=self.people[name], name=name, owner=None, scopes=frozenset({APPROVE}), jkt=f"{name}'s key"
        )

    async def answer(
        self,
        id: str,
        says: str = "approve",
        *,
        by: str | Caller = "carol",
        reason: str = "it is due",
        covers: str | None = None,
        value: str | None = None,
        **narrowing: Any,
    ) -> Question:
        caller = await self.person(by) if isinstance(by, str) else by
        config = replace(self.world.config, approvers=caller.name)
        self.approvers.add(caller.name)
        return await act(
            self.world,
            f"approval.{says}",
            lambda a: flows.answer(
                a,
                id,
                Says(says),
                reason=reason,
                by=caller,
                config=config,
                covers=covers,
                value=value,
                narrowing=msgspec.convert(narrowing, Narrowing),
            ),
        )

    def state(self, id: str) -> str:
        found = store.get_question(self.world.db.read(), id)
        assert found is not None
        return found.state_at(self.world.now()).value


def _route(method: str, path: str) -> tuple[Wire, Render, dict[str, str]]:
    for route in ROUTES:
        match = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path), path)
        if route.method == method and match is not None:
            return route.wire, route.protocol.render, match.groupdict()
    raise LookupError(f"no route {method} {path}")


async def open_bank(world: World) -> Bank:
    resource = await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=URI))
    catalogue = Catalogue.parse(json.dumps({"resource": "bank", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, "bank", catalogue))
    agent = await register_agent(world, scopes=["bank:write"])
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay the rent")))
    await create_holding(world, agent, "tok_1", audience=URI, task=task.task_id, seconds=3600)
    return Bank(world, resource, agent, task, await put(world, FILES))

"""A server with recorded decisions to replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from harness.clock import Clock
from harness.registry_fixtures import create_holding, create_person, register_agent, run_act
from ostiary.authorization import cedar
from ostiary.authorization.assurance import KEY
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.claims import AccessClaims, Actor, Link
from ostiary.decision import access
from ostiary.decision.feed import ResourceFact
from ostiary.decision.report import Report
from ostiary.guard.call import call_record
from ostiary.guard.knowledge import _protect
from ostiary.protocol import canonical
from ostiary.protocol.errors import Forbidden, Refused
from ostiaryd.feed.flows import take_report
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.policy import flows
from ostiaryd.policy import store as policies
from ostiaryd.policy.model import EvaluationRequest, decode_facts, load
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.policy.model.whatif import Recorded, verdicts
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Mode, Resource
from ostiaryd.registry.model import Verb as Does
from ostiaryd.registry.store import agents, resources
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec

URI = "https://files.example.org/mcp"


NAMES = ("ann", "bob")


TOOLS: list[dict[str, Any]] = [
    {"name": "read", "effect": "read", "data_classes": ["internal"]},
    {
        "name": "pay",
        "effect": "pay",
        "kinds": {"pin": "secret"},
        "arguments": {"properties": {"amount": {"type": "number"}, "limit": {"type": "integer"}}},
    },
    {"name": "vault", "effect": "read", "open_world": False, "data_classes": ["secret"]},
]


CATALOGUES = [TOOLS, [TOOLS[0] | {"data_classes": ["health"]}, TOOLS[1] | {"open_world": False}, TOOLS[2]], TOOLS[:2]]


SCHEMA = """
type Arguments = { path?: String, amount?: decimal, limit?: Long, tags?: Set<String>, options?: { deep?: Bool } };
entity user = { id: String, role?: String, level?: Long };
entity record in [user] = { id: String, status?: String };
action edit, look appliesTo { principal: [user, Agent], resource: [record, Tool, Resource], context: { why?: String } };
"""


COMMON = """
@id("tokens") permit (principal is Agent, action == Action::"issue_token", resource is Resource)
when { context.scopes.contains("files:read") || resource.name == "" };
@id("look") permit (principal, action == Action::"look", resource);
@id("edit") permit (principal is user, action == Action::"edit", resource is record)
when { principal has role && principal.role == "editor" && context has why };
@id("noisy") @mode("watch") forbid (principal is user, action, resource)
when { principal has level && principal.level * 9223372036854775807 > 7 };
"""


SETS = [
    {
        "a.cedar": COMMON
        + """
@id("segment") permit (principal is Agent, action == Action::"call", resource is Tool)
when { resource.segment == principal.segment };
@id("cheap") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { context.arguments has amount && context.arguments.amount.greaterThan(decimal("99.5")) };
@id("overflow") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { context.arguments has limit && context.arguments.limit * 9223372036854775807 > 7 };
@id("behind") forbid (principal in Owner::"pe_0", action, resource)
when { context has arguments && context.arguments has tags || principal.model == "m-1" };
@id("seen") @mode("watch") permit (principal is Agent, action == Action::"call", resource is Tool)
when { Tool::"files/pay".open_world || Resource::"files".segment == Segment::"default" };
""",
        "s.cedarschema": SCHEMA,
    },
    {
        "a.cedar": COMMON
        + """
@id("mine") permit (principal in Owner::"nobody", action == Action::"call", resource in Resource::"files");
@id("bounded") permit (principal is Agent, action == Action::"call", resource is Tool)
when {
  context.arguments has path && context.arguments.path like "/srv/*" && resource.data_classes.contains("internal")
};
@id("tags") permit (principal is Agent, action == Action::"call", resource is Tool)
when { context.arguments has tags && context.arguments.tags.containsAny(["a", "b"]) && context.actors.isEmpty() };
@id("deep") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { context.arguments has options && context.arguments.options has deep && context.arguments.options.deep };
@id("night") @mode("watch") forbid (principal, action, resource)
when { context has now && context.now < datetime("2027-01-15T08:00:10Z") };
""",
        "s.cedarschema": SCHEMA.replace("context: { why?: String }", "context: { why?: String, now?: datetime }"),
    },
]


LOADED = [load(files) for files in SETS]


class ReplayFixture:
    """A server with agents, a resource and its guard, on which a test runs random events."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock = world, clock
        self.told = 0
        self.task = ""

    async def settle(self) -> None:
        world = self.world
        await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))
        await self.change("tools 0")
        for name in NAMES:
            await create_person(world, f"owner-of-{name}")
            agent = await register_agent(world, name, owner=f"owner-of-{name}", scopes=["files:read", "files:write"])
            await create_holding(
                world, agent, f"tok_{name}", audience=URI, task=f"tk_{agent.agent_id[3:]}", seconds=3000
            )
        await self.change("set 0")
        whole = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bob", purpose="a test")))
        part = await run_act(
            world, lambda a: tasks.start(a, TaskSpec(agent="ann", purpose="a part of it", parent=whole.task_id))
        )
        self.task = part.task_id

    def resource(self) -> Resource:
        found = resources.get_resource(self.world.db.read(), "files")
        assert found is not None
        return found

    async def happen(self, kind: str, what: Any) -> None:
        self.clock.advance(1)
        await getattr(self, kind)(what)

    async def change(self, what: str) -> None:
        word, _, number = what.partition(" ")
        flow: Callable[[Any], object]
        match word:
            case "owner":
                flow = partial(registry.transfer_agent, id_or_name="ann", owner="owner-of-bob")
            case "stop":
                flow = partial(registry.set_agent_state, id_or_name="bob", verb=Does.SUSPEND)
            case "task":
                flow = partial(tasks.end, id=self.task)
            case "mode":
                flow = partial(registry.set_mode, id_or_name="files", mode=Mode.WATCH)
            case "tools":
                text = canonical.encode({"resource": "files", "tools": CATALOGUES[int(number)]})
                flow = partial(registry.set_catalogue, id_or_name="files", catalogue=Catalogue.parse(text))
            case _:
                flow = partial(flows.put, loaded=LOADED[int(number)], by=None)
        with suppress(Refused):  # it has happened before
            await run_act(self.world, flow)

    async def guard(self, call: tuple[str, str, dict[str, Any]]) -> None:
        """A guard decides with the facts of its feed, and reports the decision."""
        name, tool, arguments = call
        reader, found = self.world.db.read(), self.resource()
        agent = agents.get_agent(reader, name)
        assert agent is not None
        fact = ResourceFact(
            resource_id=found.resource_id,
            name=found.name,
            uri=found.uri,
            mode=found.mode.value,
            segment=found.segment,
            catalogue=resources.get_catalogue(reader, found.resource_id),
        )
        hash, text = policies.get_active_ir(reader)
        rules = access.Policies(hash, cedar.ir.parse(text.encode()))
        claims = AccessClaims(
            iss="",
            sub=agent.owner,
            client_id=agent.agent_id,
            aud=URI,
            iat=0,
            exp=1 << 40,
            jti=f"tok_{name}",
            scope="files:read files:write",
            task="tk_x",
            acr="1",
            amr=["pop"],
            owner=agent.owner,
            segment=agent.segment,
            act=Actor(agent.agent_id, Actor("ag_other") if name == "bob" else None),
            chain=[Link("ag_other", 0, "tk_0", owner="pe_0", segment=agent.segment)] if "path" in arguments else [],
        )
        principal, facts = access.Principal(claims), access.Facts(_protect(fact), rules)
        now = self.clock()
        resolved = access.resolve(principal, tool, arguments, facts, now)
        decision = access.decide(resolved)
        try:
            record = call_record(resolved, decision, spent={})
        except Refused:
            return  # a call whose arguments have no digest is refused
        body = msgspec.json.encode({"spool": "0" * 32, "first": self.told + 1, "records": [record]})
        assert b"\\u0000" not in body, "the server would refuse the report, and all that come after it"
        report = msgspec.convert(canonical.parse(body), Report)
        take = partial(take_report, report=report, resource_id=found.resource_id)
        self.told = await run_act(self.world, take, "feed.report") - 1

    async def ask(self, question: EvaluationRequest) -> None:
        question = self._about_task(question)
        await run_act(self.world, lambda a: flows.decide_one(a, question, digest="d", by=None), "decide")

    async def batch(self, questions: list[EvaluationRequest | None]) -> None:
        asked = [one and self._about_task(one) for one in questions]
        await run_act(
            self.world,
            lambda a: flows.decide_all(a, asked, semantic="execute_all", digest="d", by=None),
            "decide.batch",
        )

    def _about_task(self, question: EvaluationRequest) -> EvaluationRequest:
        context = question.context
        if context is None or context.get("task") is None:
            return question
        return msgspec.structs.replace(question, context=context | {"task": self.task})

    async def issue(self, what: tuple[str, bool, bool]) -> None:
        name, is_registered, reads = what
        agent = agents.get_agent(self.world.db.read(), name)
        assert agent is not None
        found = self.resource() if is_registered else None
        scopes = frozenset({"files:read"} if reads else {"files:write"})
        uri = URI if is_registered else "https://elsewhere.example.org"
        links = () if reads else (Link("ag_other", 0, "tk_0", owner="pe_0", segment="default", model="m-1"),)
        chain = flows.TaskChain("tk_1", links)
        decide = partial(flows.decide_issue, agent=agent, chain=chain, resource=found, uri=uri, scopes=scopes, acr=KEY)
        with suppress(Forbidden):
            await run_act(self.world, decide, "token.issue")

    def replayed(self) -> Iterator[bool]:
        """Yield whether each decision was replayed or has hidden arguments. Asserts equal decisions."""
        reader = self.world.db.read()
        replays: dict[str, Replay] = {}
        for _, body, facts in ledger.list_entries_with_facts(reader, 0, 1 << 40):
            if facts is None:
                continue
            entry = msgspec.json.decode(body, type=Recorded)
            if entry.policy not in replays:
                rules = policies.rules(reader, entry.policy)
                assert rules is not None
                replays[entry.policy] = Replay(
                    flows.ready_set(reader, entry.policy).policies,
                    rules[1],
                    catalogue=partial(resources.get_catalogue_by_hash, reader),
                )
            told = decode_facts(facts)
            for asked, was in zip(told.posed, verdicts(entry, len(told.posed)), strict=True):
                if asked is None:
                    continue
                try:
                    now = replays[entry.policy].judge(asked, at=told.at)
                except Unreplayable:
                    yield bool(asked.hidden) or asked.arguments is None
                    continue
                named = now.policies or ((now.because,) if entry.action == "decide.batch" else ())
                assert (was.allowed, was.policies, was.errors, was.watched) == (
                    now.allowed,
                    named,
                    now.errors,
                    now.watched,
                ), (entry, asked)
                yield True

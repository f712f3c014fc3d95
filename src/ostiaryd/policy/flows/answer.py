"""Answers within one transaction. What the registry says of agents and tools goes before what a caller says.

agent calls tool       the whole decision of `ostiary.decision.access`, on the bounds of the task that the context names
agent does otherwise   the agent is active, then the policies
anybody else           the policies alone: types and properties as they were sent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec.structs import replace

from ostiary.authorization.budget import BadAmount, Exhausted
from ostiary.authorization.cedar.render import render_record
from ostiary.authorization.cedar.values import Entity, Overlay, Record, Uid, entity
from ostiary.decision import access
from ostiary.decision.access import Decision, Elsewhere, Facts, Foresight, Policies, Principal, Protected, Reason
from ostiary.decision.access.chain import chain_of
from ostiary.decision.access.decide import too_many
from ostiary.decision.access.holds import Hold, throttled
from ostiary.decision.access.reasons import reasons_of
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.provenance.noticing import Risk
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.found import doubt_of, found_agent, found_resource, widest_claims
from ostiaryd.policy.flows.prepared import protected
from ostiaryd.policy.model import (
    NOTHING,
    REGISTERED,
    Posed,
    Question,
    Seen,
    Thing,
    ToolSeen,
    Unanswerable,
    context_of,
    encode_context,
    entity_of,
    moment,
    posed_call,
    proved,
)
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import active_agent, check_none_stopped, find_resource
from ostiaryd.registry.model import Agent, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, standing_id, standing_task

FRESH = 10_000_000
"""how old an answer from elsewhere may be, in microseconds"""
_Found = tuple[Entity, Seen | None]
"""An entity, and what is kept of it where the registry knows it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked elsewhere ahead of an act: under which policies, at what instant, and what was said."""

    policies: str
    now: int
    verdict: Elsewhere


class Called(NamedTuple):
    """A call of a tool, as somebody asks about it."""

    principal: Principal
    task: Task
    resource: Protected
    tool: str
    arguments: dict[str, Any]
    holds: dict[str, tuple[Hold, ...]]
    """what its agents are held to"""


def _is_call(question: Question) -> bool:
    """Return whether an agent asks about the call of a tool."""
    subject, resource = REGISTERED.get(question.subject.type), REGISTERED.get(question.resource.type)
    return subject == "Agent" and resource == "Tool" and question.action.name == access.CALL.id


def _settled(decision: Decision) -> Foresight:
    return access.ALWAYS if decision.allowed else access.NEVER


class Answers:
    """Answers any number of questions with the policies `policies`, at `now` (microseconds).

    With `asked`, contexts say the instant of the asking, so that questions are the same again; who is alive is as of
    now. `keys` open what tasks remember: without them, no call is allowed that is to be judged by it.
    """

    def __init__(
        self, reader: Reader, policies: Policies, *, now: int, asked: Asked | None = None, keys: Keyring | None = None
    ) -> None:
        self._reader, self._policies, self._now, self._keys = reader, policies, now, keys
        self._at, self._elsewhere = now, None
        if asked is not None and asked.policies == policies.hash and 0 <= now - asked.now <= FRESH:
            self._at, self._elsewhere = asked.now, asked.verdict
        self._moment = moment(self._at)
        self._last: tuple[Thing | None, _Found] = None, (entity(Uid("", "")), None)

    @property
    def at(self) -> int:
        """The instant that contexts say."""
        return self._at

    def answer(self, question: Question) -> Decision:
        """Raises nothing: what cannot be answered is denied."""
        return self.answer_and_tell(question)[0]

    def answer_and_tell(
        self, question: Question, *, approved: frozenset[str] = frozenset()
    ) -> tuple[Decision, Posed | None]:
        """The answer, and what the policies were asked for it, if they were. `approved`: those that were told yes."""
        try:
            subject, resource = question.subject, question.resource
            if REGISTERED.get(subject.type) == "Agent":
                return self._answer_agent(question, approved)
            if subject is not self._last[0]:  # which the items of a batch often share
                self._last = subject, self._find(subject)
            return self._answer(question, self._last[1], self._find(resource))
        except (Unanswerable, Forbidden, NotFound) as error:
            reason = Reason(error.code, error.message, error.hint)
            return Decision(False, False, self._policies.hash, (reason,)), None

    def _answer(
        self,
        question: Question,
        principal: _Found,
        resource: _Found,
        *,
        behind: Sequence[Entity] = (),
        said: Record | None = None,
    ) -> tuple[Decision, Posed]:
        """`behind`: through whom an agent got its task; `said`: what of the context nobody may say for it."""
        decision = self._judge(question, principal[0], resource[0], behind, said or {})
        kept = encode_context(render_record(said)) if said else NOTHING
        return decision, Posed(question=question, principal=principal[1], resource=resource[1], context=kept)

    def _judge(
        self, question: Question, principal: Entity, resource: Entity, behind: Sequence[Entity], said: Record
    ) -> Decision:
        policies, context = self._policies, context_of(question, now=self._moment) | said
        entities = Overlay(policies.known, *behind, principal, resource)
        action = Uid("Action", question.action.name)
        judged = policies.judge(
            principal.uid, action, resource.uid, context, entities, self._elsewhere, behind=[one.uid for one in behind]
        )
        reasons = () if judged.allowed else reasons_of(judged, policies)
        return Decision(
            judged.allowed, judged.allowed, policies.hash, reasons, judged.policies, judged.watched, judged.errors
        )

    def _answer_agent(self, question: Question, approved: frozenset[str]) -> tuple[Decision, Posed | None]:
        agent = active_agent(self._reader, question.subject.id, now=self._now)
        kind = REGISTERED.get(question.resource.type)
        if kind == "Tool" and question.action.name == access.CALL.id:
            return self._call(question, agent, approved)
        resource = self._find(question.resource)
        named = (question.context or {}).get("task")
        task = self._task(agent, named if isinstance(named, str) and named.startswith("tk_") else None)
        chain = chain_of(task.chain, holder=agent.agent_id)
        said = chain.context | doubt_of(self._reader, self._policies, agent, task.task_id, task.chain, at=self._at)
        return self._answer(question, found_agent(agent), resource, behind=chain.behind, said=said)

    def foresee(self, question: Question) -> Foresight:
        """Return what can be answered while arguments that the question does not give are unknown. Raises nothing."""
        if not _is_call(question):
            return _settled(self.answer(question))
        try:
            call = self.called(question)
        except (Unanswerable, Forbidden, NotFound):
            return access.NEVER
        ready, given = call.resource.tools.get(call.tool), (question.context or {}).get("arguments")
        if ready is None or not (unknown := access.unknown_arguments(ready, given)):
            return _settled(self.answer(question))
        remembers = self._keys is not None and call.task.memory is not None
        return access.foresee(
            call.principal, tool=call.tool, arguments=call.arguments, unknown=unknown, facts=self._facts(call),
            now=self._at, remembers=remembers,
        )  # fmt: skip

    def _facts(self, call: Called) -> Facts:
        return Facts(
            call.resource, self._policies, risks=self._risks(call.principal), holds=call.holds,
            elsewhere=self._elsewhere,
        )  # fmt: skip

    def _call(self, question: Question, agent: Agent, approved: frozenset[str]) -> tuple[Decision, Posed | None]:
        call = self._called(question, agent)
        facts = self._facts(call)
        memory = None
        if self._keys is not None and call.task.memory is not None:
            memory = tasks.recall(self._reader, call.task, self._keys).memory
        decision = access.decide(
            call.principal, tool=call.tool, arguments=call.arguments, facts=facts, now=self._at, memory=memory,
            approved=approved, past=self._past(call),
        )  # fmt: skip
        return decision, posed_call(call.principal, call.resource, call.tool, decision, approved=sorted(approved))

    def called(self, question: Question) -> Called:
        """Which call of a tool an agent asks about. Raises Unanswerable, Forbidden, NotFound."""
        return self._called(question, active_agent(self._reader, question.subject.id, now=self._now))

    def _called(self, question: Question, agent: Agent) -> Called:
        resource, tool = self._tool(question.resource.id)
        context = question.context or {}
        arguments = context.get("arguments", {})
        if not isinstance(arguments, dict):
            raise Unanswerable("`context.arguments` is not an object")
        task = self._task(agent, context.get("task"))
        principal = Principal(replace(widest_claims(agent, task, resource), **proved(context)))
        own = (agent.agent_id,) if agent.held_until > self._now else ()
        held = {
            one: registry.list_restrictions_of_agent(self._reader, one, now=self._now) for one in (*own, *task.held)
        }
        return Called(principal, task, protected(self._reader, resource), tool, arguments, held)

    def _risks(self, principal: Principal) -> dict[str, Risk]:
        """How far those are doubted through whom a call comes, where policies look at it."""
        if not self._policies.reads_risk:
            return {}
        return registry.get_risks(self._reader, (principal.claims.client_id, *principal.behind, *principal.tasks))

    def _past(self, call: Called) -> access.Past | None:
        """What happened before the call, where policies look at it."""
        ready = call.resource.tools.get(call.tool)
        if not self._policies.reads_history or ready is None or self._keys is None:
            return None
        met = None
        if self._policies.reads_counterparts:
            met = tasks.counterparts(self._reader, call.principal.claims.owner, self._keys)
        before = tasks.before(self._reader, call.task, self._keys, agent=call.task.agent, now=self._now, met=met)
        return access.past_of(before, ready, call.arguments)

    def settle(self, act: Act, question: Question, decision: Decision) -> Decision:
        """Take what an allowed call costs from the budgets of its task, and let the task remember it; where the budget
        is not there, or the call is one too many for an agent that is held to a pace, it is denied.
        """
        if not (decision.allowed and _is_call(question)):
            return decision
        call = self.called(question)
        for held, limit in throttled(call.principal.agents, call.holds, self._now).items():
            if not registry.take_call(act.tx, held):
                return Decision(False, False, self._policies.hash, (too_many(held, limit),))
        if decision.verdict:
            budgets, ready = tasks.in_force(self._reader, call.task), call.resource.tools[call.tool]
            try:
                tasks.spend(act, budgets, ready.uid.id, call.arguments, classes=ready.classes)
            except (Exhausted, BadAmount) as error:
                decision = access.deny(call.resource, self._policies, Reason(error.code, error.message, error.hint))
        if decision.allowed and (past := self._past(call)) is not None:
            tasks.happened(act.tx, call.task, past.done, agent=call.task.agent)
            tasks.meet(act.tx, call.principal.claims.owner, past.met)
        return decision

    def _task(self, agent: Agent, id: object) -> Task:
        if id is None or id == "" or id == standing_id(agent.agent_id):
            check_none_stopped(self._reader, "task", [standing_id(agent.agent_id)])
            return standing_task(agent)
        if not isinstance(id, str):
            raise Unanswerable("`context.task` is not a string")
        task = tasks.live(self._reader, id, now=self._now)
        if task.agent != agent.agent_id:
            raise NotFound("there is no such task, or it is another agent's")
        return task

    def _tool(self, id: str) -> tuple[Resource, str]:
        name, slash, tool = id.partition("/")
        if not slash:
            raise Unanswerable("a tool is named `<resource>/<tool>`")
        resource = find_resource(self._reader, name)
        check_none_stopped(self._reader, "resource", [resource.uri])
        return resource, tool

    def _find(self, thing: Thing) -> _Found:
        if thing.type in REGISTERED:
            return self._registered(thing)
        return entity_of(thing, self._policies.entities), None

    def _registered(self, thing: Thing) -> _Found:
        kind = REGISTERED[thing.type]
        if kind == "Agent":
            return found_agent(active_agent(self._reader, thing.id, now=self._now))
        if kind == "Resource":
            return found_resource(self._reader, find_resource(self._reader, thing.id))
        resource, tool = self._tool(thing.id)
        ready = protected(self._reader, resource)
        if tool not in ready.tools:
            raise NotFound(f"the catalogue of `{resource.name}` has no tool {tool[:128]!a}", code="unknown_tool")
        seen = ToolSeen(ready.name, ready.uri, ready.segment, ready.catalogue_hash, tool)
        return ready.entities[ready.tools[tool].uid], seen

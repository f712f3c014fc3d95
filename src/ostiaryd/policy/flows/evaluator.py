"""Evaluations within one transaction: a request is resolved, decided, and settled.

For agents and tools, the facts of the registry take precedence over the caller's statements:

    agent calls tool       the complete decision of `ostiary.decision.access`, within the task that the context names
    agent does otherwise   the agent must be active; then the policies decide
    any other subject      only the policies decide, on types and properties as the caller sent them
"""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ostiary.authorization.budget import BadAmount, Exhausted
from ostiary.authorization.cedar.render import render_record
from ostiary.authorization.cedar.values import Entity, Overlay, Record, Uid, entity
from ostiary.decision import access
from ostiary.decision.access import (
    Decision,
    DecisionInputs,
    Facts,
    Foresight,
    Judgement,
    Policies,
    Principal,
    Reason,
    RemoteAnswers,
    ResolvedCall,
    Steps,
)
from ostiary.decision.access.chain import chain_of
from ostiary.decision.access.decide import too_many
from ostiary.decision.access.reasons import reasons_of
from ostiary.decision.access.restrictions import throttled
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.protocol.secret_forms import texts_in
from ostiary.provenance.history import PriorHistory
from ostiary.provenance.noticing import Risk
from ostiary.provenance.origins import Memory
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.entity_lookup import agent_with_facts, resource_with_facts, risk_context, widest_claims
from ostiaryd.policy.flows.external_retry import fresh_answers
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.policy.model import (
    NOTHING,
    REGISTERED,
    EvaluationRequest,
    Posed,
    Seen,
    Thing,
    ToolSeen,
    Unanswerable,
    context_of,
    encode_context,
    entity_of,
    posed_call,
    stated_assurance,
    time_context,
)
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import active_agent, check_none_stopped, find_resource
from ostiaryd.registry.model import Agent, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, standing_id, standing_task

MAX_SEARCHED_IN_ACT = 32 << 10
"""Maximum size of the arguments that are searched for secrets within an act, in bytes, because an act delays all
others.
"""
_EntityWithFacts = tuple[Entity, Seen | None]
"""An entity, and the facts about it that are stored with a decision (None if the entity is not registered)."""
_NONE: _EntityWithFacts = entity(Uid("", "")), None


class ToolCall(NamedTuple):
    """A call of a tool by a registered agent, under a task."""

    call: ResolvedCall
    task: Task


class OtherRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that is not a call of a tool by a registered agent. Only the policies decide on it."""

    question: EvaluationRequest
    principal: _EntityWithFacts
    resource: _EntityWithFacts
    behind: tuple[Entity, ...]
    """The agents in the delegation chain of the principal."""
    context: Record
    """Members of the policies' `context` that the server knows about a registered agent: its delegation chain and its
    risk. They replace members of these names in the request. Empty for any other subject.
    """


Resolved = ToolCall | OtherRequest


class Evaluator:
    """Evaluates access requests with one policy set at `now` (microseconds).

    `remote`: verdicts of Rego and OPA policies from an earlier evaluation. Policies then see the time of that
    evaluation as the present time, so that the questions are the same; tokens and tasks are checked at `now`. `keys`
    decrypt the memories of tasks; without keys, a call that depends on a memory is denied.
    """

    def __init__(
        self,
        reader: Reader,
        policies: Policies,
        *,
        now: int,
        remote: RemoteAnswers | None = None,
        keys: Keyring | None = None,
    ) -> None:
        self._reader, self._policies, self._now, self._keys = reader, policies, now, keys
        self._searchable = MAX_SEARCHED_IN_ACT
        self._remote = fresh_answers(remote, policies, now=now)
        self.at = now if self._remote is None else self._remote.at
        """The time that policies see in the context, in microseconds."""
        self._moment = time_context(self.at)
        self._last: tuple[Thing | None, _EntityWithFacts] = None, _NONE
        self._last_action = access.CALL
        self._permits: dict[tuple[str, ...], Decision] = {}
        """decisions that allow, without failed or watching policies, by the ids of the permitting policies; kept so
        that equal decisions are made once
        """

    def evaluate(self, question: EvaluationRequest) -> Decision:
        """Return the decision on a request. Raises nothing: a request that cannot be resolved is denied."""
        try:
            return self.decide(self.resolve(question))[0]
        except (Unanswerable, Forbidden, NotFound) as error:
            return self.refuse(error)

    def refuse(self, error: Unanswerable | Forbidden | NotFound) -> Decision:
        """Return the denial of a request for the reason in `error`, for example that its agent is unknown."""
        return Decision(False, False, self._policies.hash, (Reason(error.code, error.message, error.hint),))

    def resolve(self, question: EvaluationRequest) -> Resolved:
        """Return the request with the entities that policies see, and with the registry's facts about them. Raises
        Unanswerable for a type or a value that policies cannot represent, Forbidden for an agent that is not active,
        NotFound for an unknown agent, resource or tool.
        """
        subject = question.subject
        if REGISTERED.get(subject.type) == "Agent":
            agent = active_agent(self._reader, subject.id, now=self._now)
            if REGISTERED.get(question.resource.type) == "Tool" and question.action.name == access.CALL.id:
                return self._tool_call(question, agent)
            return self._agent_request(question, agent)
        if subject is not self._last[0]:  # cached, because items of a batch often have the same subject and resource
            self._last = subject, self._find(subject)
        return OtherRequest(question, self._last[1], self._find(question.resource), (), {})

    def decide(self, resolved: Resolved, *, approved: frozenset[str] = frozenset()) -> tuple[Decision, Posed | None]:
        """Return the decision on a resolved request, and the question that the policies answered (None if they were not
        asked), as it was sent. `approved`: ids of the policies that ask for approval and whose approval has been given.
        """
        if isinstance(resolved, OtherRequest):
            return self._judge(resolved)
        inputs = DecisionInputs(approved=approved, remote=self._remote)
        decision = self._answer_needs(resolved, access.decide_steps(resolved.call, inputs))
        return decision, posed_call(resolved.call, decision, approved=sorted(approved))

    def check_secrets(self, resolved: ToolCall) -> None:
        """Check that the arguments of a call contain no secret that a proxy inserted into requests of an agent in the
        call's delegation chain. Raises SecretSent otherwise, and if there are such secrets, but the arguments are too
        long to be searched. Without the keys of the server, nothing is checked.
        """
        if self._keys is not None:
            principal, arguments = resolved.call.principal, resolved.call.arguments
            agents = [agent for agent, _ in principal.agents]
            text = texts_in(arguments)
            self._searchable -= registry.check_no_secret(
                self._reader, agents, text, keys=self._keys, now=self._now, limit=self._searchable
            )

    def settle(self, act: Act, resolved: ToolCall, decision: Decision) -> Decision:
        """Charge an allowed call to the budgets of its task, and add the call to the history of the task, if a policy
        reads histories; return the decision. The decision becomes a denial if the call exceeds a budget, or the rate of
        an agent that is throttled. If `decision` is a denial, nothing changes.
        """
        if not decision.allowed:
            return decision
        call, task = resolved
        for agent, limit in throttled(call.principal.agents, call.facts.restrictions, self._now).items():
            if not registry.count_call(act.tx, agent):
                return Decision(False, False, self._policies.hash, (too_many(agent, limit),))
        if decision.verdict:
            assert call.ready is not None
            budgets = tasks.in_force(self._reader, task)
            try:
                tasks.spend(act, budgets, call.ready.uid.id, call.arguments, classes=call.ready.classes)
            except (Exhausted, BadAmount) as error:
                decision = access.refuse(call.facts, error)
        if decision.allowed and call.reads_history and (prior := self._prior_history(resolved)) is not None:
            assert call.ready is not None
            past = access.past_of(prior, call.ready, call.arguments)
            tasks.record_call(act.tx, task, past.done, agent=task.agent)
            tasks.add_counterparts(act.tx, call.principal.claims.owner, past.met)
        return decision

    def foresee(self, question: EvaluationRequest) -> Foresight:
        """Return which verdicts are possible for a request that leaves out some arguments of the tool, depending on
        their values. A request that cannot be resolved is always denied. Raises nothing.
        """
        try:
            resolved = self.resolve(question)
        except (Unanswerable, Forbidden, NotFound):
            return access.NEVER
        if isinstance(resolved, ToolCall) and (ready := resolved.call.ready) is not None:
            arguments = (question.context or {}).get("arguments")
            if unknown := access.unknown_arguments(ready, arguments):
                has_memory = self._keys is not None and resolved.task.memory is not None
                return access.foresee(resolved.call, unknown, has_memory=has_memory)
        return access.ALWAYS if self.decide(resolved)[0].allowed else access.NEVER

    def _judge(self, request: OtherRequest) -> tuple[Decision, Posed]:
        question, context, policies = request.question, request.context, self._policies
        (principal, facts), (resource, target) = request.principal, request.resource
        near = {principal.uid: principal, resource.uid: resource}
        if request.behind:
            near = {one.uid: one for one in request.behind} | near
        stated = context_of(question, now=self._moment)
        judgement = policies.judge(
            principal.uid,
            self._action(question.action.name),
            resource.uid,
            stated | context if context else stated,
            Overlay(policies.known, near),
            None if self._remote is None else self._remote.look_up,
            behind=[one.uid for one in request.behind] if request.behind else (),
        )
        kept = encode_context(render_record(context)) if context else NOTHING
        posed = Posed(question=question, principal=facts, resource=target, context=kept)
        return self._decision_of(judgement), posed

    def _action(self, name: str) -> Uid:
        """Return the entity of an action. Items of a batch often have the same action."""
        if name != self._last_action.id:
            self._last_action = Uid("Action", name)
        return self._last_action

    def _decision_of(self, judgement: Judgement) -> Decision:
        """Return the decision of the policies alone. Permits by the same policies are one object, so that a batch
        records and renders it once.
        """
        plain = judgement.allowed and not judgement.watched and not judgement.errors
        if plain and (permit := self._permits.get(judgement.policies)) is not None:
            return permit
        decision = Decision(
            judgement.allowed,
            judgement.allowed,
            self._policies.hash,
            () if judgement.allowed else reasons_of(judgement, self._policies),
            judgement.policies,
            judgement.watched,
            judgement.errors,
        )
        if plain:
            self._permits[judgement.policies] = decision
        return decision

    def _answer_needs(self, resolved: ToolCall, steps: Steps[Decision]) -> Decision:
        """Run the steps of a decision within this transaction, and return the decision. Remote policies are not asked
        here: their verdicts must be there before.
        """
        answer: Memory | PriorHistory | None = None
        with closing(steps):
            while True:
                try:
                    need = steps.send(answer)
                except StopIteration as done:
                    decision: Decision = done.value
                    return decision
                match need:
                    case access.TaskMemory():
                        answer = self._memory(resolved.task)
                    case access.History():
                        answer = self._prior_history(resolved)
                    case access.RemotePolicies():
                        answer = None

    def _memory(self, task: Task) -> Memory | None:
        if self._keys is None or task.memory is None:
            return None
        return tasks.read_memory(self._reader, task, self._keys).memory

    def _prior_history(self, resolved: ToolCall) -> PriorHistory | None:
        if self._keys is None:
            return None
        call, task = resolved
        met = None
        if self._policies.reads_counterparts:
            met = tasks.counterparts(self._reader, call.principal.claims.owner, self._keys)
        return tasks.read_history(self._reader, task, self._keys, agent=task.agent, now=self._now, met=met)

    def _agent_request(self, question: EvaluationRequest, agent: Agent) -> OtherRequest:
        named = (question.context or {}).get("task")
        resource = self._find(question.resource)
        task = self._task(agent, named if isinstance(named, str) and named.startswith("tk_") else None)
        chain = chain_of(task.chain, holder=agent.agent_id)
        context = chain.context | risk_context(
            self._reader, self._policies, agent, task.task_id, task.chain, at=self.at
        )
        return OtherRequest(question, agent_with_facts(agent), resource, chain.behind, context)

    def _tool_call(self, question: EvaluationRequest, agent: Agent) -> ToolCall:
        resource, tool = self._tool(question.resource.id)
        context = question.context or {}
        arguments = context.get("arguments", {})
        if not isinstance(arguments, dict):
            raise Unanswerable("`context.arguments` is not an object")
        task = self._task(agent, context.get("task"))
        principal = Principal(replace(widest_claims(agent, task, resource), **stated_assurance(context)))
        own = (agent.agent_id,) if agent.restricted_until > self._now else ()
        restrictions = {
            one: registry.list_restrictions_of_agent(self._reader, one, now=self._now)
            for one in (*own, *task.restricted)
        }
        facts = Facts(
            prepared_resource(self._reader, resource),
            self._policies,
            risks=self._risks(principal),
            restrictions=restrictions,
        )
        return ToolCall(access.resolve(principal, tool, arguments, facts, self.at), task)

    def _risks(self, principal: Principal) -> dict[str, Risk]:
        """Return the risk score of each agent and task through which a call comes; empty if no policy
        reads the risk.
        """
        if not self._policies.reads_risk:
            return {}
        return registry.get_risks(self._reader, (principal.claims.client_id, *principal.behind, *principal.tasks))

    def _task(self, agent: Agent, id: object) -> Task:
        if id is None or id == "" or id == standing_id(agent.agent_id):
            check_none_stopped(self._reader, "task", [standing_id(agent.agent_id)])
            return standing_task(agent)
        if not isinstance(id, str):
            raise Unanswerable("`context.task` is not a string")
        task = tasks.live(self._reader, id, now=self._now)
        if task.agent != agent.agent_id:
            raise NotFound("task not found")
        return task

    def _tool(self, id: str) -> tuple[Resource, str]:
        name, slash, tool = id.partition("/")
        if not slash:
            raise Unanswerable("the id of a tool must have the form `<resource>/<tool>`")
        resource = find_resource(self._reader, name)
        check_none_stopped(self._reader, "resource", [resource.uri])
        return resource, tool

    def _find(self, thing: Thing) -> _EntityWithFacts:
        if thing.type in REGISTERED:
            return self._registered(thing)
        return entity_of(thing, self._policies.entities), None

    def _registered(self, thing: Thing) -> _EntityWithFacts:
        kind = REGISTERED[thing.type]
        if kind == "Agent":
            return agent_with_facts(active_agent(self._reader, thing.id, now=self._now))
        if kind == "Resource":
            return resource_with_facts(self._reader, find_resource(self._reader, thing.id))
        resource, tool = self._tool(thing.id)
        ready = prepared_resource(self._reader, resource)
        if tool not in ready.tools:
            raise NotFound(f"the catalogue of `{resource.name}` has no tool {tool[:128]!a}", code="unknown_tool")
        facts = ToolSeen(ready.name, ready.uri, ready.segment, ready.catalogue_hash, tool)
        return ready.entities[ready.tools[tool].uid], facts

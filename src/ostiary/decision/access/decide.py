"""The decision on a tool call: a list of rules, each of which can only deny."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from ostiary.authorization import bounds
from ostiary.authorization.arguments import BadArguments
from ostiary.authorization.assurance import INSUFFICIENT, levels_from
from ostiary.authorization.catalogue import Effect
from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.values import Record
from ostiary.authorization.claims import AccessClaims
from ostiary.decision.access.facts import Facts, Principal, Protected, ReadyTool
from ostiary.decision.access.inputs import (
    NO_INPUTS,
    DecisionInputs,
    History,
    RemotePolicies,
    ResolvedCall,
    Steps,
    TaskMemory,
)
from ostiary.decision.access.lazy_context import LazyContext, past_of
from ostiary.decision.access.noticing import noticed_of
from ostiary.decision.access.policies import CALL, HISTORY, RISK, Needs, Policies
from ostiary.decision.access.reasons import Reason, asks_of, reasons_of
from ostiary.decision.access.restrictions import Restriction
from ostiary.decision.access.risk_context import risk_context
from ostiary.decision.access.stops import format_stops
from ostiary.protocol.errors import Refused
from ostiary.provenance.noticing import Noticed, total_points
from ostiary.provenance.origins import CallValues, Memory, judge_origins, judge_outgoing, judge_plan, lend_documents


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The decision on a call.

    `verdict`: the result of the rules; `allowed`: the enforced result, which differs only in mode `watch`. `policies`:
    ids of the policies that decided; `watched`: ids of policies in mode `watch` whose conditions hold; `errors`:
    (policy id, message) of failed policies. `asks`: if only approvals are missing, `person` (one person must approve)
    or `two` (two persons), otherwise None; `approval`: id of the approval that was requested or spent, or empty.
    """

    allowed: bool
    verdict: bool
    policy_hash: str
    reasons: tuple[Reason, ...] = ()
    policies: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()
    arguments: Record | None = None
    """the arguments as policies see them; None if the call was denied before the policies"""
    asks: Needs | None = None
    approval: str = ""
    call_context: Record | None = None
    """the members of the context that were computed for this call: origins of its arguments, history, and risk; None if
    no policy reads them
    """
    noticed: tuple[Noticed, ...] = ()
    """findings of detectors about the call"""


def decide_steps(call: ResolvedCall, inputs: DecisionInputs = NO_INPUTS) -> Steps[Decision]:
    """Return a generator that decides a call whose facts do not change meanwhile. The generator yields each need that
    `inputs` does not answer, is sent the answer, and returns the decision.
    """
    if inputs.memory is None and call.reads_memory:
        inputs = replace(inputs, memory=(yield TaskMemory()))
    if inputs.past is None and call.reads_history and (before := (yield History())) is not None:
        assert call.ready is not None
        inputs = replace(inputs, past=past_of(before, call.ready, call.arguments))
    decision = decide(call, inputs)
    while (remote := inputs.remote) is not None and remote.missing:
        question = next(iter(remote.missing))
        if (verdict := (yield RemotePolicies(remote.policies, question, remote.at))) is None:
            break  # no answer: the remote policies count as failed, and the decision is final
        remote.add(question, verdict)
        decision = decide(call, inputs)
    return decision


def decide(call: ResolvedCall, inputs: DecisionInputs = NO_INPUTS) -> Decision:
    """Return the decision on a call. The caller of this function has verified the token and its proof. Raises nothing.

    A call for which an input is missing is denied. The rules are checked in this order, and the first unmet rule
    denies:

     1. Liveness. The token has not expired; the token, its key, its tasks and the agents of its chain are not revoked,
        ended or suspended; the kill switch stops none of them.
     2. Audience. The token is for this resource.
     3. Restrictions. The call is within the restrictions of the agent, and of each agent behind it. (The server counts
        the rate of throttled agents, apart from these rules.)
     4. Tool. The catalogue of the resource has the tool.
     5. Task. The scope of the tool is in the token, and the bounds of the token permit the call.
     6. Arguments. They match the schema of the tool.
     7. Origins. If the policies need the memory of the task, the memory is in `inputs`.
     8. Noticing. This rule never denies: findings of detectors about the call raise `context.risk`.
     9. History. If an enforced policy can read the history, the history is in `inputs`.
    10. Policies. For the agent and for each agent behind it, at least one policy permits, and no policy forbids or
        fails. A policy that requires an approval forbids until the approval is given.
    11. Complete history. If an enforced policy can read the history, and a policy has read it for this call, the
        history is not full.

    If the resource is in mode `watch`, a denial is recorded and the call passes. Rules 1 to 3 are enforced in this mode
    too, because they do not depend on the policies of the owner.
    """
    principal, facts, now, ready = call.principal, call.facts, call.now, call.ready
    policies, resource = facts.policies, facts.resource
    reason = check_liveness(principal, facts, now)  # 1
    if reason is None and principal.claims.aud != resource.uri:  # 2
        reason = Reason("wrong_audience", f"the token is not for {resource.uri}", "get a token for this resource")
    if reason is None and facts.restrictions:  # 3
        reason = check_restrictions(principal, facts, ready, now)
    if reason is not None:
        return Decision(False, False, policies.hash, (reason,))
    if ready is None:  # 4
        return deny(resource, policies, _unknown(resource, call.tool))
    session = inputs.session
    reason = _outside(principal, resource, ready, call.arguments)  # 5
    if reason is not None:
        denied = deny(resource, policies, reason)
        if session is not None:
            why_not = "" if denied.allowed else reason.code  # in mode watch, tasks are not declared yet
            denied = replace(denied, noticed=noticed_of(call, ready, session, inputs.memory, why_not=why_not))
        return denied
    try:
        typed = ready.type_(call.arguments)  # 6
    except BadArguments as error:
        return deny(resource, policies, Reason(error.code, error.message))

    context: Record = {**principal.context, "arguments": typed, "now": Datetime(now // 1000)}
    call_context: Record | None = None
    values: CallValues | None = None
    if call.reads_memory:  # 7
        if inputs.memory is None:
            return deny(resource, policies, _NO_MEMORY)
        values = CallValues(ready.tool, call.arguments)
        call_context = _judge_values(call, ready, inputs.memory, values)
        context |= call_context
    noticed: tuple[Noticed, ...] = ()
    if session is not None:  # 8
        noticed = noticed_of(call, ready, session, inputs.memory, call_context, values)
    if policies.reads_risk:
        agents = (principal.claims.client_id, *principal.behind)
        risk = risk_context(facts.risks, agents=agents, tasks=principal.tasks, now=now, call=total_points(noticed))
        context[RISK] = risk
        call_context = {**(call_context or {}), RISK: risk}
    if policies.reads_history:  # 9
        if inputs.past is not None:
            context = LazyContext(context, inputs.past, call.arguments)
        elif policies.relies_on_history:
            return deny(resource, policies, _NO_HISTORY)
    entities, cache = principal.entity_overlay(facts.entities)
    remote = None if inputs.remote is None else inputs.remote.source_for(policies)
    judgement = policies.judge(  # 10
        principal.entity.uid,
        CALL,
        ready.uid,
        context,
        entities,
        remote,
        inputs.approved,
        behind=principal.links,
        cache=cache,
    )
    if isinstance(context, LazyContext) and (history := context.looked_at) is not None:  # 11
        if context.is_full and policies.relies_on_history and judgement.because in ("", "approval_needed"):
            return deny(resource, policies, _FULL)
        call_context = {**(call_context or {}), HISTORY: history}
    return Decision(
        allowed=judgement.allowed or resource.mode == "watch",
        verdict=judgement.allowed,
        policy_hash=policies.hash,
        reasons=() if judgement.allowed else reasons_of(judgement, policies),
        policies=judgement.policies,
        watched=judgement.watched,
        errors=judgement.errors,
        arguments=typed,
        asks=None if judgement.allowed else asks_of(judgement, policies),
        call_context=call_context,
        noticed=noticed,
    )


def _judge_values(call: ResolvedCall, ready: ReadyTool, memory: Memory, values: CallValues) -> Record:
    """Return the origins of the arguments, the labels of outgoing text, and the relation of the call to the plan of the
    task, as attributes for policies (rule 7 of `decide`).
    """
    tool, arguments = ready.tool, call.arguments
    lent, is_planned = lend_documents(memory, ready.uid.id, tool), memory.may_plan(ready.uid.id)
    context = judge_origins(lent, tool, arguments, values, is_planned=is_planned)
    context |= judge_outgoing(memory, tool, arguments, values)
    context |= judge_plan(memory, ready.uid.id, tool, arguments, values)
    return context


_NO_MEMORY = Reason("memory_unavailable", "the memory of the task is not available", "try again")
_NO_HISTORY = Reason("history_unavailable", "the history of the task is not available", "try again")
_FULL = Reason(
    "history_full",
    "this task, or this agent since yesterday, made more calls than the history can store",
    "start another task; the history of the agent covers today and yesterday (UTC)",
)


def check_liveness(principal: Principal, facts: Facts, now: int) -> Reason | None:
    """Return the reason why the token is no longer valid (rule 1 of `decide`); None if it is valid."""
    claims = principal.claims
    if now >= principal.expires_at:
        return Reason("token_expired", "the token has expired", "get a new token")
    if facts.stops and (stopped := facts.stops & principal.names):
        return Reason(
            "stopped", f"the kill switch stops {format_stops(stopped)}", "ask an administrator to lift the stop"
        )
    if exceptions := facts.agents:
        for agent, epoch in principal.agents:
            # the feed may change the fact at any time, so read it once
            if agent not in exceptions or (fact := exceptions.get(agent)) is None:
                continue
            if fact.state != "active":
                return Reason(
                    "agent_not_active",
                    f"agent {agent} is {fact.state}",
                    "ask the owner of the agent, or an administrator",
                )
            if epoch is not None and epoch < fact.epoch:
                return Reason("token_revoked", f"the tokens of agent {agent} were revoked", "get a new token")
    ended = facts.ended_tasks
    for task in principal.tasks:
        if task in ended:
            return Reason("task_ended", f"task {task} has ended", "declare a new task")
    if claims.jti in facts.ended_tokens:
        return Reason("token_revoked", "the token was revoked", "get a new token")
    for key in principal.keys:
        if key in facts.revoked_keys:
            why = "the key that the token is bound to was revoked"
            return Reason("key_revoked", why, "use another key of the agent")
    return None


def check_restrictions(principal: Principal, facts: Facts, ready: ReadyTool | None, now: int) -> Reason | None:
    """Return the reason for a denial if the call violates a restriction of the token's holder or of an agent behind it;
    otherwise None.
    """
    for agent, _ in principal.agents:
        for restriction in facts.restrictions.get(agent, ()):
            if now >= restriction.until:
                continue
            if restriction.kind == "narrow" and (ready is None or ready.tool.effect is not Effect.READ):
                return Reason(
                    "narrowed",
                    f"agent {agent} may only read for now",
                    "ask the owner of the agent, or an administrator",
                )
            if (
                restriction.kind == "step_up"
                and (reason := find_unproved(principal.claims.acr, principal.claims.auth_time, restriction, now=now))
                is not None
            ):
                return reason
    return None


def find_unproved(acr: str, auth_time: int | None, restriction: Restriction, *, now: int) -> Reason | None:
    """Return the reason for a denial if a token does not satisfy a restriction of the kind `step_up`; otherwise None.
    `acr`: level of the token; `auth_time`: time at which its holder authenticated, in seconds; `now` in microseconds.
    """
    levels = levels_from(restriction.limit)
    if acr in levels and auth_time is not None and auth_time * 1_000_000 >= restriction.since:
        return None
    age = max(0, now - restriction.since) // 1_000_000
    why = "a token with a newer authentication is required"
    return Reason(INSUFFICIENT, why, "get a token with these `acr_values`", " ".join(levels), age)


def too_many(agent: str, limit: int) -> Reason:
    """Return the reason for denying a call beyond the rate of a throttled agent."""
    return Reason("throttled", f"agent {agent} is limited to {limit} calls a minute", "wait for the next minute")


def _unknown(resource: Protected, tool: str) -> Reason:
    return Reason(
        "unknown_tool",
        f"the catalogue of `{resource.name}` has no tool {tool[:128]!a}",
        f"ostiary resource catalogue {resource.name} FILE",
    )


def _outside(
    principal: Principal, resource: Protected, ready: ReadyTool, arguments: Mapping[str, object]
) -> Reason | None:
    """Return the reason for a denial if the call is outside the scopes or outside the details of its token; otherwise
    None.
    """
    name = ready.tool.name
    if ready.scope not in principal.scopes:
        claims = principal.claims
        lacking = f"agent `{claims.client_id}`" if _is_standing(claims) else f"the task `{claims.task}`"
        why = f"{lacking} lacks the scope `{ready.scope}`, which `{name}` needs"
        return Reason("outside_task", why, _allowing(claims, ready.scope))
    if not principal.details or any(
        detail.failure(arguments) is None for detail in principal.bounds(name, ready.classes)
    ):
        return None
    why = bounds.explain(
        principal.details, resource_uri=resource.uri, tool=name, arguments=arguments, classes=ready.classes
    )
    return Reason("outside_task", why, "ostiary task start --agent AGENT --purpose WORDS --bounds FILE")


def _allowing(claims: AccessClaims, scope: str) -> str:
    """Return the hint for a task that lacks the scope `scope`: for the standing task, the command that adds the scope
    to the agent; for any other task, the advice to start a task with the scope.
    """
    if _is_standing(claims):
        return f"ostiary agent allow {claims.client_id} {scope}"
    return f"start a task that has the scope `{scope}`"


def _is_standing(claims: AccessClaims) -> bool:
    """Return whether the token belongs to the standing task of its agent."""
    return claims.task.removeprefix("tk_") in ("", claims.client_id.removeprefix("ag_"))


def deny(resource: Protected, policies: Policies, reason: Reason) -> Decision:
    """Return the decision that denies a call for `reason`. If the resource is in mode `watch`, the verdict is deny, but
    `allowed` is true.
    """
    return Decision(resource.mode == "watch", False, policies.hash, (reason,))


def refuse(facts: Facts, refusal: Refused) -> Decision:
    """Return the decision that denies a call because of a refusal outside of the rules of `decide`, for example by a
    budget.
    """
    return deny(facts.resource, facts.policies, Reason(refusal.code, refusal.message, refusal.hint))

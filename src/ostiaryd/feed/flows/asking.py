"""Evaluation of policies for guards: a guard sends the question about a call if the guard cannot run one of the
policies.

The call must be under a live token for the guard's own resource.
"""

from __future__ import annotations

from typing import Any

from ostiary.decision.access import CALL
from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.decision.asking import Question, RemotePolicyRequest
from ostiary.protocol.errors import Conflict, Forbidden
from ostiary.protocol.signed import digest
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.flows.external_retry import FRESH
from ostiaryd.policy.model import Ready
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, Resource


def check_ask(reader: Reader, ask: RemotePolicyRequest, question: Question, *, resource_id: str, now: int) -> Ready:
    """Check a guard's question about a call, and return the active policy set, which evaluates the question.

    Raises Forbidden if the token is not live or not for this resource, or if the question is not about a present call
    under that token; Conflict if the guard has another policy set than the active one.
    """
    resource = registry.find_resource(reader, resource_id)
    holding = registry.get_holding(reader, ask.token)
    if holding is None or holding.audience != resource.uri or holding.task is None or not holding.is_live(now):
        raise Forbidden("the token is unknown or ended, is for another resource, or has no task", code="foreign_token")
    if not _is_about(question, resource, holding) or not _is_of(question.context.get("now"), now):
        raise Forbidden(
            "the question is not about a present call with the token that it names", code="foreign_question"
        )
    ready = policy.active_set(reader)
    if ready.policies.hash != ask.policy or ready.program is None:
        raise Conflict("another policy set has become active", hint="try again", code="other_policies")
    return ready


def _is_about(question: Question, resource: Resource, holding: Holding) -> bool:
    subject, target = question.subject, question.resource
    return (
        (subject.type, subject.id) == ("Agent", holding.agent)
        and question.action.name == CALL.id
        and (target.type, target.id.partition("/")[0]) == ("Tool", resource.name)
        and question.context.get("task") == holding.task
    )


def _is_of(instant: object, now: int) -> bool:
    """Return whether `instant` (nanoseconds since the epoch) differs from `now` (microseconds) by at most `FRESH`."""
    return isinstance(instant, int) and abs(instant // 1000 - now) <= FRESH


def note_asked(
    act: Act, ask: RemotePolicyRequest, question: Question, verdict: RemoteVerdict, *, resource_id: str
) -> None:
    """Write the policies' results into the act's ledger entry. Raises the errors of `check_ask` again, since the token
    may have ended during the evaluation.
    """
    resource = registry.find_resource(act.tx, resource_id)
    act.entry.resource, act.entry.token, act.entry.policy = resource.uri, ask.token, ask.policy
    act.entry.digest = digest(ask.question)
    act.entry.tool = question.resource.id[:256]
    check_ask(act.tx, ask, question, resource_id=resource_id, now=act.now)
    if (holding := registry.get_holding(act.tx, ask.token)) is not None:
        act.entry.agent, act.entry.task = holding.agent, holding.task
    effects: dict[str, Any] = {one.policy: _effect_of(one.permits, one.forbids, one.error) for one in verdict}
    act.entry.detail = {"call": ask.call, "said": effects}


def _effect_of(permits: bool, forbids: tuple[str, ...], error: str) -> Any:
    if error:
        return {"error": error[:256]}
    if forbids:
        return {"forbid": [one[:256] for one in forbids[:4]]}
    return "permit" if permits else "neither"

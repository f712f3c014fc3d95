"""Questions of guards about a call under a live token for their own resource. Only the server can answer: it has the
policies that a guard cannot run, the count of the calls of throttled agents, and the secrets that egress proxies use.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ostiary.decision.access import CALL
from ostiary.decision.access.decide import too_many
from ostiary.decision.access.remote_policies import RemoteVerdict
from ostiary.decision.asking import Question, RemotePolicyRequest
from ostiary.protocol.errors import Conflict, Forbidden
from ostiary.protocol.secret_forms import SecretSent
from ostiary.protocol.signed import digest
from ostiaryd.approvals import flows as approvals
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.flows.external_retry import FRESH
from ostiaryd.policy.model import Ready
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, Resource


def check_ask(reader: Reader, ask: RemotePolicyRequest, question: Question, *, resource_id: str, now: int) -> Ready:
    """Check a guard's question about a call, and return the active policy set, which evaluates the question.

    Raises Forbidden if the token is not live or not for this resource, or if the question does not describe a present
    call with the token; Conflict if the guard has another policy set than the active one.
    """
    resource = registry.find_resource(reader, resource_id)
    holding, _ = registry.find_token(reader, ask.token, resource, now=now)
    if not _is_about(question, resource, holding):
        raise Forbidden(
            "the question is not about a call with the token: its agent, its task or its resource is another",
            code="foreign_question",
        )
    if not _is_of(question.context.get("now"), now):
        raise Forbidden(
            f"the time of the question differs from the server's time by more than {FRESH // 1_000_000} s",
            hint="set the clock of the guard's machine right",
            code="foreign_question",
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
    """Write the policies' results for a guard's question into the ledger entry of the act. Raises the errors of
    `check_ask` again, since the token may have ended during the evaluation.
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


def count_call(tx: Tx, token: str, *, resource_id: str) -> None:
    """Count one call under a live token for that resource, against the limit of each throttled agent in the token's
    chain.

    Raises Forbidden with code `throttled` if an agent exceeds its limit, and Forbidden if the token is not live or not
    for this resource.
    """
    for agent in _agents_behind(tx, token, resource_id=resource_id, now=tx.now):
        for restriction in registry.list_restrictions_of_agent(tx, agent, now=tx.now):
            if restriction.kind == "throttle" and not registry.count_call(tx, agent):
                reason = too_many(agent, restriction.limit)
                raise Forbidden(reason.message, hint=reason.hint, code=reason.code)


def search_text(reader: Reader, *, token: str, text: str, resource_id: str, keys: Keyring, now: int) -> None:
    """Check that `text` contains no secret that an egress proxy used for an agent in the chain of the token.

    Raises SecretSent if the text contains such a secret; Forbidden if the token is not live or not for this resource.
    """
    agents = _agents_behind(reader, token, resource_id=resource_id, now=now)
    registry.check_no_secret(reader, agents, text, keys=keys, now=now)


def refuse_secret(act: Act, *, token: str, refusal: SecretSent, resource_id: str) -> NoReturn:
    """Record in the ledger that a text was refused because of a secret, with the agent and the task of the token.
    Always raises `refusal`.
    """
    resource, holding = registry.find_resource(act.tx, resource_id), registry.get_holding(act.tx, token)
    act.entry.resource, act.entry.token = resource.uri, token
    if holding is not None:
        agent = registry.find_agent(act.tx, holding.agent)
        act.entry.agent, act.entry.owner, act.entry.task = agent.agent_id, agent.owner, holding.task
    raise refusal


def _agents_behind(reader: Reader, token: str, *, resource_id: str, now: int) -> dict[str, None]:
    """Return the agents in the chain of a live token for that resource, each one time. Raises Forbidden if the token is
    not live or not for this resource.
    """
    task = approvals.task_of_token(reader, token, registry.find_resource(reader, resource_id), now=now)
    return dict.fromkeys([task.agent, *(link.agent for link in task.chain)])

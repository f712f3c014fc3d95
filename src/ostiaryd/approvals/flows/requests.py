"""Access requests of an enforcement point after a denial (AuthZEN Access Request and Approval Profile, draft 1)."""

from __future__ import annotations

from ostiary.decision import approval
from ostiary.decision.access import CALL, RemoteAnswers
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiary.provenance.origins import origins_by_argument
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.ask import ask
from ostiaryd.approvals.flows.calls import asking_policies, describe
from ostiaryd.approvals.model import AskedCall, Question
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model import EvaluationRequest, Unanswerable
from ostiaryd.registry import flows as registry

HOPELESS = "no approval of a person would change the denial"
SEE_REASON = "evaluate the request again: the decision states the reason of the denial"


class NotRequestable(Invalid):
    """Raised for an access request if the evaluation is not a denial, or if no approval of a person would change the
    denial.
    """

    code = "not_requestable"


class Duplicate(Conflict):
    """Raised if the `Idempotency-Key` of a request was used for a request with another body."""

    code = "duplicate_request"


def find_submitted(act: Act, key: str, *, body: str) -> Question | None:
    """Return the approval request that the caller submitted before with this idempotency key (`key` and `body` are
    digests); None if there is none. Raises Duplicate if the key was used for a request with another body.
    """
    earlier = store.find_submitted(act.tx, key)
    if earlier is None:
        return None
    id, before = earlier
    if before != body:
        raise Duplicate(
            "the `Idempotency-Key` was used for a request with another body", hint="send another `Idempotency-Key`"
        )
    act.entry.action = "approval.again"
    registry.fill_entry(act, object=id)
    return store.get_question(act.tx, id)


def ask_about_question(
    act: Act, question: EvaluationRequest, *, remote: RemoteAnswers | None, config: Config
) -> Question:
    """Return the approval request about an evaluation, which must be a denial that an approval would change into a
    permission; the request is created if there is none yet.

    Raises NotRequestable for any other evaluation, Malformed for a request that is too long for a person to read,
    Forbidden as `ask` does.
    """
    evaluator = policy.Evaluator(
        act.tx, ours := policy.active_policies(act.tx), now=act.now, remote=remote, keys=act.tx.keys
    )
    try:
        resolved = evaluator.resolve(question)
    except (Unanswerable, Forbidden, NotFound):
        raise NotRequestable(HOPELESS, hint=SEE_REASON) from None
    decision, _ = evaluator.decide(resolved)
    if decision.allowed:
        raise NotRequestable("the policies now permit the request without an approval", hint="evaluate again")
    if not decision.asks or not isinstance(resolved, policy.ToolCall):
        raise NotRequestable(HOPELESS, hint=SEE_REASON)
    call, task = resolved
    assert call.ready is not None
    entry, ready = act.entry, call.ready
    entry.agent, entry.task, entry.tool = task.agent, task.task_id, ready.uid.id
    entry.owner = registry.find_agent(act.tx, task.agent).owner
    shown, secrets = approval.divide_arguments(call.arguments, ready.secrets, task=task.task_id)
    approval.check_arguments(shown)
    needs, reasons = asking_policies(ours, decision.policies)
    this_call = AskedCall(task, call.facts.resource.name, ready, shown, secrets)
    digest = entry.digest = this_call.digest(decision.policies, needs)
    origins = origins_by_argument(decision.call_context)
    about = describe(this_call, policy=ours.hash, reasons=reasons, origins=origins)
    return ask(act, kind=CALL.id, task=task, digest=digest, needs=needs, about=about, config=config)

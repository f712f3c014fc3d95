"""Approvals at the decision point. An approval ends with its agent and its task, and is spent by one call.

The package `approvals` creates approvals; the act that decides a call reads and spends them.
"""

from __future__ import annotations

from msgspec import structs

from ostiary.decision import approval
from ostiary.decision.access import Decision, Reason
from ostiary.decision.access.facts import ReadyTool
from ostiary.protocol.errors import Forbidden, NotFound, Refused
from ostiary.protocol.jose import b64u
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.policy import store
from ostiaryd.policy.flows.evaluator import Evaluator, ToolCall
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.policy.model import Posed
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Resource

KIND = "approval"
"""Kind under which approvals are stored as holdings."""
RENEWABLE = ("approval_mismatch", "approval_ended")
"""Reason codes for a refused approval after which the agent may request another approval immediately."""


def hold_approval(
    act: Act, id: str, *, agent: AgentId, task: str, digest: str, policies: list[str], until: int, keys: list[str]
) -> None:
    """Store that persons approved the call with this digest, until `until` (microseconds). `keys`: the keys with which
    the persons signed (at most two); a revocation of a key ends the approval. Raises Forbidden for an agent that is not
    active.
    """
    jkt, other = (*keys, None, None)[:2]
    holding = Holding(id=HoldingId(id), kind=KIND, agent=agent, task=task, jkt=jkt, client_jkt=other, expires_at=until)
    registry.add_holding(act, holding)
    store.insert_approved(act.tx, id, digest=digest, policies=policies)


def spend_approval(act: Act, id: str, *, digest: str, call: str) -> frozenset[str]:
    """Mark an approval as used for the call with the random number `call`, and return the names of the policies that
    asked for approval.

    Raises NotFound for an approval that does not exist or is not given yet, Forbidden for an approval of another
    request (`approval_mismatch`), a used approval (`approval_spent`), and an expired or revoked approval
    (`approval_ended`).
    """
    approved, holding = store.approved(act.tx, id), registry.get_holding(act.tx, id)
    if approved is None:
        raise NotFound(
            "approval not found, or not approved yet",
            hint="wait until a person has approved the request, or request an approval",
            code="unknown_approval",
        )
    if approved.digest != digest:
        raise Forbidden(
            "the approval is for another request", hint="request an approval of this call", code="approval_mismatch"
        )
    if holding is None or not holding.is_live(act.now):
        raise Forbidden("the approval has expired or was revoked", hint="request a new approval", code="approval_ended")
    if not store.spend_approved(act.tx, id, call=call):
        raise Forbidden(
            "the approval was used before",
            hint="request a new approval: an approval is for one call",
            code="approval_spent",
        )
    return approved.policies


def decide_approved(
    act: Act, evaluator: Evaluator, resolved: ToolCall, denied: Decision, id: str
) -> tuple[Decision, Posed | None]:
    """Use the approval `id` for a call that was denied only because an approval was missing, and decide the call again.
    Return the new decision, and the question that the policies answered. If the approval cannot be used, return a
    denial with the reason, and None. Both cases get a ledger entry of their own.
    """
    call = resolved.call
    assert call.ready is not None
    agent, task, ready = call.principal.claims.client_id, resolved.task.task_id, call.ready
    shown, secrets = approval.divide_arguments(call.arguments, ready.secrets, task=task)
    digest = approval.binding(
        agent=agent,
        task=task,
        resource=call.facts.resource.name,
        tool=call.tool,
        arguments=shown,
        secrets=secrets,
        presentation=ready.presentation,
        policies=denied.policies,
        needs=denied.asks or "",
    )
    entry = Entry(
        at=act.now, action="approval.spend", agent=agent, task=task, object=id[:64], digest=digest, tool=ready.uid.id
    )
    act.further_entries.append(entry)
    try:
        approved = spend_approval(act, id, digest=digest, call=b64u(act.tx.random(16)))
    except Refused as refusal:
        entry.outcome, entry.reasons = "refused", [reason(refusal.code, refusal.message)]
        why = (Reason(refusal.code, refusal.message, refusal.hint),)
        asks = denied.asks if refusal.code in RENEWABLE else None
        return structs.replace(denied, reasons=why, asks=asks, arguments=None), None
    decision, posed = evaluator.decide(resolved, approved=approved)
    return structs.replace(decision, approval=id), posed


def ready_tool(reader: Reader, resource: Resource, tool: str) -> ReadyTool:
    """Return a tool of the resource, prepared for decisions. Raises NotFound if the catalogue has no such tool."""
    if (ready := prepared_resource(reader, resource).tools.get(tool)) is None:
        raise NotFound(f"the catalogue of `{resource.name}` has no tool {tool[:128]!a}", code="unknown_tool")
    return ready

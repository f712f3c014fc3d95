"""Covers: a cover extends an approval to further calls of the task with the same effect and the same counterpart.

A cover ends with its task and with the key of an approver. A cover also ends when an approver may no longer answer, a
person denies a similar call, the active policies change, or its uses are exhausted. Only a declared task with a memory
has covers: without a memory, untrusted content that mentions a value is unknown.
"""

from __future__ import annotations

from collections.abc import Collection

from ostiary.authorization.catalogue import GRAVE
from ostiary.decision import approval
from ostiary.decision.access import Policies
from ostiary.protocol.errors import Invalid
from ostiary.provenance.extent import Extent, digest_outside, extent_of, is_mentioned
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.responsible import is_responsible
from ostiaryd.approvals.model import About, Answer, AskedCall, Question, Says
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, standing_id


def measure(
    act: Act,
    request: approval.ApprovalRequest,
    call: AskedCall,
    ours: Policies,
) -> tuple[Extent | None, bool]:
    """Return the extent of a call: the limits (counterpart, amounts) within which an approval of the call can cover
    similar calls; None if an approval can only be for this one call. The second value is true if untrusted content
    mentions a recipient or an object of the call, or if the task's memory has lost some of that content. Raises
    Malformed for arguments without a digest.
    """
    task, tool, arguments = call.task, call.ready.tool, call.arguments
    if task.memory is None or task.task_id == standing_id(task.agent) or not ours.covers.issuperset(request.policies):
        return None, False
    memory = tasks.read_memory(act.tx, task, act.tx.keys).memory
    extent = extent_of(
        tool,
        arguments,
        agent=task.agent,
        task=task.task_id,
        resource=call.resource,
        secrets=call.secrets,
        policies=request.policies,
        foreign=request.foreign,
        warnings=request.warnings,
        outside=digest_outside(memory),
    )
    return extent, extent is not None and is_mentioned(memory, tool, arguments)


def use_cover(act: Act, task: Task, extent: Extent, *, policy: str, is_mentioned: bool, config: Config) -> str | None:
    """Find a cover (an approval of similar calls) that includes a call with this `extent` and has uses left, use it
    once, and return the id of its approval; None if there is no such cover.

    `policy`: the hash of the active policy set. A cover is valid only while the set is active under which its approval
    was requested. `is_mentioned`: the second value of `measure`. If true, a cover is used only if it comes from a plan,
    or if the task has read no further untrusted content since the approval was requested.
    """
    for cover in store.find_covers(act.tx, task=task.task_id, counterpart=extent.counterpart):
        mentioned = is_mentioned and not cover.is_planned
        if extent.is_within(cover.extent, mentioned=mentioned) and _stands(act, cover.approval_id, policy, config):
            store.use_cover(act.tx, cover)
            return cover.approval_id
    return None


def _stands(act: Act, id: str, policy: str, config: Config) -> bool:
    """Return whether a cover is still valid: the approval was given under these policies, and each approver may still
    answer and still has the key that signed.
    """
    reader = act.tx
    question = store.get_question(reader, id)
    approvals = [one for one in store.answers(reader, id) if one.says is Says.APPROVE]
    return (
        question is not None
        and question.about.policy == policy
        and all(
            is_responsible(reader, question, one.person, everything=config.approvers_of_all, now=act.now)
            and not registry.is_revoked_key(reader, one.jkt)
            for one in approvals
        )
    )


def read_covers(about: About, covers: str | None) -> bool:
    """Return whether the person approves similar calls of the task too: `covers` is `task` for yes, `call` for no, and
    None for the default of the approval request (`About.covers_task`). Raises Invalid for `task` if the approval can
    only be for one call.
    """
    if covers == "task" and about.extent is None:
        raise Invalid(
            "`covers` is `task`, but an approval of this call is for one call only", hint="leave `covers` out"
        )
    return about.covers_task if covers is None else covers == "task"


def begin_covers(act: Act, question: Question, answers: list[Answer], strike: Collection[int]) -> bool:
    """Store the covers of an approval that has been given, by which similar calls need no approval of their own: one
    cover if all approvers extended the approval to similar calls, and for a plan one for each line whose number is not
    in `strike`. Return whether any cover was stored.
    """
    about = question.about
    extents = []
    if about.extent is not None and all(one.covers for one in answers):
        extents.append((0, about.extent, about.uses))
    for at, line in enumerate(about.lines, 1):
        if at not in strike:
            extents.append((at, line.extent, 1 if line.effect in GRAVE else about.uses))
    for number, extent, uses in extents:
        store.insert_cover(act.tx, question.approval_id, number, task=question.task, extent=extent, uses=uses)
    return bool(extents)

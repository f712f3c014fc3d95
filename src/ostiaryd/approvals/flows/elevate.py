"""Elevation: an agent requests eligible scopes for a limited time.

a policy permits                    the request is granted at once
a policy forbids                    the request is refused
a policy asks, or none decides      a person is asked, in the queue of all questions; a repeated request spends the
                                    approval
break-glass                         two persons are asked whatever a policy permits; it lasts an hour at most
"""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiary.decision.access import Needs
from ostiary.decision.access.reasons import asks_of, reasons_of
from ostiary.protocol import canonical
from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.ask import ask
from ostiaryd.approvals.model import ELEVATE, About, ApprovalState, Question, Why
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, check_text, parse_scopes
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import SECOND, Elevation, Task, standing_task

MAX_SCOPES = 16
MAX_MINUTES = 480
MAX_MINUTES_OF_GLASS = 60


class ElevationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request of an agent for an elevation: more scopes for some minutes. `break_glass`: emergency access, which
    two persons must approve.
    """

    scopes: list[str]
    reason: str
    minutes: int = 30
    break_glass: bool = False


def request(
    act: Act, requested: ElevationRequest, *, by: Caller, config: Config
) -> tuple[Task | None, Question | None]:
    """Request an elevation, which gives an agent additional scopes for a limited time. Return its task and None if it
    is granted, or None and the open approval request.

    1. The caller must be an agent that requests the elevation for itself. 2. An administrator must have made the agent
    eligible for the scopes. 3. If a policy forbids the elevation, it is refused. If the policies permit it, it begins
    at once; otherwise a person must approve, or two if a policy says so. Break-glass access always needs the approval
    of two persons. 4. An approval that was given is spent, and the elevation begins; without one, an approval request
    is created.

    Raises Invalid for a member that is not valid; Forbidden (`no_agent`, `not_eligible`, `access_denied`, and as `ask`
    does); Conflict if the agent has too many elevations; RemotePoliciesNeeded if verdicts of Rego or OPA policies must
    be obtained first.
    """
    if by.kind != "agent":
        raise Forbidden("only an agent can request an elevation", hint="send a token of the agent", code="no_agent")
    agent = registry.active_agent(act.tx, by.id, now=act.now)
    scopes = _check(act, requested, agent)
    standing = standing_task(agent)
    verdict, ours = policy.judge_elevation(
        act, agent, task=standing.task_id, scopes=scopes, minutes=requested.minutes, break_glass=requested.break_glass
    )
    if verdict.allowed and not requested.break_glass:
        return _grant(act, agent, requested, scopes, None), None
    if verdict.because not in ("", "approval_needed", "no_permit"):
        first = reasons_of(verdict, ours)[0]
        raise Forbidden(first.message, hint=first.hint, code="access_denied")
    if not verdict.allowed:
        act.entry.remove_facts()  # what-if cannot compare the answers of persons
    asking = verdict.policies if verdict.because == "approval_needed" else ()
    needs: Needs = "two" if requested.break_glass else asks_of(verdict, ours) or "person"
    digest = act.entry.digest = canonical.digest(
        {
            ELEVATE: msgspec.to_builtins(requested) | {"scopes": sorted(scopes)},
            "agent": agent.agent_id,
            "policies": sorted(asking),
            "needs": needs,
        }
    )
    if (latest := store.find_latest(act.tx, digest)) is not None and (task := _granted(act, latest)) is not None:
        return task, None
    about = About(
        resource=ELEVATE,
        tool=" ".join(sorted(scopes)),
        policy=ours.hash,
        arguments={
            "scopes": sorted(scopes),
            "minutes": requested.minutes,
            "reason": requested.reason,
            "break_glass": requested.break_glass,
        },
        reasons=[Why(name, ours.reasons.get(name, ""), ours.approvers.get(name, ())) for name in sorted(asking)],
    )
    question = ask(act, kind=ELEVATE, task=standing, digest=digest, needs=needs, about=about, config=config)
    if question.state_at(act.now) is not ApprovalState.APPROVED:
        return None, question
    return _grant(act, agent, requested, scopes, question), None


def _check(act: Act, requested: ElevationRequest, agent: Agent) -> frozenset[str]:
    """Check a request for an elevation, and return its scopes. Raises Invalid for a request beyond a limit, Forbidden
    for scopes to which the agent may not be elevated.
    """
    scopes, most = parse_scopes(requested.scopes), MAX_MINUTES_OF_GLASS if requested.break_glass else MAX_MINUTES
    registry.fill_entry(
        act,
        object=agent.agent_id,
        owner=agent.owner,
        scopes=sorted(scopes)[:MAX_SCOPES],
        minutes=requested.minutes,
        reason=requested.reason[:500],
        break_glass=requested.break_glass,
    )
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise Invalid(f"an elevation must have 1 to {MAX_SCOPES} scopes")
    if not 1 <= requested.minutes <= most:
        raise Invalid(f"an elevation must last 1 to {most} minutes")
    check_text(requested.reason, of="reason")
    if extra := scopes - tasks.get_eligible_scopes(act.tx, agent.agent_id):
        raise Forbidden(
            f"`{agent.name}` is not eligible for {' '.join(sorted(extra))}",
            hint=f"make the agent eligible: ostiary elevation allow {agent.name} SCOPE",
            code="not_eligible",
        )
    return scopes


def _granted(act: Act, question: Question) -> Task | None:
    """Return the live elevation for which the approval was already spent, for an agent that did not receive the first
    response; None if there is none.
    """
    if question.spent_for is None or (task := tasks.get_task(act.tx, question.spent_for)) is None:
        return None
    if not task.is_live(act.now):
        return None
    act.entry.action = "approval.again"  # no new approval request, so that no second alert is sent
    act.entry.task = task.task_id
    registry.fill_entry(act, object=question.approval_id, again=True)
    return tasks.live(act.tx, task.task_id, now=act.now)


def _grant(
    act: Act, agent: Agent, requested: ElevationRequest, scopes: frozenset[str], question: Question | None
) -> Task:
    """Begin and return the task of the elevation. If `question` (the approval request) is given, spend its approval,
    which may be for fewer minutes.
    """
    approval = None if question is None else question.approval_id
    minutes = requested.minutes if question is None else question.about.arguments["minutes"]
    task = tasks.elevate(
        act,
        agent,
        scopes=scopes,
        minutes=minutes,
        reason=requested.reason,
        break_glass=requested.break_glass,
        approval=approval,
    )
    act.entry.action = "elevation.break_glass" if requested.break_glass else "elevation.grant"
    if question is not None:
        policy.spend_approval(act, question.approval_id, digest=question.digest, call=task.task_id)
        registry.fill_entry(act, object=task.task_id, approval=approval, people=_people(act.tx, question.approval_id))
    registry.fill_entry(act, object=task.task_id, until=task.expires_at)
    act.entry.task = task.task_id
    return task


def _people(reader: Reader, approval: str) -> list[str]:
    return [one.person for one in store.answers(reader, approval) if one.says == "approve"]


class ElevationBody(TypedDict):
    """An elevation, in the JSON form of the API. Times are in seconds since the epoch."""

    task_id: str
    agent: str
    scopes: list[str]
    reason: str
    break_glass: bool
    state: str
    approval: str | None
    people: list[str]
    granted_at: int
    expires_at: int | None


def show_elevation(reader: Reader, elevation: Elevation, *, now: int) -> ElevationBody:
    """Return an elevation in the JSON form of the API."""
    task = tasks.find_task(reader, elevation.task)
    people = [] if elevation.approval is None else _people(reader, elevation.approval)
    return {
        "task_id": task.task_id,
        "agent": registry.find_agent(reader, task.agent).name,
        "scopes": sorted(task.elevated),
        "reason": task.purpose,
        "break_glass": elevation.is_break_glass,
        "state": task.state_at(now),
        "approval": elevation.approval,
        "people": [owner.name if (owner := registry.get_owner(reader, id)) is not None else id for id in people],
        "granted_at": elevation.granted_at // SECOND,
        "expires_at": None if task.expires_at is None else task.expires_at // SECOND,
    }


def broken_glass(reader: Reader, *, now: int) -> list[str]:
    """Return a sentence for each emergency (break-glass) elevation that is in use at `now` (microseconds), at most
    five.
    """
    emergencies = [
        show_elevation(reader, one, now=now) for one in tasks.list_emergency_elevations(reader, now=now, limit=5)
    ]
    return [
        f"`{one['agent']}` has emergency access for {' '.join(one['scopes'])} (by {' and '.join(one['people'])}), "
        f"for {max(0, (one['expires_at'] or 0) - now // SECOND)} s more: {one['reason'][:100]!a}"
        for one in emergencies
    ]

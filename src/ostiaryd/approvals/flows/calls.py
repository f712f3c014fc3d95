"""Approval requests about calls at guards: create the approval request, or spend its approval, in one act."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from ostiary.authorization.catalogue import Kind
from ostiary.decision import approval
from ostiary.decision.access import CALL, Needs, Policies
from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.access.reasons import needs_of
from ostiary.protocol.errors import Conflict, Forbidden, NotFound
from ostiary.provenance.extent import Extent, times_may_vary
from ostiaryd.approvals import store
from ostiaryd.approvals.flows.ask import ask, check_not_again
from ostiaryd.approvals.flows.cover import measure, use_cover
from ostiaryd.approvals.model import About, ApprovalLink, ApprovalState, AskedCall, Question, Why, choose_stated
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task


def ask_about_call(
    act: Act, request: approval.ApprovalRequest, *, resource_id: str, config: Config
) -> tuple[str, bool]:
    """Handle a guard's request for the approval of a call. Return the id of the approval request, and true if the call
    may now pass once: its approval was given before and is spent by this function.

    1. The token must be live and for this resource, its task live, the tool known, and the asking policies in the
    server's active policy set. 2. Arguments that the catalogue declares secret are hidden from persons. 3. If there is
    an unused approval of exactly this call, or of similar calls (a cover), it is used once; otherwise an approval
    request is created. A guard that repeats its request with the same random number `request.call` gets the same
    result, until the approval expires.

    Raises Forbidden if no approval is possible (also `approval_mismatch`, and as `ask` does), NotFound for an unknown
    tool or approval, Conflict if another policy set has become active, Malformed for secret arguments without a digest.
    """
    resource = registry.find_resource(act.tx, resource_id)
    entry = act.entry
    entry.resource, entry.token, entry.policy = resource.uri, request.token, request.policy
    entry.tool, entry.policies = f"{resource.name}/{request.tool}"[:256], list(request.policies)
    task = task_of_token(act.tx, request.token, resource, now=act.now)
    entry.agent, entry.task, entry.owner = task.agent, task.task_id, registry.find_agent(act.tx, task.agent).owner
    ready = policy.ready_tool(act.tx, resource, request.tool)
    ours = policy.active_policies(act.tx)
    if ours.hash != request.policy:
        raise Conflict("another policy set has become active", hint="try again", code="other_policies")
    needs, reasons = asking_policies(ours, request.policies)
    call = AskedCall(task, resource.name, ready, *_parted(request, ready, task))
    digest = entry.digest = call.digest(request.policies, needs)
    if (spent := store.find_spent(act.tx, digest, call=request.call, now=act.now)) is not None:
        entry.action = "approval.spend"
        registry.fill_entry(act, object=spent.approval_id, again=True)
        return spent.approval_id, True
    if request.approval:
        _check_meant(act, request.approval, digest)
    latest = store.find_latest(act.tx, digest)
    extent, is_mentioned = measure(act, request, call, ours)
    cover = _covered(act, task, extent, latest, policy=ours.hash, is_mentioned=is_mentioned, config=config)
    if cover is not None:
        entry.action = "approval.spend"
        registry.fill_entry(act, object=cover, covers="task")
        return cover, True
    about = describe(
        call,
        policy=request.policy,
        reasons=reasons,
        origins=request.origins,
        foreign=request.foreign,
        warnings=request.warnings,
        extent=extent,
    )
    question = ask(act, kind=CALL.id, task=task, digest=digest, needs=needs, about=about, config=config)
    if question.state_at(act.now) is not ApprovalState.APPROVED:
        return question.approval_id, False
    entry.action = "approval.spend"
    registry.fill_entry(act, object=question.approval_id, digest=digest)
    policy.spend_approval(act, question.approval_id, digest=digest, call=request.call)
    return question.approval_id, True


def _covered(
    act: Act,
    task: Task,
    extent: Extent | None,
    latest: Question | None,
    *,
    policy: str,
    is_mentioned: bool,
    config: Config,
) -> str | None:
    """Return the id of an approval that covers similar calls, this call among them; None if there is none. `latest` is
    the last approval request about exactly this call.

    Raises Forbidden as `check_not_again` does.
    """
    if extent is None:
        return None
    if latest is not None:
        check_not_again(act, latest)
        if latest.state_at(act.now) is ApprovalState.APPROVED:
            return None
    id = use_cover(act, task, extent, policy=policy, is_mentioned=is_mentioned, config=config)
    if id is not None and latest is not None and latest.state_at(act.now) is ApprovalState.OPEN:
        store.settle(act.tx, latest.approval_id, ApprovalState.CANCELLED)
    return id


def task_of_token(reader: Reader, token: str, resource: Resource, *, now: int) -> Task:
    """Return the live task of a live token for this resource, with the token's holder as its agent and with its
    delegation chain. `token` is the id of the token. Raises Forbidden if the token is for another resource, or if the
    token or its task is unknown or has ended.

    If the token came by token exchange, the chain includes the agents that held the tokens before the exchange.
    """
    holding, task_id = registry.find_token(reader, token, resource, now=now)
    task, parent = tasks.live(reader, task_id, now=now), holding.parent
    givers = []
    while parent is not None and (behind := registry.get_holding(reader, parent)) is not None:
        givers.append(behind.agent)
        parent = behind.parent
    line = [one for one in dict.fromkeys((*givers, task.agent)) if one != holding.agent]
    links = (tasks.link_of(registry.find_agent(reader, one), task.task_id) for one in line)
    return replace(task, agent=holding.agent, chain=(*links, *task.chain))


def asking_policies(ours: Policies, policy_names: Iterable[str]) -> tuple[Needs, list[Why]]:
    """Return two values for the named policies of the active set `ours`: whether one person or `two` must approve, and
    for each policy its reason and approvers. Raises Forbidden for a policy that does not ask for approval.
    """
    names = sorted(set(policy_names))
    if unknown := [name for name in names if name not in ours.asks]:
        raise Forbidden(
            f"the policy {unknown[0][:64]!a} of the active set does not ask for approval",
            hint="the guard has an earlier policy set; decide the call again when the feed has brought the active set",
            code="foreign_question",
        )
    return needs_of(names, ours), [
        Why(name, ours.reasons.get(name, ""), ours.approvers.get(name, ())) for name in names
    ]


def describe(
    call: AskedCall,
    *,
    policy: str,
    reasons: list[Why],
    origins: Mapping[str, str] = MappingProxyType({}),
    foreign: Mapping[str, list[str]] = MappingProxyType({}),
    warnings: Iterable[str] = (),
    extent: Extent | None = None,
) -> About:
    """Return the content of an approval request about a call, for the person who answers. `origins`: the origin of each
    argument's value; `foreign`: per argument, links and addresses that come neither from the person nor from a record;
    `extent`: the similar calls to which the approval may extend. Arguments that leave the system as text are listed in
    `outgoing`.
    """
    tool, arguments = call.ready.tool, call.arguments
    is_dangerous, must_state = choose_stated(tool, arguments, origins)
    texts = {path.partition(".")[0] for path, kind in tool.argument_kinds.items() if kind is Kind.TEXT}
    return About(
        resource=call.resource,
        tool=tool.name,
        arguments=arguments,
        hidden=sorted(call.secrets),
        outgoing=sorted(texts & arguments.keys()),
        origins=dict(origins),
        foreign=dict(foreign),
        policy=policy,
        reasons=reasons,
        warnings=list(warnings),
        effect=tool.effect.value,
        is_dangerous=is_dangerous,
        must_state=must_state,
        extent=extent,
        counterpart=call.counterpart,
        varies_times=times_may_vary(tool),
        chain=[ApprovalLink(link.agent, link.task) for link in call.task.chain],
        person=call.task.person,
    )


def _parted(request: approval.ApprovalRequest, ready: ReadyTool, task: Task) -> tuple[dict[str, Any], dict[str, str]]:
    """Return two parts of the arguments, as the server's catalogue classifies them: values that may be shown, and
    digests of the others. Raises Forbidden for an argument in both parts, Malformed for secret arguments without a
    digest.
    """
    if both := request.arguments.keys() & request.secrets.keys():
        raise Forbidden(
            f"the argument {min(both)[:64]!a} is both in `arguments` and in `secrets`",
            hint="send a secret argument only in `secrets`, as a digest",
            code="foreign_question",
        )
    shown, more = approval.divide_arguments(request.arguments, ready.secrets, task=task.task_id)
    return shown, dict(request.secrets) | more


def _check_meant(act: Act, id: str, digest: str) -> None:
    """Check that the approval that the agent named is for this call, and that the call may be asked about. Raises
    NotFound for an unknown approval, Forbidden otherwise.
    """
    question = find_question(act, id)
    if question.digest != digest:
        raise Forbidden(
            "the approval is for another call", hint="request an approval of this call", code="approval_mismatch"
        )
    check_not_again(act, question)


def find_question(act: Act, id: str) -> Question:
    """Return an approval request by id. Raises NotFound if there is none."""
    if (question := store.get_question(act.tx, id)) is None:
        raise NotFound(
            "approval not found", hint="list all approvals: ostiary approvals list --all", code="unknown_approval"
        )
    return question

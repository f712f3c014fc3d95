"""Approval requests as JSON under /api/v1. Times are in seconds since the epoch.

Persons, and callers that may read everything, see all approval requests. An agent sees the state of its own.
Only persons can answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.approvals import flows, store
from ostiaryd.approvals.flows.propose import Proposal
from ostiaryd.approvals.flows.show import ApprovalBody, ApprovalDetail, WaitingBody
from ostiaryd.approvals.model import MAX_OPEN_OF_AGENT, MAX_STATED, MAX_USES, Narrowing, Says
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, Wire, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import PAGE, Either, PageBody, Query, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, READ, SELF


class ApprovalAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """An answer to an approval request. A denial uses only the `reason`."""

    reason: str
    covers: Literal["call", "task"] | None = None
    """Extent of an approval: this call, or similar calls of the task. By default, as the approval request proposes."""
    strike: list[int] = []
    """Numbers of lines of a plan that are not approved, from 1."""
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] | None = None
    """Maximum number of further calls, and of calls for each line of a plan. By default, as the approval request
    states.
    """
    at_most: dict[str, Annotated[str, Meta(pattern=r"\A(0|[1-9][0-9]{0,23})(\.[0-9]{1,12})?\Z")]] = {}
    """Lower limits, by the names in `at_most` of the approval request."""
    value: Annotated[str, Meta(max_length=MAX_STATED)] | None = None
    """Value of the argument `must_state`, which an approval must state if the approval request has this member."""


class ApprovalAnswers(msgspec.Struct, forbid_unknown_fields=True):
    """Answers to several approval requests with one reason: the ids of the requests to approve, and of those to deny.
    `covers` applies to each approval, as in an answer to one request.
    """

    reason: str
    approve: list[str] = []
    deny: list[str] = []
    covers: Literal["call", "task"] | None = None


class RefusedAnswer(TypedDict):
    """An answer that the server refused, of several answers in one request: the code and the message of the error."""

    approval_id: str
    error: str
    message: str


class AnswersBody(TypedDict):
    """The result of each answer, the denials before the approvals, each in the order of the request: the approval
    request in its new state, or the refusal of the answer.
    """

    answers: list[dict[str, Any]]


class PlanQuestion(TypedDict):
    """The approval request for a plan (several probable calls of a task together); null if there are fewer than two
    such calls.
    """

    question: ApprovalBody | None


class ProposalsBody(TypedDict):
    """The proposals of policies for an agent."""

    proposals: list[Proposal]


async def list_approvals(call: Call) -> Reply:
    """List approval requests, the newest first. Agents see only their own."""
    state, now, by = call.query_one("state") or "all", call.world.now(), call.caller
    if state not in ("open", "all"):
        raise Invalid("`state` must be `open` or `all`")
    agent = "" if flows.may_see_all(by) else by.id

    return await reply_page(
        call,
        "approvals",
        lambda reader, page: store.page(reader, agent=agent, is_open=state == "open", now=now, page=page),
        lambda reader, question: flows.show_briefly(reader, question, now=now),
        cursor=lambda question: question.approval_id,
        headers=[NO_STORE],
    )


async def show_approval(call: Call) -> Reply:
    """Show an approval request.

    Persons with the scope to answer, and callers that may read everything, see the whole request. The agents in its
    delegation chain see only the state.
    """
    now, by = call.world.now(), call.caller

    def read(reader: Reader) -> ApprovalBody | ApprovalDetail:
        question = flows.find_visible(reader, call.params["id"], by=by)
        return (flows.show if flows.may_see_all(by) else flows.show_briefly)(reader, question, now=now)

    return reply(await call.world.db.scan(read), headers=[NO_STORE])


def answer(says: Says) -> Wire:
    """Return the wire function (HTTP handler) that answers an approval request with `says`: approve or deny."""

    async def wire(call: Call) -> Reply:
        id, body, world = call.params["id"], call.json(ApprovalAnswer), call.world

        def run(act: Act) -> ApprovalBody:
            question = flows.answer(
                act,
                id,
                says,
                reason=body.reason,
                by=call.caller,
                config=world.config,
                covers=body.covers,
                narrowing=Narrowing(strike=frozenset(body.strike), uses=body.uses, at_most=body.at_most),
                value=body.value,
            )
            return flows.show_briefly(act.tx, question, now=act.now)

        return reply(await registry.act_as(call, f"approval.{says}", run), headers=[NO_STORE])

    wire.__doc__ = f"{says.capitalize()} an approval request, with a reason."
    return wire


async def answer_all(call: Call) -> Reply:
    """Approve and deny several approval requests.

    Each answer is a transaction of its own: a refused answer does not affect the others. If `approve` names more than
    one request, the approval of a dangerous call among them is refused (`approve_alone`).
    """
    body, world = call.json(ApprovalAnswers), call.world
    ids = [*body.approve, *body.deny]
    if not 1 <= len(ids) <= MAX_OPEN_OF_AGENT or len(set(ids)) < len(ids):
        raise Invalid(f"`approve` and `deny` together must name 1 to {MAX_OPEN_OF_AGENT} different approval requests")

    def run(id: str, says: Says) -> Callable[[Act], ApprovalBody]:
        covers = body.covers if says is Says.APPROVE else None
        return lambda act: flows.show_briefly(
            act.tx,
            flows.answer(
                act,
                id,
                says,
                reason=body.reason,
                by=call.caller,
                config=world.config,
                covers=covers,
                is_listed=len(body.approve) > 1,
            ),
            now=act.now,
        )

    answers = list[ApprovalBody | RefusedAnswer]()
    for says, some in ((Says.DENY, body.deny), (Says.APPROVE, body.approve)):
        for id in some:
            try:
                answers.append(await registry.act_as(call, f"approval.{says}", run(id, says)))
            except (Invalid, Forbidden, Conflict, NotFound) as refusal:
                answers.append({"approval_id": id, "error": refusal.code, "message": refusal.message})
    return reply({"answers": answers}, headers=[NO_STORE])


async def show_waiting(call: Call) -> Reply:
    """List the open approval requests of a task, each in full, with one text for all of them."""
    task, now = call.params["id"], call.world.now()
    if not flows.may_see_all(call.caller):
        raise Forbidden(
            "only persons who can answer, and callers with `ostiary:read`, may list the approval requests of a task",
            hint="use the key of a person: ostiary person add-key NAME --generate-key FILE",
        )
    waiting = await call.world.db.scan(lambda reader: flows.show_waiting(reader, task, now=now))
    return reply(waiting, headers=[NO_STORE])


async def ask_plan(call: Call) -> Reply:
    """Request one approval for the probable calls of a task.

    The request names calls that the task will probably make, and that would otherwise need an approval each. The status
    is 202 with the approval request, or 200 without one if there are fewer than two such calls.
    """
    world = call.world

    def run(act: Act) -> ApprovalBody | None:
        question = flows.ask_plan(act, call.params["id"], by=call.caller, config=world.config)
        return None if question is None else flows.show_briefly(act.tx, question, now=act.now)

    opened = await registry.act_as(call, "approval.ask", run)
    return reply({"question": opened}, status=200 if opened is None else 202, headers=[NO_STORE])


async def propose(call: Call) -> Reply:
    """List policies that would permit calls of an agent which people have always approved, each with its approvals."""
    now, world = call.world.now(), call.world
    name = call.params["name"]
    proposals = await world.db.scan(lambda reader: flows.propose(reader, name, now=now, config=world.config))
    return reply({"proposals": proposals}, headers=[NO_STORE])


ROUTES = (
    Route(
        "GET",
        "/api/v1/approvals",
        list_approvals,
        SELF,
        allows_people=True,
        answers={200: PageBody("approvals", ApprovalBody)},
        query=(Query("state", "`open` for requests that wait; `all` by default.", Literal["open", "all"]), *PAGE),
    ),
    Route(
        "GET",
        "/api/v1/approvals/{id}",
        show_approval,
        SELF,
        allows_people=True,
        answers={200: Either(ApprovalDetail, ApprovalBody)},
    ),
    Route(
        "POST",
        "/api/v1/approvals/{id}/approve",
        answer(Says.APPROVE),
        APPROVE,
        body=ApprovalAnswer,
        answers={200: ApprovalBody},
    ),
    Route(
        "POST",
        "/api/v1/approvals/{id}/deny",
        answer(Says.DENY),
        APPROVE,
        body=ApprovalAnswer,
        stops=True,
        answers={200: ApprovalBody},
    ),
    Route("POST", "/api/v1/approvals/answers", answer_all, APPROVE, body=ApprovalAnswers, answers={200: AnswersBody}),
    Route("GET", "/api/v1/tasks/{id}/approvals", show_waiting, SELF, allows_people=True, answers={200: WaitingBody}),
    Route("POST", "/api/v1/tasks/{id}/plan-question", ask_plan, SELF, answers={200: PlanQuestion, 202: PlanQuestion}),
    Route("GET", "/api/v1/agents/{name}/proposals", propose, READ, answers={200: ProposalsBody}),
)

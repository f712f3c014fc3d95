"""AuthZEN Access Request and Approval Profile (draft 1): the Access Request Endpoint, task status, cancellation.

The `binding_token` connects a request to its denial; the server then evaluates again whether a person may be asked. A
repeated request about the same call gets the same task, and so does each request with the same `Idempotency-Key`. Not
implemented of the draft: requests for several items, callbacks, forms. The client evaluates an approved request again
with `context.approval`, which spends the approval.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed, NotFound, Refused
from ostiary.protocol.jose import JwkSet
from ostiaryd.approvals import flows, store
from ostiaryd.approvals.model import ApprovalState, Question
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply, status_of
from ostiaryd.ground.http.routes import Route, RouteProtocol
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.external_pdp import ask_ahead
from ostiaryd.policy.model import BadBinding, EvaluationRequest, ExpiredDenial, Thing, Verb, open_denial, rfc3339
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import DECIDE

REQUESTS = "/access/v1/requests"
POLL_S = 5
SECOND = 1_000_000
MAX_KEY = 255
"""Maximum length of an `Idempotency-Key`, in characters."""
STATUS = {
    ApprovalState.OPEN: "pending",
    ApprovalState.APPROVED: "approved",
    ApprovalState.SPENT: "approved",
    ApprovalState.DENIED: "denied",
    ApprovalState.EXPIRED: "expired",
    ApprovalState.LAPSED: "expired",
    ApprovalState.CANCELLED: "cancelled",
}
"""Status of the draft for each state of an approval request (section "Status Mapping Obligation")."""
PROBLEM = "urn:openid:authzen:access-request:error:"
PROBLEMS: dict[type[Refused], tuple[str, int]] = {
    flows.NotRequestable: ("not_requestable", 400),
    BadBinding: ("invalid_denial_binding", 400),
    ExpiredDenial: ("expired_denial", 410),
    NotFound: ("unknown_task", 404),
    flows.Duplicate: ("duplicate_request", 409),
    Conflict: ("invalid_task_state", 409),
}
"""Problem type and HTTP status of each refusal (section "Error Responses"). Any other refusal has the type
`about:blank`.
"""


class Problem(TypedDict):
    """The response body of a refused access request: problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Denied(msgspec.Struct, frozen=True):
    """The denial for which a person is asked, with the members that the decision of the evaluation contained."""

    expires_at: str
    binding_token: str | None = None


class Submission(msgspec.Struct, frozen=True):
    """A submitted access request (AuthZEN Access Request and Approval Profile, section "Access Request Submission").
    Unknown members are ignored.
    """

    subject: Thing
    resource: Thing
    action: Verb
    denial: Denied | None = None
    context: dict[str, Any] | None = None


class RequestTask(TypedDict):
    """The approval request that an access request created, in the form of the profile; `expires_at`: the end of the
    time for an answer.
    """

    id: str
    status: Literal["pending", "approved", "denied", "expired", "cancelled"]
    status_endpoint: str
    expires_at: str
    links: NotRequired[dict[str, str]]


class RequestBody(TypedDict):
    """The state of an access request. If the request is approved, `result` states how to evaluate it again with the
    approval.
    """

    task: RequestTask
    result: NotRequired[dict[str, Any]]


async def submit(call: Call) -> Reply:
    """Submit an access request for a denied evaluation.

    The status is 201 if an approval of the same request is there already and is not used yet, and otherwise 202; the
    member `task.status` then says whether a person must still answer (`pending`).
    """
    sent = call.json(Submission)
    question = EvaluationRequest(sent.subject, sent.action, sent.resource, sent.context)
    world = call.world
    if sent.denial is None or sent.denial.binding_token is None:
        raise BadBinding("`denial.binding_token` is missing", hint="send the `binding_token` of the denial")
    keys = JwkSet(tuple(world.keys.public("token").values()))
    denied = open_denial(
        sent.denial.binding_token, keys=keys, issuer=world.config.issuer, question=question, now=world.now()
    )
    if sent.denial.expires_at != denied.denial_expires_at:
        raise BadBinding(
            "`denial.expires_at` is not the time in the `binding_token`", hint="send the `expires_at` of the denial"
        )
    key = _idempotency_key(call)
    remote = await ask_ahead(call, lambda evaluator: evaluator.evaluate(question))

    def run(act: Act) -> Question:
        act.entry.detail = {"evaluation_id": denied.evaluation_id}
        if key is None:
            return flows.ask_about_question(act, question, remote=remote, config=world.config)
        body = canonical.digest(msgspec.json.decode(call.body), floats=True)
        made = flows.find_submitted(act, key, body=body)
        if made is None:
            made = flows.ask_about_question(act, question, remote=remote, config=world.config)
            store.insert_submitted(act.tx, key, body=body, id=made.approval_id)
        return made

    made = await registry.act_as(call, "approval.ask", run)
    answer = _task(call, made)
    answer.status = 201 if made.state_at(world.now()) is ApprovalState.APPROVED else 202
    answer.headers.append((b"location", _endpoint(call, made).encode()))
    return answer


async def status(call: Call) -> Reply:
    """Show the state of an access request."""
    question = store.get_question(call.world.db.read(), call.params["id"])
    if question is None:
        raise NotFound(
            "access request not found", hint="use the `task.status_endpoint` in the response to the submitted request"
        )
    return _task(call, question)


async def cancel(call: Call) -> Reply:
    """Cancel an access request."""
    await registry.act_as(call, "approval.cancel", lambda act: flows.cancel(act, call.params["id"]))
    return await status(call)


def render(refusal: Refused) -> Reply:
    """Return the response for a refusal, as problem details (RFC 9457)."""
    kind = next((PROBLEMS[kind] for kind in type(refusal).__mro__ if kind in PROBLEMS), None)
    name, code = kind or ("", status_of(refusal))
    body = {
        "type": PROBLEM + name if name else "about:blank",
        "title": refusal.code,
        "status": code,
        "detail": refusal.message + (f" ({refusal.hint})" if refusal.hint else ""),
    }
    answer = reply(body, status=code, headers=[NO_STORE])
    answer.media_type = "application/problem+json"
    return answer


def _idempotency_key(call: Call) -> str | None:
    """Return the digest under which the idempotency key of this caller is stored; None without a key. The digest
    includes the caller, so keys of different callers never collide. Raises Malformed for a key that is empty or too
    long.
    """
    key = call.header(b"idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY:
        raise Malformed(f"an `Idempotency-Key` must have 1 to {MAX_KEY} characters")
    assert call.caller is not None
    return canonical.digest([call.caller.id, key])


def _task(call: Call, question: Question) -> Reply:
    now, endpoint = call.world.now(), _endpoint(call, question)
    state = question.state_at(now)
    task: dict[str, Any] = {
        "id": question.approval_id,
        "status": STATUS[state],
        "status_endpoint": endpoint,
        "expires_at": rfc3339(question.ends_at // SECOND),
    }
    if state is ApprovalState.OPEN:
        task["links"] = {"cancel": f"{endpoint}/cancel"}
        return reply({"task": task}, headers=[NO_STORE, (b"retry-after", str(POLL_S).encode())])
    body: dict[str, Any] = {"task": task}
    if STATUS[state] == "approved" and question.until is not None and question.answered_at is not None:
        body["result"] = {
            "mode": "reevaluate",
            "approval": {
                "id": question.approval_id,
                "approved_at": rfc3339(question.answered_at // SECOND),
                "approved_until": rfc3339(question.until // SECOND),
            },
        }
    return reply(body, headers=[NO_STORE])


def _endpoint(call: Call, question: Question) -> str:
    return f"{call.world.config.public_url}{REQUESTS}/{question.approval_id}"


ACCESS_REQUESTS = RouteProtocol("Access requests", render, Problem)

ROUTES = (
    Route(
        "POST",
        REQUESTS,
        submit,
        DECIDE,
        errors=(
            BadBinding("`denial.binding_token` is missing"),
            ExpiredDenial("the denial has expired"),
            flows.NotRequestable("no person can approve the request"),
            flows.Duplicate("the `Idempotency-Key` was used for a request with another body"),
        ),
        body=Submission,
        grants=True,
        is_large=True,
        protocol=ACCESS_REQUESTS,
        answers={201: RequestBody, 202: RequestBody},
    ),
    Route("GET", REQUESTS + "/{id}", status, DECIDE, protocol=ACCESS_REQUESTS, answers={200: RequestBody}),
    Route(
        "POST",
        REQUESTS + "/{id}/cancel",
        cancel,
        DECIDE,
        stops=True,
        protocol=ACCESS_REQUESTS,
        answers={200: RequestBody},
    ),
)

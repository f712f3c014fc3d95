"""OpenID AuthZEN Authorization API 1.0: Access Evaluation (section 6), Access Evaluations (7), PDP metadata (9).

A denial is a normal response: 200 with `decision: false`. Stricter than the standard: a request with a repeated member
is refused (it is not I-JSON), and a batch has at most 1000 evaluations. `context` of a response has the `policies` that
decided, the hash `policy` of their set, and `reasons` (code, message, hint); `reason_admin` and `reason_user` are the
reasons in a sentence, the second without facts that are not for users. Search (section 8) is in `wire_search`.

A denial that an approval would turn has `access_request` (Access Request and Approval Profile, draft 1; its endpoint is
in the package `approvals`). A denial that a stronger token would turn has an obligation `step-up` (Obligations Profile,
draft 1).
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Any, TypedDict, TypeVar

import msgspec
from msgspec import structs

from ostiary.decision.access import Decision, Reason
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.protocol.jose import b64u
from ostiaryd.ground.http.edge import Call, Reply, reply, status_of
from ostiaryd.ground.http.routes import Either, Route, RouteProtocol
from ostiaryd.ground.http.well_known import check_suffix, with_suffix
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy import flows
from ostiaryd.policy.flows.decide import Semantic
from ostiaryd.policy.flows.external_pdp import ask_ahead, check_numbers, note_latest
from ostiaryd.policy.model import EvaluationRequest, Thing, Verb, denial, rfc3339, seal_denial
from ostiaryd.registry.model import DECIDE

T = TypeVar("T")
MAX_EVALUATIONS = 1000
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
REQUESTS = "/access/v1/requests"
SUBJECT, RESOURCE, ACTION = "/access/v1/search/subject", "/access/v1/search/resource", "/access/v1/search/action"


class EvaluationItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An evaluation of a batch. For a member that is absent, the member of the batch applies."""

    subject: Thing | None = None
    action: Verb | None = None
    resource: Thing | None = None
    context: dict[str, Any] | None = None


class BatchOptions(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    evaluations_semantic: Semantic = "execute_all"


class Batch(EvaluationItem, frozen=True, omit_defaults=True, gc=False):
    evaluations: list[EvaluationItem | None] | None = None
    """the evaluations of the batch; None stands for an item that is not well-formed"""
    options: BatchOptions | None = None


class ResponseContext(msgspec.Struct, omit_defaults=True, gc=False):
    policy: str = ""
    policies: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    reason_admin: dict[str, str] | None = None
    reason_user: dict[str, str] | None = None
    reason: str = ""
    next_action: str = ""
    evaluation_id: str = ""
    evaluated_at: str = ""
    access_request: dict[str, str] | None = None
    approval: dict[str, str] | None = None
    obligations: list[dict[str, Any]] | None = None
    error: dict[str, Any] | None = None


class EvaluationResponse(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    decision: bool
    context: ResponseContext | None = None


class BatchResponse(TypedDict):
    """The responses to the evaluations of a batch, in the order of the request."""

    evaluations: list[EvaluationResponse]


async def evaluation(call: Call) -> Reply:
    """Evaluate one access request (AuthZEN section 6).

    A denial is a normal response with `decision` false.
    """
    question = read(call, EvaluationRequest)
    return reply(_answer(call, question, await _decide(call, question)))


async def evaluations(call: Call) -> Reply:
    """Evaluate several access requests (AuthZEN section 7).

    A request without `evaluations` is a single evaluation, with the response of a single evaluation.
    """
    batch = read_batch(call)
    items = batch.evaluations
    if not items:
        question = _question(batch, batch)
        if question is None:
            raise Malformed("`subject`, `action` and `resource` are required")
        return reply(_answer(call, question, await _decide(call, question)))
    if len(items) > MAX_EVALUATIONS:
        raise Invalid(f"the request has {len(items)} evaluations; at most {MAX_EVALUATIONS} are allowed")
    questions = [None if item is None else _question(item, batch) for item in items]
    semantic: Semantic = batch.options.evaluations_semantic if batch.options else "execute_all"
    digest = b64u(sha256(call.body).digest())

    def evaluate(evaluator: flows.Evaluator) -> None:
        for question in questions:
            if question is not None:
                evaluator.evaluate(question)

    refused: dict[int, Malformed] = {}

    def check(body: bytes) -> None:
        refused.update(_check_items(body))
        for number in refused:
            questions[number] = None

    remote = await ask_ahead(call, evaluate, check=check)

    def run(act: Act) -> list[Decision | None]:
        by = call.prove(act)
        return flows.decide_all(act, questions, semantic=semantic, digest=digest, by=by, remote=remote)

    decisions = await act(call.world, "decide.batch", run, request=call.request_id)
    note_latest(call.world, *{decision.policy_hash for decision in decisions if decision is not None})
    answers = _answers(call, questions, decisions)
    for number, refusal in refused.items():
        if number < len(answers):
            answers[number] = EvaluationResponse(
                False, ResponseContext(error={"status": 400, "message": refusal.message})
            )
    return reply({"evaluations": answers})


async def configuration(call: Call) -> Reply:
    """Return the metadata of this policy decision point (AuthZEN section 9)."""
    url = call.world.config.public_url
    check_suffix(call, url, of="decision point")
    return reply(
        {
            "policy_decision_point": url,
            "access_evaluation_endpoint": url + EVALUATION,
            "access_evaluations_endpoint": url + EVALUATIONS,
            "search_subject_endpoint": url + SUBJECT,
            "search_resource_endpoint": url + RESOURCE,
            "search_action_endpoint": url + ACTION,
            "access_request_endpoint": url + REQUESTS,
            "jwks_uri": f"{url}/jwks",
            "capabilities": ["urn:openid:authzen:capability:access-request"],
            "supported_obligations": ["step-up"],
        }
    )


def render(refusal: Refused) -> Reply:
    """Return the response to a refused request (section 10.1.2): the status 400, 401, 403 or 500 with an error string;
    404 for an unknown path, and 503 for a temporary error.
    """
    status = status_of(refusal)
    return reply(refusal.message, status=status if status in (401, 403, 404, 500, 503) else 400)


def read(call: Call, kind: type[T]) -> T:
    """Return the body of a request, parsed as `kind`. The body must be I-JSON; unknown members are ignored, as section
    5 requires. Raises Malformed for any other body.
    """
    call.expect("application/json")
    body = call.body
    try:
        value = json_decoder(kind)(body)
        _check_members(body, value)
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from None
    return value


def read_batch(call: Call) -> Batch:
    """Return the batch in the body of a request. Raises Malformed if anything but an item of the batch is not
    well-formed.

    An item that is not well-formed becomes None, and only this item is denied (section 7.2.1). An item that takes a
    member from the batch is denied too, if this member of the batch is not well-formed.
    """
    try:
        return read(call, Batch)
    except Malformed as refusal:
        value = canonical.parse(call.body, max_bytes=len(call.body))
        if not isinstance(value, dict) or not isinstance(items := value.get("evaluations"), list) or not items:
            raise refusal from None
        rest = {name: one for name, one in value.items() if name not in ("evaluations", *_DEFAULTS)}
        try:
            batch = convert(rest, Batch)
        except msgspec.ValidationError as error:
            raise Malformed(str(error)) from None
        defaults = {name: _item({name: value.get(name)}) for name in _DEFAULTS}
        batch = structs.replace(batch, **{name: one and getattr(one, name) for name, one in defaults.items()})
        evaluations = [_item(item) for item in items]
        if defaults["context"] is None:
            evaluations = [item if item and item.context is not None else None for item in evaluations]
        return structs.replace(batch, evaluations=evaluations)


_DEFAULTS = ("subject", "action", "resource", "context")


def _item(value: object) -> EvaluationItem | None:
    """Return an item of a batch; None if it is not well-formed."""
    try:
        return convert(value, EvaluationItem)
    except msgspec.ValidationError:
        return None


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Any)


def _check_members(body: bytes, value: object) -> None:
    """Check that no object in `body` has a member twice. `value` is the decoded body. Raises Malformed for a repeated
    member.

    The check compares the number of colons in the text and in the encoding of the value. The decoder keeps only the
    last of two equal members, so its value then has fewer colons. A lower count is due to a member that was sent twice,
    or to an unknown member. In this case, the whole text is decoded and counted. If the counts still differ, or if the
    text has a backslash, with which colons could be escaped, the text is parsed strictly.
    """
    if b"\\" not in body:
        colons = body.count(b":")
        if colons == _encode(value).count(b":") or colons == _encode(_decode(body)).count(b":"):
            return
    canonical.parse(body, max_bytes=len(body))


class _RawBatch(msgspec.Struct):
    """The unparsed parts of a batch."""

    subject: msgspec.Raw = msgspec.Raw()
    action: msgspec.Raw = msgspec.Raw()
    resource: msgspec.Raw = msgspec.Raw()
    context: msgspec.Raw = msgspec.Raw()
    evaluations: list[msgspec.Raw] = []


_decode_raw = json_decoder(_RawBatch)


def _check_items(body: bytes) -> dict[int, Malformed]:
    """Return, by the index of the item, the refusal of each item with a number that OPA would not get exactly. Raises
    Malformed for such a number in a default of the batch.
    """
    batch = _decode_raw(body)
    for name in _DEFAULTS:
        check_numbers(bytes(getattr(batch, name)))
    refused: dict[int, Malformed] = {}
    for number, item in enumerate(batch.evaluations):
        try:
            check_numbers(bytes(item))
        except Malformed as refusal:
            refused[number] = refusal
    return refused


def _question(item: EvaluationItem, batch: Batch) -> EvaluationRequest | None:
    """Return the access request of an item. A member of the item replaces the whole default of the batch. Return None
    if a part is missing.
    """
    subject, action = item.subject or batch.subject, item.action or batch.action
    resource = item.resource or batch.resource
    if subject is None or action is None or resource is None:
        return None
    return EvaluationRequest(subject, action, resource, batch.context if item.context is None else item.context)


async def _decide(call: Call, question: EvaluationRequest) -> Decision:
    digest = b64u(sha256(call.body).digest())
    remote = await ask_ahead(call, lambda evaluator: evaluator.evaluate(question))
    decision = await act(
        call.world,
        "decide",
        lambda act: flows.decide_one(act, question, digest=digest, by=call.prove(act), remote=remote),
        request=call.request_id,
    )
    note_latest(call.world, decision.policy_hash)
    return decision


_EMPTY = ResponseContext()
_INCOMPLETE = EvaluationResponse(
    False,
    ResponseContext(error={"status": 400, "message": "`subject`, `action` and `resource` are required, well-formed"}),
)


def _answers(
    call: Call, questions: list[EvaluationRequest | None], decisions: list[Decision | None]
) -> list[EvaluationResponse]:
    """Return the responses to a batch. The response to a permit depends on nothing but the decision, so equal permits
    that follow each other share one response.
    """
    answers: list[EvaluationResponse] = []
    last, answer = None, _INCOMPLETE
    for question, decision in zip(questions, decisions, strict=False):
        if decision is None or decision is not last or not decision.allowed:
            last, answer = decision, _answer(call, question, decision)
        answers.append(answer)
    return answers


def _answer(call: Call, question: EvaluationRequest | None, decision: Decision | None) -> EvaluationResponse:
    if decision is None or question is None:
        return _INCOMPLETE
    context = ResponseContext(decision.policy_hash, decision.policies, decision.reasons)
    if decision.reasons:
        status = "200" if decision.allowed else "403"
        context.reason_admin, context.reason_user = (
            {status: _for_admin(decision)},
            {status: _for_user(decision.reasons[0])},
        )
        context.obligations = _obligations(decision.reasons)
    if decision.asks and not decision.allowed:
        _note_request(call, question, decision, context)
    if not decision.allowed and question.approval:
        code = decision.reasons[0].code if decision.reasons else ""
        context.reason, context.next_action = _NEXT.get(code, ("policy_denied", "none"))
    if decision.approval:
        context.approval = {"id": decision.approval}
    return EvaluationResponse(decision.allowed, None if context == _EMPTY else context)


def _note_request(call: Call, question: EvaluationRequest, decision: Decision, context: ResponseContext) -> None:
    """Add to `context` the facts that a client needs to request an approval (ARAP, section "Requestable Denial
    Context").
    """
    world = call.world
    now = world.now()
    id = new_id("ev", now=now, random=world.random)
    denied = denial(question, id=id, issuer=world.config.issuer, now=now)
    context.reason, context.evaluation_id, context.evaluated_at = decision.reasons[0].code, id, rfc3339(denied.iat)
    context.access_request = {
        "endpoint": world.config.public_url + REQUESTS,
        "expires_at": denied.denial_expires_at,
        "binding_token": seal_denial(world.keys.signer("token", world.config.token_alg), denied),
    }


def _obligations(reasons: tuple[Reason, ...]) -> list[dict[str, Any]] | None:
    """Return the obligation to get a stronger token, if a stronger token would turn the denial into a permit
    (Obligations Profile, section "step-up"); None otherwise.
    """
    steps = [one.acr_values.split(" ")[0] for one in reasons if one.acr_values]
    return [
        {"type": "step-up", "id": f"step-up-{n}", "properties": {"acr_value": acr}} for n, acr in enumerate(steps, 1)
    ] or None


_NEXT = {
    "approval_mismatch": ("out_of_scope", "request"),
    "approval_ended": ("approval_expired", "request"),
    "approval_spent": ("approval_spent", "none"),
    "unknown_approval": ("approval_unverifiable", "none"),
}
"""The reason why an approval did not help, and the next action of the client, for each reason code of this server
(ARAP, section "Completion Semantics").
"""


_MESSAGES_FOR_USERS = {
    "no_permit": "You are not permitted to do this.",
    "policy_error": "The request could not be decided. Please tell your administrator.",
}
"""Sentences for users by reason code, for reasons whose own message names policies."""


def _for_admin(decision: Decision) -> str:
    sentences = "; ".join(
        f"{one.code}: {one.message}" + (f" ({one.hint})" if one.hint else "") for one in decision.reasons
    )
    by = f" by {', '.join(decision.policies)}" if decision.policies else ""
    return f"{'allowed' if decision.allowed else 'denied'} under the policy set {decision.policy_hash}{by}: {sentences}"


def _for_user(reason: Reason) -> str:
    return _MESSAGES_FOR_USERS.get(reason.code, reason.message)


AUTHZEN = RouteProtocol("AuthZEN", render, str, parses_bodies=True)

_decision = partial(
    Route, "POST", scope=DECIDE, protocol=AUTHZEN, proves_in_act=True, allows_peps=True, grants=True, is_large=True
)

ROUTES = (
    _decision(EVALUATION, evaluation, body=EvaluationRequest, answers={200: EvaluationResponse}),
    _decision(EVALUATIONS, evaluations, body=Batch, answers={200: Either(BatchResponse, EvaluationResponse)}),
    *with_suffix(
        Route(
            "GET",
            "/.well-known/authzen-configuration",
            configuration,
            "",
            protocol=AUTHZEN,
            answers={200: dict[str, Any]},
        )
    ),
)

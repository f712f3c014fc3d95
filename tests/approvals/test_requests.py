"""AuthZEN Access Request and Approval Profile (draft 1), and obligations: requestable denials."""

from __future__ import annotations

from typing import Any

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.policy.model.denial import LIFETIME_S
from tests.approvals.evaluation_requests import REQUESTS, Json, evaluate, question
from tests.support.approval_fixtures import PAY, Bank
from tests.support.policy_fixtures import put

PROBLEM = "urn:openid:authzen:access-request:error:"


async def submission(bank: Bank, asked: Json | None = None) -> Json:
    """The request of an enforcement point for a denied call."""
    asked = asked or question(bank)
    context = (await evaluate(bank, asked))["context"]
    request = context["access_request"]
    denial = {"binding_token": request["binding_token"], "expires_at": request["expires_at"]}
    return {**asked, "denial": denial | {"evaluation_id": context["evaluation_id"], "reason": context["reason"]}}


async def test_a_requestable_denial_is_requested_approved_and_allowed_once(world: World, bank: Bank) -> None:
    denied = await evaluate(bank, question(bank))
    assert (denied["decision"], denied["context"]["reason"]) == (False, "approval_needed")
    request = denied["context"]["access_request"]
    assert request["endpoint"] == f"{world.config.public_url}{REQUESTS}"

    status, made, headers = await bank.http("POST", REQUESTS, await submission(bank))
    task = made["task"]
    assert (status, task["status"], headers[b"retry-after"]) == (202, "pending", b"5")
    assert (
        task["status_endpoint"] == headers[b"location"].decode() == f"{world.config.public_url}{REQUESTS}/{task['id']}"
    )
    assert newest_entry(world).agent == bank.agent.agent_id
    assert (newest_entry(world).detail or {})["evaluation_id"].startswith("ev_")

    again = await bank.http("POST", REQUESTS, await submission(bank))
    assert again[1]["task"]["id"] == task["id"]
    await bank.answer(task["id"])
    status, done, _ = await bank.http("GET", f"{REQUESTS}/{task['id']}")
    assert (status, done["task"]["status"], done["result"]["mode"]) == (200, "approved", "reevaluate")
    assert (await bank.http("POST", REQUESTS, await submission(bank)))[0] == 201

    assert (await evaluate(bank, question(bank)))["decision"] is False  # an approval is shown, or does not count
    shown = question(bank, approval=done["result"]["approval"])
    allowed = await evaluate(bank, shown)
    assert (allowed["decision"], allowed["context"]["approval"]) == (True, {"id": task["id"]})
    spent, decided = await entries(bank, "approval.spend", "decide")
    assert (spent.outcome, spent.object, spent.agent) == ("ok", task["id"], bank.agent.agent_id)
    assert (decided.outcome, (decided.detail or {})["approval"]) == ("allow", task["id"])

    after = await evaluate(bank, shown)
    assert (after["decision"], after["context"]["reasons"][0]["code"]) == (False, "approval_spent")
    assert "access_request" not in after["context"]
    spent, _ = await entries(bank, "approval.spend", "decide")
    assert (spent.outcome, spent.reasons[0].code) == ("refused", "approval_spent")


async def entries(bank: Bank, *actions: str) -> list[Entry]:
    """Return the newest ledger entry of each action."""
    reader = bank.world.db.read()
    return [decode_entry(ledger.search_entries(reader, {"action": action}, limit=1)[0][1]) for action in actions]


async def test_an_approval_is_for_one_exact_call(bank: Bank) -> None:
    task = (await bank.http("POST", REQUESTS, await submission(bank)))[1]["task"]["id"]
    await bank.answer(task)
    for other in (
        question(bank, PAY | {"to": "eva"}, approval={"id": task}),
        question(bank, PAY | {"amount": 501}, approval={"id": task}),
    ):
        answer = await evaluate(bank, other)
        assert answer["context"]["reasons"][0]["code"] == "approval_mismatch"
    missing = await evaluate(bank, question(bank, approval={"id": "ap_unknown"}))
    assert missing["context"]["reasons"][0]["code"] == "unknown_approval"
    assert (await evaluate(bank, question(bank, approval={"id": task})))["decision"]


async def test_a_denial_names_the_next_action_after_an_approval_that_does_not_count(bank: Bank, clock: Clock) -> None:
    """Section "Completion Semantics": the next action is a new request, or none."""
    said = (await bank.http("POST", REQUESTS, await submission(bank)))[1]["task"]
    await bank.answer(said["id"])
    shown = {"id": said["id"]}

    other = question(bank, PAY | {"amount": 501})
    context = (await evaluate(bank, question(bank, PAY | {"amount": 501}, approval=shown)))["context"]
    assert (context["reason"], context["next_action"]) == ("out_of_scope", "request")
    binding = {name: context["access_request"][name] for name in ("binding_token", "expires_at")}
    assert (await bank.http("POST", REQUESTS, {**other, "denial": binding}))[0] == 202

    context = (await evaluate(bank, question(bank, approval={"id": "ap_1"})))["context"]
    assert (context["reason"], context["next_action"]) == ("approval_unverifiable", "none")
    assert "access_request" not in context

    clock.advance(bank.world.config.approval_lifetime_s)
    context = (await evaluate(bank, question(bank, approval=shown)))["context"]
    assert (context["reason"], context["next_action"]) == ("approval_expired", "request")
    assert "access_request" in context

    await put(bank.world, {"a.cedar": '@id("no") forbid (principal, action == Action::"call", resource);'})
    context = (await evaluate(bank, question(bank, approval=shown)))["context"]
    assert (context["reason"], context["next_action"]) == ("policy_denied", "none")
    assert "next_action" not in (await evaluate(bank, question(bank)))["context"]


async def test_a_denial_for_a_spent_approval_is_not_requestable(bank: Bank) -> None:
    task = (await bank.http("POST", REQUESTS, await submission(bank)))[1]["task"]["id"]
    await bank.answer(task)
    assert (await evaluate(bank, question(bank, approval={"id": task})))["decision"]
    context = (await evaluate(bank, question(bank, approval={"id": task})))["context"]
    assert (context["reason"], context["next_action"]) == ("approval_spent", "none")
    assert "access_request" not in context


async def test_a_repeated_idempotency_key_returns_the_same_request(world: World, bank: Bank) -> None:
    """Section "Access Request Submission", `Idempotency-Key`; the order of members makes no difference."""
    sent, key = await submission(bank), "k" * 255
    task = (await bank.http("POST", REQUESTS, sent, key=key))[1]["task"]
    await bank.http("POST", f"{REQUESTS}/{task['id']}/cancel", {})
    again = dict(reversed(sent.items()))
    status, answer, _ = await bank.http("POST", REQUESTS, again, key=key)
    assert (status, answer["task"]["id"], answer["task"]["status"]) == (202, task["id"], "cancelled")
    assert newest_entry(world).action == "approval.again"

    other = await submission(bank, question(bank, PAY | {"amount": 501}))
    status, answer, _ = await bank.http("POST", REQUESTS, other, key=key)
    assert (status, answer["type"], answer["status"]) == (409, PROBLEM + "duplicate_request", 409)
    assert newest_entry(world).outcome == "refused"
    made = (await bank.http("POST", REQUESTS, other, key="l"))[1]["task"]
    assert made["id"] != task["id"]
    for bad in ("", "k" * 256):
        status, answer, _ = await bank.http("POST", REQUESTS, other, key=bad)
        assert (status, answer["type"]) == (400, "about:blank")


async def test_a_guard_and_an_enforcement_point_share_approval_requests(bank: Bank) -> None:
    asked = await bank.ask()
    made = (await bank.http("POST", REQUESTS, await submission(bank)))[1]
    assert made["task"]["id"] == asked.approval
    await bank.answer(asked.approval)
    assert (await evaluate(bank, question(bank, approval={"id": asked.approval})))["decision"]
    assert await bank.why() == "approval_spent"


async def test_a_denial_that_an_approval_would_not_change_is_not_requestable(bank: Bank) -> None:
    for asked in (question(bank, {"amount": 5, "to": "eve"}), question(bank, {"amount": 500, "to": "eve"})):
        assert "access_request" not in (await evaluate(bank, asked))["context"]
    assert (await evaluate(bank, question(bank, {"amount": 5})))["decision"]
    sent = await submission(bank)
    for policy, detail in (
        ("permit (principal, action, resource);", "the policies now permit the request without an approval"),
        ("forbid (principal, action, resource);", "no approval of a person would change the denial"),
    ):
        await put(bank.world, {"a.cedar": policy})
        status, problem, headers = await bank.http("POST", REQUESTS, sent)
        assert (status, problem["type"], headers[b"content-type"]) == (
            400,
            PROBLEM + "not_requestable",
            b"application/problem+json",
        )
        assert problem["detail"].startswith(detail)


async def test_an_access_request_is_bound_to_its_denial(bank: Bank, clock: Clock) -> None:
    sent = await submission(bank)
    broken: list[Json] = [
        {**sent, "context": sent["context"] | {"arguments": PAY | {"to": "eva"}}},
        {**sent, "context": {"arguments": PAY}},
        {**sent, "resource": {"type": "Tool", "id": "bank/other"}},
        {**sent, "subject": sent["subject"] | {"properties": {"x": 1}}},
        {name: value for name, value in sent.items() if name != "denial"},
        {**sent, "denial": {"expires_at": sent["denial"]["expires_at"]}},
        {**sent, "denial": sent["denial"] | {"expires_at": "2030-01-01T00:00:00Z"}},
        {**sent, "denial": sent["denial"] | {"binding_token": "a.b.c"}},
        {**sent, "denial": sent["denial"] | {"binding_token": sent["denial"]["binding_token"][:-8] + "A" * 8}},
    ]
    for body in broken:
        status, problem, _ = await bank.http("POST", REQUESTS, body)
        assert (status, problem["type"]) == (400, PROBLEM + "invalid_denial_binding"), body
    assert (await bank.http("POST", REQUESTS, {"subject": 1}))[0] == 400
    more = {**sent, "context": sent["context"] | {"business_justification": "it is due"}}
    assert (await bank.http("POST", REQUESTS, more))[0] == 202
    clock.advance(LIFETIME_S - 1)
    assert (await bank.http("POST", REQUESTS, sent))[0] == 202
    clock.advance(1)
    status, problem, _ = await bank.http("POST", REQUESTS, sent)
    assert (status, problem["type"]) == (410, PROBLEM + "expired_denial")


async def test_a_request_is_cancelled_once(bank: Bank) -> None:
    task = (await bank.http("POST", REQUESTS, await submission(bank)))[1]["task"]["id"]
    status, said, _ = await bank.http("POST", f"{REQUESTS}/{task}/cancel")
    assert (status, said["task"]["status"]) == (200, "cancelled")
    status, problem, _ = await bank.http("POST", f"{REQUESTS}/{task}/cancel")
    assert (status, problem["type"]) == (409, PROBLEM + "invalid_task_state")
    status, problem, _ = await bank.http("GET", f"{REQUESTS}/ap_unknown")
    assert (status, problem["type"]) == (404, PROBLEM + "unknown_task")


async def test_each_item_of_a_batch_is_requestable_by_itself(bank: Bank) -> None:
    asked = [question(bank), question(bank, {"amount": 5}), question(bank, {"to": "eve"})]
    _, answer, _ = await bank.http("POST", "/access/v1/evaluations", {"evaluations": asked})
    assert ["access_request" in one.get("context", {}) for one in answer["evaluations"]] == [True, False, False]


async def test_the_metadata_lists_the_endpoint_capability_and_obligation(bank: Bank) -> None:
    _, said, _ = await bank.http("GET", "/.well-known/authzen-configuration")
    url = bank.world.config.public_url
    assert (said["access_request_endpoint"], said["jwks_uri"]) == (url + REQUESTS, url + "/jwks")
    assert said["capabilities"] == ["urn:openid:authzen:capability:access-request"]
    assert said["supported_obligations"] == ["step-up"]


STRONG = """@id("all") permit (principal, action, resource);
@id("strong") @step_up("urn:ostiary:acr:two-keys") forbid (principal is Agent, action == Action::"call", resource)
unless { context.acr == "urn:ostiary:acr:two-keys" };"""


async def test_a_denial_that_a_stronger_token_would_change_has_a_step_up_obligation(bank: Bank) -> None:
    await put(bank.world, {"a.cedar": STRONG})
    answer = await evaluate(bank, question(bank))
    assert answer["context"]["obligations"] == [
        {"type": "step-up", "id": "step-up-1", "properties": {"acr_value": "urn:ostiary:acr:two-keys"}}
    ]
    assert "obligations" not in (await evaluate(bank, question(bank, acr="urn:ostiary:acr:two-keys")))["context"]


async def test_a_malformed_approval_does_not_count(bank: Bank) -> None:
    cases: list[Any] = ["ap_1", 5, None, [], {}, {"id": 5}, {"id": None}]
    for approval in cases:
        answer = await evaluate(bank, question(bank, approval=approval))
        assert answer["context"]["reason"] == "approval_needed", approval

"""A resource, a principal and policies for tests of the decision."""

from __future__ import annotations

import json
from typing import Any

from harness.principals import make_principal
from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import Confirmation
from ostiary.decision.access import (
    Decision,
    DecisionInputs,
    Facts,
    Policies,
    Principal,
    Protected,
    RemoteAnswers,
    RemoteSource,
    decide,
    foresee,
    resolve,
)
from ostiary.decision.access.remote_policies import RemoteVerdict

SECOND = 1_000_000


END = 1_800_000_000


NOW = (END - 60) * SECOND


URI = "https://files.example/mcp"


AGENT, PARENT = "ag_" + "1" * 32, "ag_" + "2" * 32


CATALOGUE = Catalogue.parse(
    json.dumps(
        {
            "resource": "files",
            "tools": [
                {"name": "read_file", "effect": "read", "arguments": {"properties": {"path": {"type": "string"}}}},
                {"name": "pay", "effect": "pay", "arguments": {"properties": {"amount": {"type": "number"}}}},
            ],
        }
    )
)


CALL = ["Action", "call"]


CONTEXT, RESOURCE, PRINCIPAL = ["var", "context"], ["var", "resource"], ["var", "principal"]


def policy(effect: str, *conditions: Any, id: str | None = None, **annotations: str) -> dict[str, Any]:
    return {
        "id": id or effect,
        "effect": effect,
        "action": {"equals": CALL},
        "conditions": conditions,
        "annotations": annotations,
    }


def rules(*policies: dict[str, Any]) -> Policies:
    return Policies("hash", ir.parse(json.dumps({"version": 1, "policies": policies}).encode()))


PERMIT = policy("permit")


FAILS = ["get", CONTEXT, "nothing"]


PAYS = ["binary", "eq", ["get", RESOURCE, "effect"], ["lit", "pay"]]


def resource(**more: Any) -> Protected:
    facts: dict[str, Any] = {"name": "files", "uri": URI, "segment": "default", "catalogue": CATALOGUE}
    return Protected(**facts | more)


def principal(**more: Any) -> Principal:
    claims: dict[str, Any] = {
        "sub": AGENT,
        "client_id": AGENT,
        "aud": URI,
        "exp": END,
        "scope": "files:read files:write",
        "cnf": Confirmation(jkt="thumb"),
    }
    return make_principal(**claims | more)


def call(
    who: Principal | None = None,
    *,
    tool: str = "read_file",
    arguments: dict[str, Any] | None = None,
    policies: Policies | None = None,
    at: Protected | None = None,
    now: int = NOW,
    elsewhere: RemoteSource | None = None,
    **more: Any,
) -> Decision:
    """Return the decision on a call, after a comparison with the verdicts that searches foresee for the call.
    `elsewhere` answers for remote policies.
    """
    facts = Facts(at or resource(), policies or rules(PERMIT), **more)
    asked = {"path": "/srv/x"} if arguments is None else arguments
    remote = None if elsewhere is None else RemoteFunction(facts.policies, now, elsewhere)
    resolved = resolve(who or principal(), tool, asked, facts, now)
    decision = decide(resolved, DecisionInputs(remote=remote))
    foresight = foresee(resolved, frozenset(), has_memory=False)
    assert foresight.may or not decision.allowed, "searches find each call that a decision allows"
    assert decision.allowed or not foresight.must, "searches promise no call that a decision denies"
    return decision


class RemoteFunction(RemoteAnswers):
    """Remote policies that a function answers for."""

    def __init__(self, policies: Policies, at: int, answer: RemoteSource) -> None:
        super().__init__(policies, at)
        self._answer = answer

    def look_up(self, question: bytes) -> RemoteVerdict:
        return self._answer(question)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]

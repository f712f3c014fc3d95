"""Policy sets that mix Cedar and Rego."""

from __future__ import annotations

from typing import Any

from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows
from ostiaryd.policy.flows.external_pdp import note_latest
from ostiaryd.policy.flows.loading import load_set
from tests.support.policy_fixtures import Ask

EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"


QUESTION: dict[str, Any] = {
    "subject": {"type": "user", "id": "ann", "properties": {"level": 2}},
    "action": {"name": "see"},
    "resource": {"type": "user", "id": "ben"},
}


SCHEMA = """
    entity group;
    entity user in [group] = { id: String, level?: Long };
    action see appliesTo { principal: user, resource: user, context: {} };
"""


async def put(world: World, files: dict[str, str]) -> str:
    loaded = await load_set(world, files)
    made = await act(world, "policy.put", lambda act: flows.put(act, loaded, by=None))
    note_latest(world, made.hash)
    return made.hash


async def decision(ask: Ask, question: dict[str, Any] = QUESTION) -> tuple[bool, str, list[str]]:
    """Evaluate a request, and return the verdict, the first message of its reasons, and the deciding policies."""
    status, answer = await ask(EVALUATION, question)
    assert status == 200
    context = answer["context"]
    return answer["decision"], context.get("reasons", [{}])[0].get("message", ""), context.get("policies", [])


FORBIDS = 'forbid (principal, action == Action::"see", resource);'


CEDAR_PERMITS = 'permit (principal, action == Action::"see", resource);'

"""The count of calls of throttled agents, over all guards and the decisions of the server."""

from __future__ import annotations

from ostiary.decision.access.decide import too_many
from ostiary.protocol.errors import Forbidden
from ostiaryd.approvals import flows as approvals
from ostiaryd.ground.database import Tx
from ostiaryd.registry import flows as registry


def count_call(tx: Tx, token: str, *, resource_id: str) -> None:
    """Count one call under a live token for that resource, against the limit of each throttled agent in the token's
    chain.

    Raises Forbidden with code `throttled` if an agent exceeds its limit, and Forbidden if the token is not live or not
    for this resource.
    """
    task = approvals.task_of_token(tx, token, registry.find_resource(tx, resource_id), now=tx.now)
    for agent in dict.fromkeys((task.agent, *(link.agent for link in task.chain))):
        for restriction in registry.list_restrictions_of_agent(tx, agent, now=tx.now):
            if restriction.kind == "throttle" and not registry.count_call(tx, agent):
                reason = too_many(agent, restriction.limit)
                raise Forbidden(reason.message, hint=reason.hint, code=reason.code)

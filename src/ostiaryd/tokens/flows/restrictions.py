"""Restrictions of agents, applied when a token is issued: the server issues no token whose calls guards would deny
(`ostiary.decision.access.restrictions`).
"""

from __future__ import annotations

from ostiary.authorization.catalogue import Effect
from ostiary.decision.access import unproved
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.resource_cache import protected
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from ostiaryd.tasks.model import Task
from ostiaryd.tokens.model import Target, Unmet


def restrict_scopes(
    act: Act, agent: Agent, task: Task, target: Target, scope: frozenset[str], *, acr: str, at: int, config: Config
) -> frozenset[str]:
    """Return the part of `scope` that the restrictions of `agent` and of the agents in its delegation chain allow.

    `acr` and `at` (seconds since the epoch) are the level and the time of the authentication. For each throttled agent,
    the token counts as one call. Raises Unmet if a `step_up` restriction is not met, and Forbidden if a rate limit is
    exceeded or no scope is left.
    """
    own = (agent.agent_id,) if agent.restricted_until > act.now else ()
    for name in (*own, *task.restricted):
        for restriction in registry.list_restrictions_of_agent(act.tx, name, now=act.now):
            if restriction.kind == "throttle" and not registry.take_call(act.tx, name):
                raise Forbidden(f"agent {name} is limited to {restriction.limit} calls a minute", code="access_denied")
            if restriction.kind == "step_up" and (reason := unproved(acr, at, restriction, now=act.now)) is not None:
                raise Unmet(reason.message, hint=f"`acr_values` {reason.acr_values}")
            if restriction.kind == "narrow" and target.agent is None and target.uri != config.api:
                scope &= _reading(act, target)
                if not scope:
                    raise Forbidden(f"agent {name} is restricted to reading for now", code="access_denied")
    return scope


def _reading(act: Act, target: Target) -> frozenset[str]:
    """Return the scopes of a resource that belong to tools with the declared effect `read`; empty for an unregistered
    resource.
    """
    if target.resource is None:
        return frozenset()
    tools = protected(act.tx, target.resource).tools.values()
    return frozenset(ready.scope for ready in tools if ready.tool.effect is Effect.READ)

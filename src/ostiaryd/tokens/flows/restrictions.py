"""Restrictions of agents (`ostiary.decision.access.restrictions`), applied to tokens. The server issues no token whose
calls guards would deny. Introspection shows a resource without a guard the scopes and bounds that are still allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ostiary.authorization.budget import Budget, Calls
from ostiary.authorization.catalogue import Effect
from ostiary.authorization.claims import AccessClaims, actors, render_scope, scopes
from ostiary.decision.access import find_unproved
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ, Agent
from ostiaryd.tasks import flows as tasks
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
            if restriction.kind == "throttle" and not registry.count_call(act.tx, name):
                raise Forbidden(
                    f"agent {name} is limited to {restriction.limit} calls a minute",
                    hint="try again in a minute",
                    code="access_denied",
                )
            if (
                restriction.kind == "step_up"
                and (reason := find_unproved(acr, at, restriction, now=act.now)) is not None
            ):
                raise Unmet(reason.message, hint=f"`acr_values` {reason.acr_values}")
            if restriction.kind == "narrow" and target.agent is None and target.uri != config.api:
                scope &= _reading(act, target)
                if not scope:
                    raise Forbidden(
                        f"agent {name} is restricted to reading for now",
                        hint="request scopes of tools that only read, or ask an administrator to end the restriction",
                        code="access_denied",
                    )
    return scope


def _reading(act: Act, target: Target) -> frozenset[str]:
    """Return the scopes of a resource that belong to tools with the declared effect `read`; empty for an unregistered
    resource.
    """
    if target.resource is None:
        return frozenset()
    tools = prepared_resource(act.tx, target.resource).tools.values()
    return frozenset(ready.scope for ready in tools if ready.tool.effect is Effect.READ)


def restrict_claims(act: Act, claims: AccessClaims, *, counts: bool, config: Config) -> AccessClaims | None:
    """Return the claims of a live token, reduced by the restrictions of its agent and of the agents in its delegation
    chain, as guards would reduce them; None if a restriction forbids the use of the token.

    With `counts`, a resource is about to serve a call with the token: the call counts for each throttled agent, and the
    result is None if a budget for calls of all tools has no units left.
    """
    if counts and any(_is_spent(act, budget) for budget in claims.budgets):
        return None
    is_narrowed = False
    for name in dict.fromkeys((claims.client_id, *actors(claims), *(link.agent for link in claims.chain))):
        for restriction in registry.list_restrictions_of_agent(act.tx, name, now=act.now):
            if restriction.kind == "throttle" and counts and not registry.count_call(act.tx, name):
                return None
            if restriction.kind == "step_up" and find_unproved(claims.acr, claims.auth_time, restriction, now=act.now):
                return None
            is_narrowed |= restriction.kind == "narrow"
    # a token for another agent is not used at a resource; the exchange for a resource narrows
    return _narrow(act, claims, config=config) if is_narrowed and claims.may_act is None else claims


def _narrow(act: Act, claims: AccessClaims, *, config: Config) -> AccessClaims | None:
    """Return the claims with only those scopes and details that permit reading tools of the catalogue and no other
    tool; None if none are left.
    """
    if claims.aud == config.api:
        left = scopes(claims) & {READ}
        return replace(claims, scope=render_scope(left)) if left else None
    resource = registry.get_resource_by_uri(act.tx, claims.aud)
    tools = () if resource is None else prepared_resource(act.tx, resource).tools.values()
    reading = {ready.tool.name: ready.scope for ready in tools if ready.tool.effect is Effect.READ}
    left = scopes(claims) & (
        set(reading.values()) - {ready.scope for ready in tools if ready.tool.effect is not Effect.READ}
    )
    bounds = claims.authorization_details or [{"type": "tool", "locations": [claims.aud]}]
    details = [detail for bound in bounds if (detail := _limit_to(bound, reading)) is not None]
    if not left or not details:
        return None
    return replace(claims, scope=render_scope(left), authorization_details=details)


def _limit_to(detail: Mapping[str, Any], tools: Mapping[str, str]) -> dict[str, object] | None:
    """Return the detail for those of its tools that are in `tools`; None if none are."""
    actions = [name for name in detail.get("actions") or tools if name in tools]
    return {**detail, "actions": actions} if actions else None


def _is_spent(act: Act, budget: Budget) -> bool:
    counts_all = isinstance(budget.limit, Calls) and not budget.limit.tools
    return counts_all and tasks.balance(act.tx, budget, now=act.now).left <= 0

"""Restrictions of agents at the issue of tokens: no token is issued that guards would refuse
(`ostiary.decision.access.holds`).
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


def within_holds(
    act: Act, agent: Agent, task: Task, target: Target, scope: frozenset[str], *, acr: str, at: int, config: Config
) -> frozenset[str]:
    """The scopes that are left to a token for `agent` under that task, which says `acr`, and `at` (seconds) when that
    was proved. It counts as a call of each of those through whom it comes.

    Raises Unmet, and Forbidden where nothing is left.
    """
    own = (agent.agent_id,) if agent.held_until > act.now else ()
    for held in (*own, *task.held):
        for hold in registry.list_restrictions_of_agent(act.tx, held, now=act.now):
            if hold.kind == "throttle" and not registry.take_call(act.tx, held):
                raise Forbidden(f"agent {held} is held to {hold.limit} calls a minute", code="access_denied")
            if hold.kind == "step_up" and (reason := unproved(acr, at, hold, now=act.now)) is not None:
                raise Unmet(reason.message, hint=f"`acr_values` {reason.acr_values}")
            if hold.kind == "narrow" and target.agent is None and target.uri != config.api:
                scope &= _reading(act, target)
                if not scope:
                    raise Forbidden(f"agent {held} may only read for now", code="access_denied")
    return scope


def _reading(act: Act, target: Target) -> frozenset[str]:
    """Return the scopes of read-only tools of a resource, as far as its catalogue declares effects."""
    if target.resource is None:
        return frozenset()
    tools = protected(act.tx, target.resource).tools.values()
    return frozenset(ready.scope for ready in tools if ready.tool.effect is Effect.READ)

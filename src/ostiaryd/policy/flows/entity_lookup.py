"""Entities of registered agents and resources, as policies see them; also the widest possible token, and the risk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ostiary.authorization.bounds import render_details
from ostiary.authorization.cedar.values import Entity, Record
from ostiary.authorization.claims import AccessClaims, Link, acting, render_scope
from ostiary.decision import access
from ostiary.decision.access import RISK, Policies
from ostiary.decision.access.chain import agent_entity
from ostiaryd.ground.database import Reader
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.policy.model import AgentSeen, ResourceSeen
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource, RiskTier
from ostiaryd.tasks.model import Task

_FOREVER = 1 << 40


def risk_context(
    reader: Reader, policies: Policies, agent: Agent, task: str, links: Sequence[Link] = (), *, at: int
) -> Record:
    """Return the member `context.risk` for policies: the risk scores of the agent and `task`, and of the agents and
    tasks through which the task was delegated (`links`), at `at` (microseconds). Empty if no policy reads the risk.
    """
    if not policies.reads_risk:
        return {}
    through = tuple(dict.fromkeys((agent.agent_id, *(link.agent for link in links))))
    under = tuple(dict.fromkeys((task, *(link.task for link in links))))
    return {
        RISK: access.risk_context(registry.get_risks(reader, (*through, *under)), agents=through, tasks=under, now=at)
    }


def entity_of_agent(agent: Agent) -> Entity:
    """Return the Cedar entity of an agent."""
    return agent_with_facts(agent)[0]


def agent_with_facts(agent: Agent) -> tuple[Entity, AgentSeen]:
    """Return the Cedar entity of an agent, and the facts about the agent that are stored with a decision."""
    return _with_facts(agent.agent_id, agent.owner, agent.segment, agent.model, agent.risk_tier)


@lru_cache(maxsize=4096)
def _with_facts(agent_id: str, owner: str, segment: str, model: str, risk_tier: RiskTier) -> tuple[Entity, AgentSeen]:
    tier = risk_tier.value
    return (
        agent_entity(agent_id, owner=owner, segment=segment, model=model, risk_tier=tier),
        AgentSeen(agent_id, owner, segment, model, tier),
    )


def resource_with_facts(reader: Reader, resource: Resource) -> tuple[Entity, ResourceSeen]:
    """Return the Cedar entity of a registered resource, and the facts about the resource that are stored with a
    decision.
    """
    ready = prepared_resource(reader, resource)
    return ready.entities[ready.uid], ResourceSeen(ready.name, ready.uri, ready.segment, ready.catalogue_hash)


def widest_claims(agent: Agent, task: Task, resource: Resource) -> AccessClaims:
    """Return the claims that a token of the agent for the resource would have, with all scopes and bounds that the
    agent may use under the task. No token is issued.
    """
    line = tuple(dict.fromkeys((agent.agent_id, *(link.agent for link in task.chain))))
    subject, actor = acting(line, person=task.person)
    return AccessClaims(
        iss="",
        sub=subject,
        client_id=agent.agent_id,
        aud=resource.uri,
        iat=0,
        exp=_FOREVER,
        jti="",
        scope=render_scope((agent.scopes | task.elevated) & task.scopes),
        task=task.task_id,
        authorization_details=render_details(task.bounds),
        owner=agent.owner,
        segment=agent.segment,
        model=agent.model,
        risk_tier=agent.risk_tier.value,
        epoch=agent.epoch,
        memory=task.memory or "",
        act=actor,
        chain=list(task.chain),
    )

"""What policies see of agents and resources that are registered: what they are, would have, and are doubted."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.authorization.bounds import render_details
from ostiary.authorization.cedar.values import Entity, Record
from ostiary.authorization.claims import AccessClaims, Link, acting, render_scope
from ostiary.decision import access
from ostiary.decision.access import RISK, Policies
from ostiary.decision.access.chain import agent_entity
from ostiaryd.ground.database import Reader
from ostiaryd.policy.flows.prepared import protected
from ostiaryd.policy.model import AgentSeen, ResourceSeen
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource
from ostiaryd.tasks.model import Task

_FOREVER = 1 << 40


def doubt_of(
    reader: Reader, policies: Policies, agent: Agent, task: str, links: Sequence[Link] = (), *, at: int
) -> Record:
    """What a context says of how far those are doubted through whom something comes; nothing where no policy looks."""
    if not policies.reads_risk:
        return {}
    who = tuple(dict.fromkeys((agent.agent_id, *(link.agent for link in links))))
    under = tuple(dict.fromkeys((task, *(link.task for link in links))))
    return {RISK: access.doubted(registry.get_risks(reader, (*who, *under)), agents=who, tasks=under, now=at)}


def entity_of_agent(agent: Agent) -> Entity:
    return agent_entity(
        agent.agent_id, owner=agent.owner, segment=agent.segment, model=agent.model, risk_tier=agent.risk_tier.value
    )


def found_agent(agent: Agent) -> tuple[Entity, AgentSeen]:
    """The entity of an agent, and what of it is kept."""
    seen = AgentSeen(agent.agent_id, agent.owner, agent.segment, agent.model, agent.risk_tier.value)
    return entity_of_agent(agent), seen


def found_resource(reader: Reader, resource: Resource) -> tuple[Entity, ResourceSeen]:
    """The entity of a registered resource, and what of it is kept."""
    ready = protected(reader, resource)
    return ready.entities[ready.uid], ResourceSeen(ready.name, ready.uri, ready.segment, ready.catalogue_hash)


def widest_claims(agent: Agent, task: Task, resource: Resource) -> AccessClaims:
    """What a token for this resource under this task would say, as wide as one may be."""
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

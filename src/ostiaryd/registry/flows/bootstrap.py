"""The first start: registration of the administrator."""

from __future__ import annotations

from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.agents import create_agent
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.find import find_agent
from ostiaryd.registry.flows.keys import add_key
from ostiaryd.registry.flows.owners import create_person
from ostiaryd.registry.flows.resources import create_resource
from ostiaryd.registry.flows.roles import grant_role
from ostiaryd.registry.model import ADMIN, DECIDE, READ, Agent, AgentSpec, Kind, RiskTier
from ostiaryd.registry.model.role import ADMINISTRATOR


def bootstrap_admin(act: Act, *, public_jwk: object, agent_id: str | None = None) -> Agent:
    """Create, at the first start only, a person and an agent named `admin`, both administrators, and register this
    server's API as the resource `ostiary`. Return the agent.

    `agent_id`: an id that was generated before, so that the credential file could be written before the key is
    registered.
    """
    create_person(act, name="admin")
    grant_role(act, "admin", ADMINISTRATOR)
    create_resource(act, name="ostiary", uri=f"{store.resources.get_public_url(act.tx)}/api/v1")
    agent = create_agent(
        act,
        AgentSpec(
            agent_id=agent_id,
            name="admin",
            owner="admin",
            purpose="administers this server",
            kind=Kind.SERVICE,
            risk_tier=RiskTier.CRITICAL,
            scopes=[ADMIN, DECIDE, READ],
        ),
    )
    key = add_key(act, agent.agent_id, public_jwk)
    act.entry.detail = None
    fill_entry(act, object=agent.agent_id, name=agent.name, key=key.jkt)
    return find_agent(act.tx, agent.agent_id)

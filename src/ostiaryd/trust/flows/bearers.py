"""The exemption, by name, for clients that cannot do better: unbound tokens, assertions as RFC 7523 had them."""

from __future__ import annotations

from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Root
from ostiaryd.trust import store


def allow_bearer(act: Act, id_or_name: str) -> None:
    """From now on this agent may ask for tokens without a proof. Raises NotFound."""
    store.set_bearer(act.tx, _find(act, id_or_name).agent_id, True)


def forbid_bearer(act: Act, id_or_name: str) -> None:
    """No longer, and the unbound tokens that it holds end. Raises NotFound."""
    agent = _find(act, id_or_name)
    store.set_bearer(act.tx, agent.agent_id, False)
    for id in store.unbound(act.tx, agent.agent_id):
        registry.end_holdings(act, Root.HOLDING, id, why="bearer forbidden")


def is_exempt(reader: Reader, id_or_name: str) -> bool:
    """Raises NotFound."""
    return store.is_bearer(reader, registry.find_agent(reader, id_or_name).agent_id)


def exempt(reader: Reader) -> list[str]:
    """The names of all agents that are exempt."""
    return sorted(registry.find_agent(reader, id).name for id in store.bearers(reader))


def _find(act: Act, id_or_name: str) -> Agent:
    agent = registry.find_agent(act.tx, id_or_name)
    registry.note(act, object=agent.agent_id, owner=agent.owner, name=agent.name)
    return agent

"""The exemption, by name, for clients that cannot do better: tokens bound to no key, assertions of type `JWT`."""

from __future__ import annotations

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


def _find(act: Act, id_or_name: str) -> Agent:
    agent = registry.find_agent(act.tx, id_or_name)
    registry.note(act, object=agent.agent_id, owner=agent.owner, name=agent.name)
    return agent

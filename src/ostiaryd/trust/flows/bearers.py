"""The exemption, by name: which clients may hold tokens that are bound to no key (old PEPs that cannot do better)."""

from __future__ import annotations

from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.store import is_bearer

__all__ = ["allow_bearer", "forbid_bearer", "is_bearer"]


def allow_bearer(act: Act, id_or_name: str) -> None:
    """From now on this agent may ask for tokens without a proof. Raises NotFound."""
    agent = registry.find_agent(act.tx, id_or_name)
    registry.note(act, object=agent.agent_id, owner=agent.owner, name=agent.name)
    store.set_bearer(act.tx, agent.agent_id, True)


def forbid_bearer(act: Act, id_or_name: str) -> None:
    """No longer: our own API refuses its unbound tokens at once, and those that it holds end. Raises NotFound."""
    agent = registry.find_agent(act.tx, id_or_name)
    registry.note(act, object=agent.agent_id, owner=agent.owner, name=agent.name)
    store.set_bearer(act.tx, agent.agent_id, False)

"""Stored data of the registry: one module per noun, SQL only."""

from ostiaryd.registry.store import (
    agent_table,
    agents,
    holdings,
    keys,
    owners,
    person_keys,
    resources,
    restrictions,
    risks,
    roles,
    stops,
    used_secrets,
)

__all__ = [
    "agent_table",
    "agents",
    "holdings",
    "keys",
    "owners",
    "person_keys",
    "resources",
    "restrictions",
    "risks",
    "roles",
    "stops",
    "used_secrets",
]

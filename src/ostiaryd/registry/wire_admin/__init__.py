"""The registry for administrators: JSON under /api/v1. Times are in seconds since the epoch."""

from ostiaryd.registry.wire_admin import agent_table, agents, owners, resources

ROUTES = owners.ROUTES + agents.ROUTES + agent_table.ROUTES + resources.ROUTES

"""Stored data of tasks: one module per noun, SQL only."""

from ostiaryd.tasks.store import (
    budgets,
    counterparts,
    elevations,
    histories,
    holders,
    intents,
    memories,
    pruning,
    tasks,
)

__all__ = [
    "budgets",
    "counterparts",
    "elevations",
    "histories",
    "holders",
    "intents",
    "memories",
    "pruning",
    "tasks",
]

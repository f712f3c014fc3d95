"""Differences between the database's state and the ledger, and the agent that each difference concerns."""

from __future__ import annotations

from typing import NamedTuple

LEDGER = "ledger"
"""The name of a difference that concerns the ledger itself: its entries do not match the signed checkpoint."""


class Difference(NamedTuple):
    """A guarded row (such as an agent's keys) that differs from the newest ledger entry that names the row. `agent`:
    the agent whose access the row changes, or the resource of a client secret; empty if unknown.
    """

    name: str
    expected: str | None
    """digest of the row in the ledger; None if no entry names the row"""
    actual: str
    """digest of the row in the database; empty if the database has no such row"""
    agent: str = ""

    @property
    def kind(self) -> str:
        """Return the kind of the row: the first word of the row's name in the ledger."""
        return self.name.partition(" ")[0]

    @property
    def key(self) -> str:
        """Return the key of the row: the row's name in the ledger without its first word."""
        return self.name.partition(" ")[2]

    def __str__(self) -> str:
        if self.kind == LEDGER:
            return "the ledger's entries do not lead to the signed checkpoint"
        if self.expected is None:
            return f"the row `{self.name}` was inserted without a ledger entry"
        return f"the row `{self.name}` was {'changed' if self.actual else 'deleted'} without a ledger entry"

"""Differences between the state and the ledger, and the subject that each stops."""

from __future__ import annotations

from typing import NamedTuple

AGENT_KINDS = frozenset({"agent", "key", "task", "holding", "exemption", "secret", "eligible", "awaiting"})
"""Kinds of guarded rows that change the access of one agent; a difference in any other kind stops everything."""
LEDGER = "ledger"
"""The name of a difference of the ledger itself."""


class Difference(NamedTuple):
    """A row that differs from the newest entry that names it. `agent`: the agent whose access the row changes,
    if known.
    """

    name: str
    expected: str | None
    """digest in the ledger; None if no entry names the row"""
    actual: str
    """digest of the row; empty if there is no row"""
    agent: str = ""

    @property
    def kind(self) -> str:
        """Return the kind of the row."""
        return self.name.partition(" ")[0]

    @property
    def key(self) -> str:
        """Return the key of the row."""
        return self.name.partition(" ")[2]

    def __str__(self) -> str:
        if self.kind == LEDGER:
            return "the entries do not lead to the signed checkpoint"
        if self.expected is None:
            return f"{self.name} was inserted: no entry names the row"
        return f"{self.name} was {'changed' if self.actual else 'deleted'} behind the ledger"

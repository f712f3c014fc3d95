"""The numbers of agents by state, kind, risk tier and segment, counted at most every five seconds."""

from __future__ import annotations

from ostiaryd.ground.world import World
from ostiaryd.registry import store

COUNTS_AGE_US = 5_000_000


class AgentCounts:
    """A cache of the numbers of agents. If the numbers are older than `COUNTS_AGE_US`, `read` counts again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._until = 0
        self._counts: dict[str, dict[str, int]] = {}

    async def read(self) -> dict[str, dict[str, int]]:
        """Return the number of agents for each value of state, kind, risk tier and segment."""
        now = self._world.now()
        if now >= self._until:
            self._counts, self._until = await self._world.db.scan(store.agent_table.counts), now + COUNTS_AGE_US
        return self._counts

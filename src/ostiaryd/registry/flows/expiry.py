"""Expiry of agents, keys and holdings. Other code checks the end of an object whenever it is used; this module writes
the entry of an expiry, and ends the holdings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from ostiary.protocol.errors import Conflict, Refused
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import store
from ostiaryd.registry.flows.agents import set_agent_state
from ostiaryd.registry.flows.find import find_agent
from ostiaryd.registry.flows.keys import revoke_key
from ostiaryd.registry.model import Agent, AgentId, Verb

T = TypeVar("T")
LISTED = 1000
KEPT = 86_400 * 1_000_000
"""Time for which a holding is stored after its expiry, in microseconds."""


def list_expired(reader: Reader, *, now: int) -> list[AgentId]:
    """Return the ids of at most `LISTED` agents that have expired and are not suspended yet, the agent with the
    earliest end first.
    """
    return store.agents.list_due(reader, now=now, limit=LISTED)


def expire_agent(act: Act, id: str) -> Agent:
    """Suspend an agent that has expired, and return it. An administrator can set a later end and resume the agent.
    Raises NotFound for an unknown agent, Conflict if it has not expired, or is already stopped.
    """
    agent = find_agent(act.tx, id)
    if agent.expires_at is None or act.now < agent.expires_at:
        raise Conflict(f"`{agent.name}` has not expired")
    return set_agent_state(act, agent.agent_id, Verb.SUSPEND, why="expired")


def expire_key(act: Act, jkt: str) -> None:
    """Revoke a key that has expired. Raises NotFound for an unknown key, and Conflict if it has not expired."""
    key = store.keys.get_key(act.tx, jkt)
    if key is not None and key.is_active(act.now):
        raise Conflict("this key has not expired")
    revoke_key(act, jkt, why="expired")


async def expire_due(world: World, *, limit: int = 100) -> int:
    """Suspend at most `limit` expired agents and revoke at most `limit` expired keys, each in a separate act; return
    the number of both. Holdings that expired more than a day ago are deleted.
    """
    now = world.now()
    due_agents = await world.db.scan(lambda reader: store.agents.list_due(reader, now=now, limit=limit))
    due_keys = await world.db.scan(lambda reader: store.keys.list_due(reader, now=now, limit=limit))
    await world.writer.submit(lambda tx: store.holdings.prune(tx, before=now - KEPT, limit=1000))
    return await act_on_each(world, "agent.expire", expire_agent, due_agents) + await act_on_each(
        world, "key.expire", expire_key, due_keys
    )


async def act_on_each(world: World, action: str, flow: Callable[[Act, T], object], things: Sequence[T]) -> int:
    """Run one act for each item, and return the number of acts that succeeded. If an act is refused, for example
    because another server was faster, the refusal is recorded and the next item follows.
    """
    acts = [act(world, action, lambda act, thing=thing: flow(act, thing)) for thing in things]  # type: ignore[misc]
    results = await asyncio.gather(*acts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Refused):
            raise result
    return sum(not isinstance(result, Refused) for result in results)

"""Restrictions: temporary limits on an agent, and their end."""

from __future__ import annotations

from ostiary.authorization.assurance import ACRS
from ostiary.decision.access import Hold
from ostiary.decision.access.holds import HoldKind
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows.callers import note
from ostiaryd.registry.flows.feed import tell
from ostiaryd.registry.flows.find import find_agent
from ostiaryd.registry.model import HoldDelta
from ostiaryd.registry.store import holds

MAX_LIMIT: dict[HoldKind, int] = {"throttle": 10_000, "narrow": 0, "step_up": len(ACRS) - 1}


def put_hold(act: Act, id_or_name: str, kind: HoldKind, *, until: int, limit: int = 0) -> Hold:
    """Put an agent under a restriction until `until` (microseconds). Raises NotFound, Invalid.

    Restrictions of the same kind combine; the stricter limit of each applies.
    """
    agent = find_agent(act.tx, id_or_name)
    note(act, object=agent.agent_id, owner=agent.owner, hold=kind, limit=limit, until=until)
    if not 0 <= limit <= MAX_LIMIT[kind]:
        raise Invalid(f"the limit of `{kind}` must be 0 to {MAX_LIMIT[kind]}")
    if until <= act.now:
        raise Invalid("the end of a hold must be in the future")
    hold = Hold(kind, limit, act.now, until)
    for known in holds.of_agent(act.tx, agent.agent_id, now=act.now):
        if known.kind == kind:
            stricter = min if kind == "throttle" else max
            hold = Hold(kind, stricter(limit, known.limit), act.now, max(until, known.until))
    holds.put(act.tx, agent.agent_id, hold)
    tell(act, HoldDelta(agent.agent_id, *hold))
    return hold


def lift_holds(act: Act, id_or_name: str, *kinds: HoldKind) -> list[Hold]:
    """Let go of an agent, or of these kinds of holds on it. Raises NotFound, Conflict where there is none."""
    agent = find_agent(act.tx, id_or_name)
    found = [one for one in holds.of_agent(act.tx, agent.agent_id, now=act.now) if not kinds or one.kind in kinds]
    note(act, object=agent.agent_id, owner=agent.owner, lifted=[one.kind for one in found])
    if not found:
        raise Conflict(f"the agent `{agent.name}` is not held", code="not_held")
    for one in found:
        holds.end(act.tx, agent.agent_id, one.kind)
        tell(act, HoldDelta(agent.agent_id, *one._replace(until=act.now)))
    return found


async def forget_holds(world: World) -> int:
    """Drop restrictions that ended at every server of the database; return their number."""
    return await world.writer.submit(lambda tx: holds.forget(tx, before=world.now.horizon))

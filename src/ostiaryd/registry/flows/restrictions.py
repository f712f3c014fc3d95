"""Restrictions, which are temporary limits on an agent: put and lift them."""

from __future__ import annotations

from ostiary.authorization.assurance import STEPS
from ostiary.decision.access import Restriction
from ostiary.decision.access.restrictions import RestrictionKind
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import find_agent
from ostiaryd.registry.model import RestrictionDelta

MAX_LIMIT: dict[RestrictionKind, int] = {"throttle": 10_000, "narrow": 0, "step_up": len(STEPS) - 1}


def put_restriction(act: Act, id_or_name: str, kind: RestrictionKind, *, until: int, limit: int = 0) -> Restriction:
    """Put an agent under a restriction until `until` (microseconds), and return the restriction that is then in force.
    `limit`: for `throttle` the calls per minute, for `step_up` the index of the demanded `acr` in `STEPS`, for `narrow`
    0. Raises NotFound for an unknown agent, Invalid for a limit or an end out of range.

    Restrictions of the same kind combine; the stricter limit of each applies.
    """
    agent = find_agent(act.tx, id_or_name)
    fill_entry(act, object=agent.agent_id, owner=agent.owner, hold=kind, limit=limit, until=until)
    if not 0 <= limit <= MAX_LIMIT[kind]:
        raise Invalid(f"the limit of `{kind}` must be 0 to {MAX_LIMIT[kind]}")
    if until <= act.now:
        raise Invalid("the end of a restriction must be in the future")
    restriction = Restriction(kind, limit, act.now, until)
    for present in store.restrictions.list_restrictions_of_agent(act.tx, agent.agent_id, now=act.now):
        if present.kind == kind:
            stricter = min if kind == "throttle" else max
            restriction = Restriction(kind, stricter(limit, present.limit), act.now, max(until, present.until))
    store.restrictions.put(act.tx, agent.agent_id, restriction)
    queue_for_guards(act, RestrictionDelta(agent.agent_id, *restriction))
    return restriction


def lift_restrictions(act: Act, id_or_name: str, *kinds: RestrictionKind) -> list[Restriction]:
    """End the restrictions of an agent, those of the given kinds or, without `kinds`, all, and return them. Raises
    NotFound for an unknown agent, and Conflict if none of them is in force.
    """
    agent = find_agent(act.tx, id_or_name)
    lifted = [
        one
        for one in store.restrictions.list_restrictions_of_agent(act.tx, agent.agent_id, now=act.now)
        if not kinds or one.kind in kinds
    ]
    fill_entry(act, object=agent.agent_id, owner=agent.owner, lifted=[one.kind for one in lifted])
    if not lifted:
        raise Conflict(f"no such restriction of the agent `{agent.name}` is in force", code="not_held")
    for one in lifted:
        store.restrictions.end(act.tx, agent.agent_id, one.kind)
        queue_for_guards(act, RestrictionDelta(agent.agent_id, *one._replace(until=act.now)))
    return lifted


async def forget_restrictions(world: World) -> int:
    """Delete restrictions that have ended on the clock of every server of the database; return their number."""
    return await world.writer.submit(lambda tx: store.restrictions.forget(tx, before=world.now.horizon))

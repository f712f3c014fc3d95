"""Holdings: hold, and end everything under a root."""

from __future__ import annotations

from collections import Counter

from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows.callers import note
from ostiaryd.registry.flows.feed import tell
from ostiaryd.registry.flows.find import active_agent, find_resource
from ostiaryd.registry.model import AgentId, Holding, Root, TokenDelta
from ostiaryd.registry.model.holding import names_root
from ostiaryd.registry.store import holdings


def hold(act: Act, held: Holding) -> None:
    """Record what an agent (or a guard, by its resource id) gets.

    Raises Forbidden for a holder that is not active, a parent that has ended or would be outlived, Invalid for what has
    expired already.
    """
    if held.agent.startswith("rs_"):
        find_resource(act.tx, held.agent)
    else:
        active_agent(act.tx, held.agent, now=act.now)
    if not held.is_live(act.now):
        raise Invalid("what has ended cannot be held")
    if held.parent is not None:
        parent = holdings.get(act.tx, held.parent)
        if parent is None or not parent.is_live(act.now):
            raise Forbidden("what this derives from has ended", code="parent_ended")
        if held.expires_at > parent.expires_at:
            raise Forbidden("this would outlive what it derives from", code="outlives_parent")
    holdings.insert(act.tx, held)


def end_holdings(
    act: Act,
    root: Root,
    value: str,
    *,
    why: str,
    stopped: frozenset[AgentId] = frozenset(),
) -> Counter[str]:
    """End all live holdings under the root, down to the last descendant; return how many, by kind.

    Guards get a delta for each, except where its token names a root, an agent or a task that has a delta of its own.
    """
    counts, ended = holdings.end(act.tx, root, value, why=why)
    for held in ended:
        if held.agent not in stopped and not names_root(held, root, value):
            tell(act, TokenDelta(held.id, held.expires_at))
    if counts:
        note(act, object=act.entry.object or value, ended=dict(counts))
    return counts

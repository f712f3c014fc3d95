"""Holdings: add a holding, and end all holdings under a root (agent, task, key, owner or another holding)."""

from __future__ import annotations

from collections import Counter

from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import active_agent, find_person, find_resource
from ostiaryd.registry.model import AgentId, Holding, Root, TokenDelta, is_person_id
from ostiaryd.registry.model.holding import names_root


def add_holding(act: Act, holding: Holding) -> None:
    """Store a new holding (such as a token, a certificate or a lease) of an agent, a guard (by its resource id) or a
    person.

    Raises Forbidden if the holder is not active, or if the parent (the holding from which the new one derives) has
    ended or ends earlier than the new one; Invalid if the new holding has already expired.
    """
    if holding.agent.startswith("rs_"):
        find_resource(act.tx, holding.agent)
    elif is_person_id(holding.agent):
        if not (person := find_person(act.tx, holding.agent)).is_active:
            raise Forbidden(f"`{person.name}` {person.absence}", hint=person.return_hint, code=person.absence_code)
    else:
        active_agent(act.tx, holding.agent, now=act.now)
    if not holding.is_live(act.now):
        raise Invalid("a holding must end in the future")
    if holding.parent is not None:
        parent = store.holdings.get_holding(act.tx, holding.parent)
        if parent is None or not parent.is_live(act.now):
            raise Forbidden("the parent of this holding has ended", hint="log in again", code="parent_ended")
        if holding.expires_at > parent.expires_at:
            raise Forbidden(
                "this holding would outlive its parent", hint="request a shorter lifetime", code="outlives_parent"
            )
    store.holdings.insert_holding(act.tx, holding)


def release_holdings(act: Act, holding: Holding, kind: str) -> None:
    """Move the live holdings of the kind `kind` that are direct children of `holding` up to the parent of `holding`, so
    that they do not end when `holding` ends. Without that parent, they then have no parent.
    """
    store.holdings.move(act.tx, holding.id, kind, above=holding.parent)


def end_holdings(
    act: Act,
    root: Root,
    value: str,
    *,
    why: str,
    stopped: frozenset[AgentId] = frozenset(),
) -> Counter[str]:
    """End all live holdings (such as tokens and leases) that belong to an object, with all holdings derived from them;
    return the number of ended holdings by kind. `root` is the kind of the object, such as a task, and `value` its id.

    Guards are notified of each ended holding, except of tokens that name the object, and of holdings of the agents in
    `stopped`: the notification about the object or the agent covers them.
    """
    counts, ended = store.holdings.end(act.tx, root, value, why=why)
    for one in ended:
        if one.agent not in stopped and not names_root(one, root, value):
            queue_for_guards(act, TokenDelta(one.id, one.expires_at))
    if counts:
        fill_entry(act, object=act.entry.object or value, ended=dict(counts))
    return counts

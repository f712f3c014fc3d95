"""The delegation chain of a call. Policies decide for the principal, and again for each agent behind it, that is, each
agent through which the authority was delegated. If a policy forbids the call for one of these agents, or no policy
permits the call for it, the call is denied. An agent therefore gets no access through another agent that it does not
have itself.

Remote policies decide once, for the principal, and see the other agents in `context.chain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from ostiary.authorization.cedar import values
from ostiary.authorization.cedar.render import encode_record
from ostiary.authorization.cedar.values import Entity, Record, Uid, entity, make_set
from ostiary.authorization.claims import Link
from ostiary.protocol.errors import Invalid


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The agents behind a principal, the nearest first. `context`: the members `actors` and `chain` of the context of
    policies; `encoded`: both members in Cedar's JSON. A chain is equal only to itself; `chain_of` returns one object
    for equal links.
    """

    behind: tuple[Entity, ...]
    context: Record
    encoded: Mapping[str, msgspec.Raw]


def chain_of(links: Sequence[Link], *, holder: str, acted: Sequence[str] = ()) -> Chain:
    """Return the chain of the agents in `links` and `acted`, each once and without `holder`, the holder of the token.
    Agents that are only in `acted` (the `act` claim) have no attributes.
    """
    return _chain(tuple(links), holder, tuple(acted)) if links or acted else ALONE


@lru_cache(maxsize=4096)
def _chain(links: tuple[Link, ...], holder: str, acted: tuple[str, ...]) -> Chain:
    by_agent = {link.agent: link for link in (*(Link(agent, 0, "") for agent in acted), *reversed(links))}
    by_agent.pop(holder, None)
    if not by_agent:
        return ALONE
    order = tuple(dict.fromkeys((*(link.agent for link in links), *acted)))
    agents = tuple(agent_of(by_agent[agent]) for agent in order if agent in by_agent)
    actors = frozenset(agent.uid for agent in agents)
    return _made(agents, actors, make_set(map(_link_record, agents, range(1, len(agents) + 1))))


def _made(agents: tuple[Entity, ...], actors: frozenset[object], chain: frozenset[object]) -> Chain:
    context: Record = {"actors": actors, "chain": chain}
    return Chain(agents, context, encode_record(context))


def read_chain(context: Record) -> tuple[Entity, ...]:
    """Return the agents in the `chain` of a context, the nearest first. Raises Invalid for a malformed chain."""
    members = context.get("chain", frozenset())
    if not isinstance(members, frozenset):
        raise Invalid("`chain` of the context is not a set")
    numbered = sorted(map(_read, members), key=lambda one: one[0])
    return tuple(agent for _, agent in numbered)


def agent_of(link: Link) -> Entity:
    """Return the Cedar entity of the agent in `link`."""
    return agent_entity(link.agent, owner=link.owner, segment=link.segment, model=link.model, risk_tier=link.risk_tier)


def _link_record(agent: Entity, step: int) -> Record:
    facts = {name: agent.attrs[name] for name in ("owner", "segment", "model", "risk_tier")}
    return {"agent": agent.uid, **facts, "step": step}


def _read(stood_for: object) -> tuple[int, Entity]:
    match values.unkey(stood_for):
        case {
            "agent": Uid("Agent", id),
            "owner": Uid("Owner", owner),
            "segment": Uid("Segment", segment),
            "model": str(model),
            "risk_tier": str(tier),
            "step": int(step),
        }:
            return step, agent_entity(id, owner=owner, segment=segment, model=model, risk_tier=tier)
    raise Invalid("`chain` of the context has a member that is not an agent")


@lru_cache(maxsize=4096)
def agent_entity(agent_id: str, *, owner: str, segment: str, model: str = "", risk_tier: str = "") -> Entity:
    """Return the Cedar entity of an agent with these attributes."""
    belongs = (Uid("Owner", owner), Uid("Segment", segment))
    attrs: Record = {
        "id": agent_id,
        "owner": belongs[0],
        "segment": belongs[1],
        "model": model,
        "risk_tier": risk_tier,
    }
    return entity(Uid("Agent", agent_id), attrs, belongs)


ALONE = _made((), frozenset[object](), frozenset[object]())

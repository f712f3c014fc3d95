"""Keys of agents: add, revoke, rotate with overlap."""

from __future__ import annotations

from collections import Counter

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.agents import activate, check_end
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import find_agent
from ostiaryd.registry.flows.holdings import end_holdings
from ostiaryd.registry.model import LONGEST_TOKEN, Agent, AgentId, AgentKey, AgentState, KeyDelta, Root

MAX_KEYS = 10
MAX_OVERLAP_S = 30 * 86_400


def add_key(act: Act, id_or_name: str, jwk: object, *, not_after: int | None = None) -> AgentKey:
    """Register and return a public key of an agent. The first key makes a pending agent active. `not_after` is in
    microseconds.

    Raises NotFound for an unknown agent, InvalidKey for an unusable key, and Conflict for a key that is already
    registered, too many keys, or a decommissioned agent.
    """
    agent = find_agent(act.tx, id_or_name)
    fill_entry(act, object=agent.agent_id, owner=agent.owner)
    key = _insert(act, agent, jwk, not_after=not_after)
    if agent.state is AgentState.PENDING:
        activate(act, agent)
    return key


def rotate_key(act: Act, id_or_name: str, jwk: object, *, overlap_s: int = 3600) -> AgentKey:
    """Register and return a new key of an agent. All other keys end after `overlap_s` seconds (0 to 30 days) at the
    latest. Raises Invalid for another overlap, and the errors of `add_key`.
    """
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise Invalid(f"the overlap must be 0 to {MAX_OVERLAP_S} seconds")
    key = add_key(act, id_or_name, jwk)
    if overlap_s == 0:
        for old in store.keys.list_active(act.tx, key.agent, now=act.now):
            if old.jkt != key.jkt:
                revoke_key(act, old.jkt, why="rotated")
        return key
    store.keys.shorten_others(act.tx, key.agent, kept=key.jkt, not_after=act.now + overlap_s * 1_000_000)
    return key


def revoke_key(act: Act, jkt: str, *, of: AgentId | None = None, why: str = "revoked") -> Counter[str]:
    """Revoke a key, and end everything that was obtained with it or is bound to it; return the number of ended objects
    by kind. With `of`, only a key of this agent is found.

    Raises NotFound if there is none. If the key was already revoked, remaining objects are ended.
    """
    key = store.keys.get_key(act.tx, jkt)
    if key is None or of not in (None, key.agent):
        missing = "no agent has a key" if of is None else "the agent has no key"
        raise NotFound(f"{missing} with this thumbprint (RFC 7638)", hint="list the keys: ostiary key list AGENT")
    agent = find_agent(act.tx, key.agent)
    fill_entry(act, object=jkt, owner=agent.owner, holder=key.agent, why=why)
    store.keys.revoke(act.tx, jkt)
    queue_for_guards(act, KeyDelta(jkt, act.now + LONGEST_TOKEN))
    return end_holdings(act, Root.KEY, jkt, why=why)


def _insert(act: Act, agent: Agent, jwk: object, *, not_after: int | None) -> AgentKey:
    public = jose.parse_public_jwk(jwk)
    fill_entry(act, object=agent.agent_id, key=public.thumbprint)
    if agent.state is AgentState.DECOMMISSIONED:
        raise Conflict(f"`{agent.name}` is decommissioned", hint="decommissioning is final", code="wrong_state")
    if len(store.keys.list_active(act.tx, agent.agent_id, now=act.now)) >= MAX_KEYS:
        raise Conflict(f"`{agent.name}` has {MAX_KEYS} keys", hint="revoke a key first", code="too_many_keys")
    check_unknown_key(act, public.thumbprint)
    key = AgentKey(
        jkt=public.thumbprint,
        agent=agent.agent_id,
        alg=public.alg,
        jwk=dict(public.jwk),
        added_at=act.now,
        not_after=not_after if not_after is None else check_end(not_after, now=act.now),
        revoked_at=None,
    )
    store.keys.insert(act.tx, key)
    return key


def check_unknown_key(act: Act, jkt: str) -> None:
    """Check that the key was never registered by an agent, a guard or a person, because a key identifies one of them.
    Raises Conflict otherwise.
    """
    if store.keys.find_key_owner(act.tx, jkt) is not None:
        raise Conflict(
            "this key is already registered", hint="generate a new key; keys are never shared", code="key_taken"
        )

"""Agents: registration, and the changes of their state."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import check_may, fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import find_agent, find_owner
from ostiaryd.registry.flows.holdings import end_holdings
from ostiaryd.registry.flows.owners import active_person, is_answerable
from ostiaryd.registry.model import (
    UNDO_VERBS,
    Agent,
    AgentDelta,
    AgentId,
    AgentSpec,
    AgentState,
    Caller,
    Owner,
    PersonId,
    Root,
    Verb,
    check_depth,
    check_name,
    check_text,
    next_state,
    parse_scopes,
)

MAX_LIFETIME_S = 10 * 366 * 86_400


def create_agent(act: Act, spec: AgentSpec) -> Agent:
    """Register and return an agent. The agent is pending until its first key is registered; an agent without keys
    (`is_keyless`) is active immediately.

    Raises NotFound for an unknown owner or deputy, Conflict for a taken name, an owner without an active person or a
    deputy who is not active, Invalid for a property that is not valid.
    """
    owner = find_owner(act.tx, spec.owner)
    agent = Agent(
        agent_id=AgentId(spec.agent_id or act.new_id("ag")),
        name=check_name(spec.name),
        owner=owner.id,
        deputy=_deputy(act, spec.deputy, owner=owner),
        purpose=check_text(spec.purpose, of="purpose"),
        kind=spec.kind,
        provider=spec.provider and check_text(spec.provider, of="provider", limit=100),
        model=spec.model and check_text(spec.model, of="model", limit=100),
        risk_tier=spec.risk_tier,
        segment=check_name(spec.segment, of="segment"),
        scopes=parse_scopes(spec.scopes),
        state=AgentState.ACTIVE if spec.is_keyless else AgentState.PENDING,
        epoch=0,
        created_at=act.now,
        expires_at=spec.expires_at if spec.expires_at is None else check_end(spec.expires_at, now=act.now),
        max_depth=check_depth(spec.max_depth),
        is_keyless=spec.is_keyless,
    )
    fill_entry(
        act,
        object=agent.agent_id,
        owner=agent.owner,
        name=agent.name,
        kind=agent.kind.value,
        scopes=sorted(agent.scopes),
    )
    _check_answerable(act, agent)
    if store.agents.get_agent(act.tx, agent.name) is not None:
        raise Conflict(
            f"the name `{agent.name}` is taken", hint="names cannot be reused, even after deletion", code="name_taken"
        )
    store.agents.insert(act.tx, agent)
    return agent


def set_agent_state(act: Act, id_or_name: str, verb: Verb, *, why: str = "", by: Caller | None = None) -> Agent:
    """Change the state of an agent by a verb such as `suspend`, and return the agent. If the agent leaves the state
    `active`, its holdings (such as tokens and leases) end.

    Raises NotFound for an unknown agent, Forbidden if the caller may not use the verb, and Conflict if the verb does
    not apply in this state, or if the agent cannot become active: no accountable owner, no key, expired, or waiting for
    a person's decision on an incident.
    """
    agent, _ = _move(act, find_agent(act.tx, id_or_name), verb, why=why, by=by)
    return agent


def revoke_agent(act: Act, id_or_name: str, *, by: Caller | None = None) -> Counter[str]:
    """Apply the emergency verb `revoke` to an agent in any state, and end its holdings; return the number of ended
    objects by kind. A pending or active agent becomes suspended; in any other state, the state stays.
    """
    _, ended = _move(act, find_agent(act.tx, id_or_name), Verb.REVOKE, why="revoked", by=by)
    return ended


def decommission_agent(act: Act, id_or_name: str, *, why: str, by: Caller | None = None) -> Counter[str]:
    """Decommission an agent permanently; return the number of ended objects by kind. Raises as `set_agent_state`."""
    _, ended = _move(act, find_agent(act.tx, id_or_name), Verb.DECOMMISSION, why=why, by=by)
    return ended


def undo_stop(reader: Reader, agent: Agent) -> str:
    """Return the command with which a stopped agent can be made active again; an empty text if the agent is not
    stopped, or if no command can make it active.
    """
    if (verb := UNDO_VERBS.get(agent.state)) is None:
        return ""
    if incident := store.stops.find_awaited_incident(reader, agent.agent_id):
        return f"ostiary incident release {incident} --as PERSON.json --reason WHY"
    return f"ostiary agent {verb} {agent.name}"


def _move(act: Act, agent: Agent, verb: Verb, *, why: str, by: Caller | None) -> tuple[Agent, Counter[str]]:
    """Change the state of an agent; return the agent, and the number of ended holdings by kind.

    1. Check the caller. 2. Compute the next state. 3. Check that an agent that becomes active is fit. 4. End the
    holdings of an agent that leaves `active`.
    """
    fill_entry(act, object=agent.agent_id, owner=agent.owner, name=agent.name, was=agent.state.value, why=why)
    check_may(act, by, verb, agent)
    incident = store.stops.find_awaited_incident(act.tx, agent.agent_id)
    if by is not None and verb in UNDO_VERBS.values() and incident:
        hint = f"ostiary incident release {incident} --as PERSON.json --reason WHY"
        raise Conflict(f"`{agent.name}` waits for a person's decision on an incident", hint=hint, code="awaits_person")
    if why:
        check_text(why, of="reason", limit=500)
    state = next_state(agent.state, verb)
    ended: Counter[str] = Counter()
    if state is AgentState.ACTIVE:
        _check_fit(act, agent)
        moved = replace(agent, state=state)
    else:
        moved = replace(agent, state=state, epoch=agent.epoch + 1)
        ended = end_holdings(act, Root.AGENT, agent.agent_id, why=why or verb.value)
    store.agents.set_state(act.tx, moved.agent_id, moved.state, epoch=moved.epoch)
    queue_for_guards(act, AgentDelta(moved.agent_id, moved.state, moved.epoch))
    return moved, ended


def set_scopes(act: Act, id_or_name: str, scopes: list[str]) -> Agent:
    """Replace the scopes of an agent, and return the agent. If the agent loses a scope, all its holdings (such as
    tokens and leases) end. Raises NotFound for an unknown agent, Invalid for malformed scopes, Conflict for a
    decommissioned agent.
    """
    agent = _living(act, id_or_name)
    changed = replace(agent, scopes=parse_scopes(scopes))
    was, new = sorted(agent.scopes), sorted(changed.scopes)
    fill_entry(act, object=agent.agent_id, was=was, scopes=new)
    store.agents.set_scopes(act.tx, agent.agent_id, changed.scopes)
    return changed if agent.scopes <= changed.scopes else renew_tokens(act, changed, why="scopes narrowed")


def set_end(act: Act, id_or_name: str, expires_at: int | None) -> Agent:
    """Set the time at which an agent's registration ends (microseconds; None for no end), and return the agent. Tokens
    that were issued before keep their lifetime of some minutes.
    """
    agent = _living(act, id_or_name)
    end = expires_at if expires_at is None else check_end(expires_at, now=act.now)
    fill_entry(act, object=agent.agent_id, was=agent.expires_at, expires_at=end)
    store.agents.set_end(act.tx, agent.agent_id, end)
    return replace(agent, expires_at=end)


def set_depth(act: Act, id_or_name: str, max_depth: int) -> Agent:
    """Set how many further agents may follow this agent in a delegation chain, and return the agent. The limit applies
    to present tasks too: a task with a longer chain cannot be used.
    """
    agent = _living(act, id_or_name)
    depth = check_depth(max_depth)
    fill_entry(act, object=agent.agent_id, depth=f"{agent.max_depth} -> {depth}")
    store.agents.set_depth(act.tx, agent.agent_id, depth)
    return replace(agent, max_depth=depth)


def set_speaks(act: Act, id_or_name: str, speaks: bool) -> Agent:
    """Set whether an agent may state its person's words (the text of the person's request) for the tasks that it starts
    from now on.
    """
    agent = _living(act, id_or_name)
    fill_entry(act, object=agent.agent_id, speaks="yes" if speaks else "no")
    store.agents.set_speaks(act.tx, agent.agent_id, speaks)
    return replace(agent, speaks=speaks)


def set_segment(act: Act, id_or_name: str, segment: str) -> Agent:
    """Move an agent to another segment (a named group of agents and resources), and return it. Tokens contain the
    segment, so everything that the agent holds or has delegated ends.
    """
    agent = _living(act, id_or_name)
    moved = replace(agent, segment=check_name(segment, of="segment"))
    fill_entry(act, object=agent.agent_id, was=agent.segment, segment=moved.segment)
    if moved.segment == agent.segment:
        return agent
    store.agents.set_segment(act.tx, moved.agent_id, moved.segment)
    return renew_tokens(act, moved, why="another segment")


def transfer_agent(act: Act, id_or_name: str, owner: str, *, deputy: str | None = None) -> Agent:
    """Transfer an agent to another owner, and return it. Tokens contain the owner, so all holdings of the agent (such
    as tokens and leases) end.
    """
    agent, to = _living(act, id_or_name), find_owner(act.tx, owner)
    transferred = replace(agent, owner=to.id, deputy=_deputy(act, deputy, owner=to))
    fill_entry(act, object=agent.agent_id, was=agent.owner, to=to.id)
    _check_answerable(act, transferred)
    store.agents.set_owner(act.tx, transferred.agent_id, transferred.owner, transferred.deputy)
    return renew_tokens(act, transferred, why="transferred")


def renew_tokens(act: Act, agent: Agent, *, why: str) -> Agent:
    """End all holdings of the agent, and raise its epoch, so that its earlier tokens are invalid. The agent stays
    active and can get new tokens.
    """
    end_holdings(act, Root.AGENT, agent.agent_id, why=why)
    renewed = replace(agent, epoch=agent.epoch + 1)
    store.agents.set_state(act.tx, renewed.agent_id, renewed.state, epoch=renewed.epoch)
    queue_for_guards(act, AgentDelta(renewed.agent_id, renewed.state, renewed.epoch))
    return renewed


def set_keyless(act: Act, agent: Agent, is_keyless: bool) -> Agent:
    """Record whether an agent authenticates without a registered key, and return the agent. A pending agent that
    becomes keyless becomes active.
    """
    store.agents.set_keyless(act.tx, agent.agent_id, is_keyless)
    changed = replace(agent, is_keyless=is_keyless)
    if changed.state is AgentState.PENDING and is_keyless:
        return _move(act, changed, Verb.ACTIVATE, why="first certificate", by=None)[0]
    return changed


def activate(act: Act, agent: Agent) -> Agent:
    """Change a pending agent to active, because its first key was registered, and return it."""
    return _move(act, agent, Verb.ACTIVATE, why="first key", by=None)[0]


def check_end(end: int, *, now: int) -> int:
    """Return `end` (microseconds) after checking that it is in the future and at most ten years away. Raises Invalid
    otherwise.
    """
    if not now < end <= now + MAX_LIFETIME_S * 1_000_000:
        raise Invalid(
            "the end of an agent or a key must be in the future, at most ten years from now", hint="state another end"
        )
    return end


def _living(act: Act, id_or_name: str) -> Agent:
    agent = find_agent(act.tx, id_or_name)
    fill_entry(act, object=agent.agent_id, owner=agent.owner, name=agent.name)
    if agent.state is AgentState.DECOMMISSIONED:
        raise Conflict(f"`{agent.name}` is decommissioned", hint="decommissioning is final", code="wrong_state")
    return agent


def _deputy(act: Act, id_or_name: str | None, *, owner: Owner) -> PersonId | None:
    if id_or_name is None:
        return None
    deputy = active_person(act, id_or_name)
    if deputy.person_id == owner.id:
        raise Invalid(f"`{deputy.name}` cannot be both owner and deputy", hint="name another person as deputy")
    return deputy.person_id


def _check_fit(act: Act, agent: Agent) -> None:
    """Check that an agent may become active: it has an active owner, it has a valid key or is keyless, and it has not
    expired. Raises Conflict otherwise.
    """
    _check_answerable(act, agent, hint=f"name another owner: ostiary agent transfer {agent.name} --owner OWNER")
    if not agent.is_keyless and not store.keys.list_active(act.tx, agent.agent_id, now=act.now):
        raise Conflict(f"`{agent.name}` has no key", hint=f"add a key: ostiary key add {agent.name}", code="no_key")
    if agent.expires_at is not None and agent.expires_at <= act.now:
        raise Conflict(
            f"`{agent.name}` has expired",
            hint="set a later `expires_in` first: PATCH /api/v1/agents/NAME",
            code="agent_expired",
        )


def _check_answerable(
    act: Act, agent: Agent, *, hint: str = "name an active person, or a team with an active member, as owner"
) -> None:
    owner = store.owners.get_owner(act.tx, agent.owner)
    if owner is None or not is_answerable(act, owner):
        raise Conflict(f"the owner of `{agent.name}` is not active", hint=hint, code="no_owner")

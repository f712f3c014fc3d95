"""Received signals: each token is applied once, only to subjects for which its issuer may speak, and is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NoReturn, assert_never

import msgspec
from msgspec.structs import replace

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Conflict
from ostiary.provenance.noticing import MAX_SAYS, Noticed
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.buckets import TooMuch
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import acting, incidents
from ostiaryd.incidents.flows.respond import responder, would_lock_out
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentState, Person, Root, is_person_id
from ostiaryd.signals import store
from ostiaryd.signals.model.issuers import (
    EFFECTS_TOPIC,
    MAX_ISSUERS,
    AcceptedSubjects,
    Effect,
    Issuer,
    UnfinishedEffect,
    accepted_subjects,
    effect_of,
    find_unsupported_member,
    short_name,
)
from ostiaryd.signals.model.sets import (
    AHEAD,
    OLDEST,
    STREAM_UPDATED,
    VERIFICATION,
    SecurityEvent,
    SetRefused,
    digest,
)
from ostiaryd.tasks import flows as tasks
from ostiaryd.watch import flows as watch
from ostiaryd.watch.model import SIGNAL

MAX_AGENTS = 500
"""Maximum number of agents of persons to which one act applies the effect of a signal; further acts follow."""
MAX_UNFINISHED = 50
"""Maximum number of unfinished effects of an issuer; a signal that would add another is refused."""
RETRY_S = 60
SHOWN = 20
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(UnfinishedEffect)


def was_received(reader: Reader, issuer: Issuer, event: SecurityEvent) -> bool:
    """Return whether this token was received before. A repeated token (RFC 8935 section 2) has no effect."""
    return store.issuers.was_received(reader, digest(issuer.issuer, event.jti))


def apply_event(act: Act, id: str, event: SecurityEvent, *, config: Config) -> int:
    """Apply an event of the issuer; return the number of agents that the event affects, now or in later acts.

    1. Record the event in the act's ledger entry. 2. Return 0 if the token was received before. 3. If the event is
    about the stream itself, update the issuer. 4. Select the subjects for which the issuer may speak; none if a
    critical member of the subject is not supported. 5. Apply the event's effect to these subjects. Raises SetRefused if
    the issuer is not trusted, or the event is about another stream or has a `state` that this server did not request,
    and TooMuch if the issuer has too many unfinished effects.
    """
    issuer = store.issuers.get(act.tx, id)
    if issuer is None:
        raise SetRefused("the issuer is not trusted", code="invalid_issuer")
    registry.fill_entry(
        act, object=issuer.issuer_id, issuer=issuer.issuer, event=short_name(event.event), jti=event.jti
    )
    if not store.issuers.remember_received(act.tx, digest(issuer.issuer, event.jti), until=event.at + OLDEST + AHEAD):
        registry.fill_entry(act, object=issuer.issuer_id, repeated="yes")
        return 0
    issuer = replace(issuer, received=issuer.received + 1, received_at=act.now)
    if event.event in (VERIFICATION, STREAM_UPDATED):
        issuer = _about_stream(issuer, event, now=act.now)
    store.issuers.update(act.tx, issuer)
    if member := find_unsupported_member(issuer, event.subject):
        registry.fill_entry(act, object=issuer.issuer_id, discarded=f"the subject has a critical `{member}`")
        return 0
    subjects = accepted_subjects(issuer, event.subject, ours=config.issuer)
    people, ours = _people(act.tx, issuer, subjects), _agents(act.tx, subjects)
    registry.fill_entry(
        act, object=issuer.issuer_id, persons=[p.person_id for p in people], agents=[a.agent_id for a in ours]
    )
    if len(people) == 1:
        act.entry.person = people[0].person_id
    if (due := effect_of(event)) is None:
        return 0
    registry.fill_entry(act, object=issuer.issuer_id, effect=due[0].value)
    return _carry_out(
        act, due, people, ours, why=f"{short_name(event.event)}, according to {issuer.issuer}", config=config
    )


async def forget_received(world: World) -> None:
    """Delete the records of received tokens that every server of the database now refuses because of their age."""
    await world.writer.submit(lambda tx: store.issuers.forget_received(tx, before=world.now.horizon))


def _about_stream(issuer: Issuer, event: SecurityEvent, *, now: int) -> Issuer:
    """Return the issuer after an event about our stream at the issuer (SSF 8.1.4.1).

    Raises SetRefused if the event is about another stream, or its `state` differs from the `state` that this server
    requested. The transmitter may send a verification event without `state` on its own.
    """
    if issuer.stream and event.subject != {"format": "opaque", "id": issuer.stream}:
        raise SetRefused("the event is about another stream (`sub_id`)")
    if event.event == STREAM_UPDATED:
        status = event.claims.get("status")
        return replace(issuer, trouble="" if status == "enabled" else f"the stream is {str(status)[:32]}")
    state = event.claims.get("state")
    if state is not None and state != issuer.state:
        raise SetRefused("`state` is not the requested state", code="invalid_state")
    return replace(issuer, verified_at=now, state=None if state is not None else issuer.state)


def _people(reader: Reader, issuer: Issuer, subjects: AcceptedSubjects) -> list[Person]:
    ids = [id for email in subjects.emails for id in store.issuers.find_persons(reader, email)]
    ids += [
        id
        for sub in subjects.subs
        if (id := store.issuers.find_linked_person(reader, issuer.issuer_id, sub)) is not None
    ]
    ids += [id for id in subjects.ours if is_person_id(id)]
    persons = (registry.get_person(reader, id) for id in dict.fromkeys(ids))
    return [person for person in persons if person is not None]


def _agents(reader: Reader, subjects: AcceptedSubjects) -> list[Agent]:
    rows = (registry.get_agent(reader, id) for id in dict.fromkeys(subjects.ours) if id.startswith("ag_"))
    return [agent for agent in rows if agent is not None]


def refuse_signal(act: Act, issuer: Issuer, refusal: SetRefused) -> NoReturn:
    """Write the issuer into the entry of a refused signal. Always raises `refusal`."""
    registry.fill_entry(act, object=issuer.issuer_id, issuer=issuer.issuer)
    raise refusal


def record_flood(act: Act, issuer: Issuer, *, refused: int) -> None:
    """Record in the act's ledger entry that the issuer sends more tokens than the limit. Webhooks send an alert about
    this entry. `refused`: the number of refused tokens.
    """
    registry.fill_entry(act, object=issuer.issuer_id, issuer=issuer.issuer, refused=refused)


def _carry_out(
    act: Act, due: tuple[Effect, int], people: list[Person], ours: list[Agent], *, why: str, config: Config
) -> int:
    """Apply an effect and its risk points to persons, to the first agents that the persons are accountable for, and to
    the agents `ours`, whose ids the event states; later acts apply the effect to the other agents of the persons.
    Return the number of all these agents.
    """
    effect, points = due
    owners = list(dict.fromkeys(owner.id for person in people for owner in registry.list_leaving(act.tx, person)))
    unstopped = [owner for owner in owners if effect is Effect.STOP and not _stop(act, owner, why=why)]
    if effect is not Effect.RAISE_RISK:
        for person in people:
            tasks.cancel_for(act, person.person_id)
            registry.end_holdings(act, Root.AGENT, person.person_id, why=why)
    count = sum(registry.count_active_agents(act.tx, owner) for owner in owners)
    count += sum(agent.state is AgentState.ACTIVE and agent.owner not in owners for agent in ours)
    named = [agent.agent_id for agent in ours]
    unfinished = UnfinishedEffect(act.entry.object or "", effect, points, why, owners, unstopped, named)
    _affect_next(act, unfinished, ours, config=config)
    return count


async def continue_effects(world: World) -> None:
    """Apply the unfinished effects of signals to the next agents, in one act for each `MAX_AGENTS` agents."""
    while await world.db.scan(_next_unfinished):
        await act(world, "signal.continue", partial(continue_effect, config=world.config))


def continue_effect(act: Act, *, config: Config) -> None:
    """Apply the oldest unfinished effect to its next agents. Do nothing if another server has done so meanwhile."""
    for number, _, body in _next_unfinished(act.tx):
        store.signals.set_position(act.tx, number, store.signals.EFFECTS)
        unfinished = _decode(body)
        registry.fill_entry(act, object=unfinished.issuer, effect=unfinished.effect.value, why=unfinished.why)
        _affect_next(act, unfinished, config=config)


def _next_unfinished(reader: Reader) -> list[tuple[int, int, bytes]]:
    position = store.signals.position(reader, store.signals.EFFECTS)
    return outbox.messages_after(reader, EFFECTS_TOPIC, position, count=1)


def _check_unfinished(reader: Reader, issuer: str) -> None:
    """Raise TooMuch if the issuer has `MAX_UNFINISHED` unfinished effects, so that an issuer cannot order work faster
    than the server continues it.
    """
    position = store.signals.position(reader, store.signals.EFFECTS)
    bodies = outbox.messages_after(reader, EFFECTS_TOPIC, position, count=MAX_ISSUERS * MAX_UNFINISHED)
    if sum(_decode(body).issuer == issuer for _, _, body in bodies) >= MAX_UNFINISHED:
        raise TooMuch("the issuer has too many unfinished effects", after_s=RETRY_S, hint="try again later")


def _affect_next(act: Act, unfinished: UnfinishedEffect, ours: Iterable[Agent] = (), *, config: Config) -> None:
    """Apply an effect to the active ones of `ours` and of the next `MAX_AGENTS` agents. If there are more agents, store
    the effect as unfinished.
    """
    agents = [
        agent
        for owner in unfinished.owners
        for agent in registry.list_agents_of_owner(act.tx, owner, after=unfinished.after, limit=MAX_AGENTS + 1)
    ]
    agents.sort(key=lambda agent: agent.agent_id)
    if has_more := len(agents) > MAX_AGENTS:
        del agents[MAX_AGENTS:]
        if not unfinished.after:
            _check_unfinished(act.tx, unfinished.issuer)
        outbox.emit(act.tx, EFFECTS_TOPIC, _encode(replace(unfinished, after=agents[-1].agent_id)))
    affected = [*ours, *(agent for agent in agents if agent.agent_id not in unfinished.named)]
    affected = [agent for agent in affected if agent.state is AgentState.ACTIVE]
    shown = [agent.agent_id for agent in affected[:SHOWN]]
    registry.fill_entry(act, object=unfinished.issuer, touched=shown, unfinished="yes" if has_more else "")
    for agent in affected:
        match unfinished.effect:
            case Effect.RAISE_RISK:
                _raise_risk(act, agent, unfinished.points, why=unfinished.why, config=config)
            case Effect.END:
                _end(act, agent, is_stopped=False, why=unfinished.why)
            case Effect.STOP:
                is_stopped = agent.agent_id in unfinished.named or agent.owner in unfinished.unstopped
                _end(act, agent, is_stopped=is_stopped, why=unfinished.why)
            case _:
                assert_never(unfinished.effect)


def _stop(act: Act, owner: str, *, why: str) -> bool:
    """Stop all agents of an owner, and all tasks on the owner's behalf, until a person lifts the stop (`ostiary kill
    list`). Return false if as many stops are in force as the server may add: the caller must then quarantine the agents
    one by one.
    """
    if any((stop.target_kind, stop.value) == ("owner", owner) for stop in registry.list_stops(act.tx)):
        return True
    try:
        acting.act_with_entry(act, "kill.start", lambda more: registry.stop(more, "owner", owner, why=why, by=None))
    except Conflict as refusal:
        if refusal.code != "too_many_stops":
            raise
        return False
    return True


def _raise_risk(act: Act, agent: Agent, points: int, *, why: str, config: Config) -> None:
    """Raise the risk score of the agent by a finding with `points`; the playbooks decide on a response, as for every
    finding.
    """
    noticed = Noticed(detector=SIGNAL, points=points, says=why[:MAX_SAYS])
    then = responder(config)
    acting.act_with_entry(
        act,
        "watch.find",
        lambda more: then(more, watch.record_finding(more, noticed, agent=agent.agent_id, task=None, entries=())),
    )


def _end(act: Act, agent: Agent, *, is_stopped: bool, why: str) -> None:
    """End all holdings of the agent; with `is_stopped`, quarantine the agent until a person decides.

    An agent that administers the server is not quarantined while no person could release it.
    """
    tasks.cancel_all(act, agent)
    if is_stopped and not would_lock_out(act.tx, agent):
        incidents.isolate(act, agent.agent_id, says=why, source=SIGNAL)
    else:
        registry.renew_tokens(act, agent, why=why)

"""What happens when an issuer tells us something: once for each token, for those of whom it may speak, on record."""

from __future__ import annotations

from typing import NoReturn

from msgspec.structs import replace

from ostiary.provenance.noticing import MAX_SAYS, Noticed
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import acting, incidents
from ostiaryd.incidents.flows.respond import responder, would_lock_out
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Person, Root, State
from ostiaryd.signals.model.issuers import Effect, Issuer, Named, effect, named, not_understood, short
from ostiaryd.signals.model.sets import (
    AHEAD,
    OLDEST,
    STREAM_UPDATED,
    VERIFICATION,
    SecurityEvent,
    SetRefused,
    digest,
)
from ostiaryd.signals.store import issuers as store
from ostiaryd.tasks import flows as tasks
from ostiaryd.watch import flows as watch

DETECTOR = "signal"
MANY = 500
"""Who has more agents has them stopped by one word, which is as good for a million."""
SHOWN = 20


def is_known(reader: Reader, issuer: Issuer, event: SecurityEvent) -> bool:
    """Return whether it was heard before: it may come again (RFC 8935 section 2), and does nothing then."""
    return store.is_seen(reader, digest(issuer.issuer, event.jti))


def hear(act: Act, id: str, event: SecurityEvent, *, config: Config) -> int:
    """Do what an event of that issuer says; to how many agents. Raises SetRefused where it is not trusted any more.

    1. The entry says what was heard. 2. Once. 3. What is about the stream itself. 4. Of whom it speaks, and may.
    5. What the event does to them.
    """
    issuer = store.get(act.tx, id)
    if issuer is None:
        raise SetRefused("the issuer is not trusted", code="invalid_issuer")
    registry.note(act, object=issuer.issuer_id, issuer=issuer.issuer, event=short(event.event), jti=event.jti)
    if not store.see(act.tx, digest(issuer.issuer, event.jti), until=event.at + OLDEST + AHEAD):
        registry.note(act, object=issuer.issuer_id, repeated="yes")
        return 0
    issuer = replace(issuer, heard=issuer.heard + 1, heard_at=act.now)
    if event.event in (VERIFICATION, STREAM_UPDATED):
        issuer = _about_stream(issuer, event, now=act.now)
    store.update(act.tx, issuer)
    if member := not_understood(issuer, event.subject):
        registry.note(act, object=issuer.issuer_id, discarded=f"the subject has a critical `{member}`")
        return 0
    whom = named(issuer, event.subject, ours=config.issuer)
    people, ours = _people(act.tx, issuer, whom), _agents(act.tx, whom)
    registry.note(
        act, object=issuer.issuer_id, persons=[p.person_id for p in people], agents=[a.agent_id for a in ours]
    )
    if len(people) == 1:
        act.entry.person = people[0].person_id
    if (due := effect(event)) is None:
        return 0
    registry.note(act, object=issuer.issuer_id, effect=due[0].value)
    return _carry_out(act, due, people, ours, why=f"{short(event.event)}, says {issuer.issuer}", config=config)


async def forget(world: World) -> None:
    """Forget security event tokens that every server of the database refuses for their age by now."""
    await world.writer.submit(lambda tx: store.forget_seen(tx, before=world.now.horizon))


def _about_stream(issuer: Issuer, event: SecurityEvent, *, now: int) -> Issuer:
    """SSF 8.1.4.1: the state must be the one that was asked for; without one the transmitter says that it is there."""
    if issuer.stream and event.subject != {"format": "opaque", "id": issuer.stream}:
        raise SetRefused("this is about another stream")
    if event.event == STREAM_UPDATED:
        status = event.claims.get("status")
        return replace(issuer, trouble="" if status == "enabled" else f"its stream is {str(status)[:32]}")
    state = event.claims.get("state")
    if state is not None and state != issuer.state:
        raise SetRefused("`state` is not the one that was asked for", code="invalid_state")
    return replace(issuer, verified_at=now, state=None if state is not None else issuer.state)


def _people(reader: Reader, issuer: Issuer, whom: Named) -> list[Person]:
    ids = [id for email in whom.emails for id in store.by_email(reader, email)]
    ids += [id for sub in whom.subs if (id := store.linked(reader, issuer.issuer_id, sub)) is not None]
    ids += [id for id in whom.ours if id.startswith("pe_")]
    found = (registry.get_person(reader, id) for id in dict.fromkeys(ids))
    return [person for person in found if person is not None]


def _agents(reader: Reader, whom: Named) -> list[Agent]:
    found = (registry.get_agent(reader, id) for id in dict.fromkeys(whom.ours) if id.startswith("ag_"))
    return [agent for agent in found if agent is not None]


def refuse(act: Act, issuer: Issuer, refusal: SetRefused) -> NoReturn:
    """Leave on record what was not taken. Raises it."""
    registry.note(act, object=issuer.issuer_id, issuer=issuer.issuer)
    raise refusal


def flood(act: Act, issuer: Issuer, *, refused: int) -> None:
    """It says far more than is taken: people hear of it by the entry, so often at most."""
    registry.note(act, object=issuer.issuer_id, issuer=issuer.issuer, refused=refused)


def _carry_out(
    act: Act, due: tuple[Effect, int], people: list[Person], ours: list[Agent], *, why: str, config: Config
) -> int:
    """What an event does to persons, to the agents that rest on them, and to agents that it names itself: how many."""
    what, points = due
    gone = [owner for person in people for owner in registry.leaving(act.tx, person)]
    owned = [agent for owner in gone for agent in registry.list_agents_of_owner(act.tx, owner.id)]
    if what is Effect.END and len(owned) > MANY:
        what = Effect.STOP
        registry.note(act, object=act.entry.object or "", effect=what.value)
    if what is Effect.STOP:
        for owner in {owner.id: owner for owner in gone}.values():
            _stop(act, owner.id, why=why)
    for person in people:
        tasks.cancel_for(act, person.person_id)
        registry.end_holdings(act, Root.AGENT, person.person_id, why=why)
    active = {one.agent_id: one for one in (*owned[:MANY], *ours) if one.state is State.ACTIVE}
    registry.note(act, object=act.entry.object or "", touched=list(active)[:SHOWN])
    for agent in active.values():
        if what is Effect.DOUBT:
            _doubt(act, agent, points, why=why, config=config)
        else:
            _end(act, agent, is_stopped=what is Effect.STOP and agent in ours, why=why)
    return len(active)


def _stop(act: Act, owner: str, *, why: str) -> None:
    """Everything of that owner, and on their behalf, stands still until a person lets go (`ostiary kill list`)."""
    if not any((stop.what, stop.value) == ("owner", owner) for stop in registry.all_stops(act.tx)):
        acting.beside(act, "kill.start", lambda more: registry.stop(more, "owner", owner, why=why, by=None))


def _doubt(act: Act, agent: Agent, points: int, *, why: str, config: Config) -> None:
    """As with everything that is noticed, playbooks say what is to be done at once."""
    noticed = Noticed(detector=DETECTOR, points=points, says=why[:MAX_SAYS])
    then = responder(config)
    acting.beside(
        act, "watch.find",
        lambda more: then(more, watch.find(more, noticed, agent=agent.agent_id, task=None, entries=())),
    )  # fmt: skip


def _end(act: Act, agent: Agent, *, is_stopped: bool, why: str) -> None:
    """All that it holds; and until a person says so it begins nothing, if it was named. An administrator's agent does,
    while no person could let it go again.
    """
    tasks.cancel_all(act, agent)
    if is_stopped and not would_lock_out(act.tx, agent):
        incidents.isolate(act, agent.agent_id, says=why, source=DETECTOR)
    else:
        registry.renew_tokens(act, agent, why=why)

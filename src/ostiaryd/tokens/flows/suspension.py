"""Suspension of a person: sessions, consents, tasks and tokens end in one act."""

from __future__ import annotations

from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Person
from ostiaryd.tasks import flows as tasks
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.consents import end_consent
from ostiaryd.trust.flows import sessions


def suspend_person(act: Act, id_or_name: str, *, why: str = "") -> Person:
    """Suspend a person: no agent acts for the person, and no login is accepted, until the person is resumed.

    The sessions, the consents with their grants, every task on behalf of the person, and the person's own tokens and
    unspent approvals end. Agents that the person owns continue to work. Raises NotFound for an unknown person, Conflict
    for a person who is not active.
    """
    # first: after this step no session is live
    sessions.end_sessions(act, registry.find_person(act.tx, id_or_name).person_id)
    person = registry.suspend_person(act, id_or_name, why=why)
    for consent in store.consents.list_consents(act.tx, person.person_id):
        end_consent(act, consent, why="person suspended")
    ended = tasks.cancel_for(act, person.person_id)
    registry.fill_entry(act, object=person.person_id, name=person.name, ended=dict(ended))
    return person

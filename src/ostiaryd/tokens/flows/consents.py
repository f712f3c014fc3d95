"""Consents: store, list and withdraw them. Also the agent that represents a client for one person, if no administrator
registered the client.
"""

from __future__ import annotations

import re

from ostiary.authorization.bounds import ToolDetail, is_within
from ostiary.protocol.errors import NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec, Root
from ostiaryd.tasks import flows as tasks
from ostiaryd.tokens import store
from ostiaryd.tokens.model import SECOND, InvalidRequest
from ostiaryd.tokens.model.authorization import IDENTITY_SCOPES
from ostiaryd.tokens.model.consent import LIFETIMES, Consent, Offer
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.clients import ClientKind, OAuthClient

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


def agent_of(act: Act, client: OAuthClient, person: str, *, scopes: frozenset[str]) -> str:
    """Return the id of the agent that acts for a person in the name of a client.

    If the client is an agent that an administrator registered, return that agent, whose scopes stay as they are. For
    any other client, each person has a separate agent, which is created at the person's first consent: the person owns
    the agent, and its scopes are those of the person's consents; `scopes` are added to them. Raises Forbidden if the
    agent may not act, NotFound, Invalid or Conflict if the person cannot own an agent.
    """
    if client.kind is ClientKind.AGENT:
        return registry.active_agent(act.tx, client.client_id, now=act.now).agent_id
    if (id := store.consents.agent_of(act.tx, client_id=client.client_id, person=person)) is not None:
        agent = registry.active_agent(act.tx, id, now=act.now)
        if not scopes <= agent.scopes:
            registry.set_scopes(act, id, sorted(agent.scopes | scopes))
        return agent.agent_id
    owner = registry.find_person(act.tx, person)
    agent = registry.create_agent(
        act,
        AgentSpec(
            name=_free_name(act, client.name, owner.name),
            owner=person,
            purpose=f"the client {client.name} for {owner.name}",
            scopes=sorted(scopes),
            is_keyless=True,
        ),
    )
    store.consents.put_agent(act.tx, client_id=client.client_id, person=person, agent=agent.agent_id)
    return agent.agent_id


def _free_name(act: Act, client: str, person: str) -> str:
    """Return an unused name for the agent that represents a client for a person. Names of deleted agents are not
    reused.
    """
    words = [_NOT_IN_NAMES.sub("-", text.lower()).strip("-")[:24].strip("-") for text in (client, person)]
    base = "-".join(filter(None, words)) or "client"
    return f"{base}-{act.tx.random(4).hex()}"


def remember(
    act: Act,
    client: OAuthClient,
    *,
    agent: str,
    person: str,
    offer: Offer,
    offered: frozenset[str],
    scopes: frozenset[str],
    details: tuple[ToolDetail, ...],
    seconds: int,
) -> Consent:
    """Store a person's consent to `scopes` and `details` (bounds) for `seconds`, and return it. `offered` are all
    scopes that the page showed.

    Scopes of an earlier consent in force that the page did not offer remain if the new bounds lie within the earlier
    bounds and the client has not changed. The consent then ends no later than the earlier one. If the new consent
    permits less than the earlier one or ends sooner, every grant on the earlier one ends. Raises InvalidRequest for a
    lifetime that is not offered.
    """
    if seconds not in LIFETIMES:
        raise InvalidRequest("the page does not offer this lifetime", hint="reload the page")
    trust.note_client_use(act.tx, client.client_id)
    old = store.consents.live(act.tx, person=person, client_id=client.client_id, resource=offer.resource)
    kept, expires_at = frozenset[str](), act.now + seconds * SECOND
    if old is not None and old.is_live(act.now) and old.digest == client.digest and _is_within(details, old):
        kept = old.scopes - offered
    if old is not None and kept:
        expires_at = min(expires_at, old.expires_at)
    consent = Consent(
        consent_id=act.new_id("co") if old is None else old.consent_id,
        client_id=client.client_id,
        client_name=client.name,
        person=person,
        agent=agent,
        resource=offer.resource,
        scopes=scopes | kept,
        details=details,
        digest=client.digest,
        granted_at=act.now,
        expires_at=expires_at,
    )
    if old is None:
        store.consents.put(act.tx, consent)
        return consent
    if not old.scopes <= consent.scopes or consent.expires_at < old.expires_at or not _is_wider(consent, old):
        _end_grants(act, consent, why="consent narrowed")
    store.consents.change(act.tx, consent)
    return consent


def _is_within(details: tuple[ToolDetail, ...], old: Consent) -> bool:
    return not old.details or (bool(details) and is_within(details, old.details))


def _is_wider(new: Consent, old: Consent) -> bool:
    return not new.details or (bool(old.details) and is_within(old.details, new.details))


def check_person(
    reader: Reader, client: OAuthClient, *, person: str, uri: str, scopes: frozenset[str], now: int
) -> None:
    """Check that the role policies permit a person to let a client act for them at the resource `uri`. With an empty
    `uri` (identity only), or the `uri` of no registered resource, do nothing.

    Raises Forbidden (`role_required`) if the check fails.
    """
    resource = registry.get_resource_by_uri(reader, uri) if uri else None
    if resource is not None:
        policy.check_consent(
            reader,
            person,
            resource,
            client=client.client_id,
            is_registered=client.kind is ClientKind.AGENT,
            scopes=scopes - set(IDENTITY_SCOPES),
            now=now,
        )


def withdraw(act: Act, id: str, *, person: str | None = None) -> Consent:
    """Withdraw a consent, and return it as it was before: its grants, tasks and tokens end in this act.

    If `person` (an id) is given, only a consent of that person is found. Raises NotFound if there is none.
    """
    consent = find_consent(act.tx, id)
    if person not in (None, consent.person):
        raise NotFound("consent not found", hint="list the consents: ostiary consent list")
    registry.fill_entry(act, object=consent.consent_id, client=consent.client_id, agent=consent.agent)
    act.entry.person = consent.person
    end_consent(act, consent, why="withdrawn")
    return consent


def end_consent(act: Act, consent: Consent, *, why: str) -> None:
    """End a consent, with all grants, tasks and tokens that were issued on the consent. `why` is recorded."""
    store.consents.end(act.tx, consent.consent_id, why=why)
    _end_grants(act, consent, why=f"consent {why}")


def end_client(act: Act, client_id: str, *, why: str) -> None:
    """End all consents to a client that was stopped or deleted, with all grants, tasks and tokens that were issued on
    the consents.
    """
    for consent in store.consents.of_client(act.tx, client_id):
        end_consent(act, consent, why=why)


def _end_grants(act: Act, consent: Consent, *, why: str) -> None:
    for grant in store.authorization.grants_of_consent(act.tx, consent.consent_id):
        end_grant(act, grant.grant_id, grant.task, why=why)


def end_grant(act: Act, id: str, task: str, *, why: str) -> None:
    """End a grant together with its refresh tokens, its access tokens and its task. `why` is recorded."""
    registry.end_holdings(act, Root.HOLDING, id, why=why)
    tasks.cancel(act, task)


def find_consent(reader: Reader, id: str) -> Consent:
    """Return a consent, ended or not. Raises NotFound for an unknown id."""
    if (consent := store.consents.get(reader, id)) is None:
        raise NotFound("consent not found", hint="list the consents: ostiary consent list")
    return consent

"""Keys of persons. With such a key a person signs answers to approval requests, and gets tokens."""

from __future__ import annotations

from collections import Counter

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.find import find_person
from ostiaryd.registry.flows.holdings import end_holdings
from ostiaryd.registry.flows.keys import MAX_KEYS, check_unknown_key
from ostiaryd.registry.flows.owners import active_person
from ostiaryd.registry.model import PersonId, PersonKey, Root


def add_person_key(act: Act, id_or_name: str, jwk: object) -> PersonKey:
    """Register and return a public key of a person. Raises NotFound for an unknown person, InvalidKey for an unusable
    key, and Conflict if the person is not active, the key was registered before, or there are too many keys.
    """
    person = active_person(act, id_or_name)
    public = jose.parse_public_jwk(jwk)
    fill_entry(act, object=person.person_id, key=public.thumbprint)
    if len(store.person_keys.list_active_person_keys(act.tx, person.person_id)) >= MAX_KEYS:
        raise Conflict(f"`{person.name}` has {MAX_KEYS} keys", hint="revoke a key first", code="too_many_keys")
    check_unknown_key(act, public.thumbprint)
    key = PersonKey(
        jkt=public.thumbprint,
        person=person.person_id,
        alg=public.alg,
        jwk=dict(public.jwk),
        added_at=act.now,
        revoked_at=None,
    )
    store.person_keys.insert(act.tx, key)
    return key


def revoke_person_key(act: Act, id_or_name: str, jkt: str) -> Counter[str]:
    """Revoke a key of a person, and end every unused approval that was signed with it and all tokens of the person;
    return the number of ended objects by kind.

    All tokens end, because they may have been requested with any key. Raises NotFound if the person never had the key.
    """
    person = find_person(act.tx, id_or_name)
    key = store.person_keys.get(act.tx, jkt)
    if key is None or key.person != person.person_id:
        hint = f"ostiary person keys {person.name}"
        raise NotFound(f"`{person.name}` has no key with this thumbprint (RFC 7638)", hint=hint)
    fill_entry(act, object=jkt, holder=person.person_id)
    store.person_keys.revoke(act.tx, jkt)
    return _end(act, person.person_id, jkt, why="key revoked")


def end_person(act: Act, person: PersonId, *, why: str, keeps_keys: bool = False) -> None:
    """End the keys, tokens and unused approvals of a person who leaves. A person who returns must register a new key.

    `keeps_keys`: true for a person who is suspended. The keys then stay registered, but are refused until the person is
    resumed.
    """
    end_holdings(act, Root.AGENT, person, why=why)
    for key in store.person_keys.list_active_person_keys(act.tx, person):
        if not keeps_keys:
            store.person_keys.revoke(act.tx, key.jkt)
        _end(act, person, key.jkt, why=why)


def is_revoked_key(reader: Reader, jkt: str | None) -> bool:
    """Return whether a person registered this key and the key was revoked."""
    key = None if jkt is None else store.person_keys.get(reader, jkt)
    return key is not None and key.revoked_at is not None


def _end(act: Act, person: PersonId, jkt: str, *, why: str) -> Counter[str]:
    """End all holdings of a person, and the unspent approvals that were signed with this key; return their numbers by
    kind.
    """
    return end_holdings(act, Root.AGENT, person, why=why) + end_holdings(act, Root.KEY, jkt, why=why)

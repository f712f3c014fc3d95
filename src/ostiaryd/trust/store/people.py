"""Login of people: sessions, passwords, authenticator apps, passkeys, recovery codes, setup links, failures.

Rows from before `person.logins_since` are void: a person who left and returns begins anew.
"""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.trust.model.sessions import Proof, Session
from ostiaryd.trust.model.throttle import NONE, Failures

_SESSION = """select s.id, s.person, s.proofs, s.network, s.browser, s.created_at, s.used_at, s.expires_at
    from person_session s join person p on p.person_id = s.person
    where p.state = 'active' and s.created_at > p.logins_since and s.ended_at is null
    and s.expires_at > :now and s.idle_until > :now """
_FIND_SESSION = sql(_SESSION + "and s.digest = :digest", steady=True)
_GET_SESSION = sql(_SESSION + "and s.id = :id")
_SESSIONS_OF = sql(_SESSION + "and s.person = :person order by s.used_at desc, s.id")
_ADD_SESSION = sql(
    """insert into person_session
       (id, digest, person, proofs, network, browser, created_at, used_at, idle_until, expires_at)
       values (:id, :digest, :person, :proofs, :network, :browser, :now, :now, :idle_until, :expires_at)"""
)
_USE_SESSION = sql(
    "update person_session set used_at = :now, idle_until = :idle_until where id = :id and used_at < :now"
)
_END_SESSION = sql("update person_session set ended_at = :now where id = :id and ended_at is null")
_DROP_EXPIRED_SESSIONS = sql(
    """delete from person_session where id in
       (select id from person_session where expires_at <= :now order by expires_at limit :limit) returning id"""
)

_PASSWORD = sql(
    """select c.hash from person_password c join person p on p.person_id = c.person
       where c.person = :person and p.state = 'active' and c.set_at > p.logins_since"""
)
_SET_PASSWORD = sql(
    """insert into person_password (person, hash, set_at) values (:person, :hash, :now)
       on conflict (person) do update set hash = excluded.hash, set_at = excluded.set_at"""
)
_DROP_PASSWORD = sql("delete from person_password where person = :person")

_LINK = sql(
    """select l.person, l.expires_at from setup_link l join person p on p.person_id = l.person
       where l.digest = :digest and l.expires_at > :now and p.state = 'active' and l.created_at > p.logins_since"""
)
_ADD_LINK = sql(
    "insert into setup_link (digest, person, created_at, expires_at) values (:digest, :person, :now, :expires_at)"
)
_DROP_LINKS = sql("delete from setup_link where person = :person")
_DROP_EXPIRED_LINKS = sql("delete from setup_link where expires_at <= :now returning person")
_ANY_EXPIRED = sql(
    """select 1 where exists (select 1 from person_session where expires_at <= :now)
       or exists (select 1 from setup_link where expires_at <= :now)"""
)

_FAILURES = sql("select failures, failed_at from login_throttle where slot = :slot")
_SET_FAILURES = sql(
    """insert into login_throttle (slot, failures, failed_at) values (:slot, :failures, :at)
       on conflict (slot) do update set failures = excluded.failures, failed_at = excluded.failed_at"""
)
_DROP_FAILURES = sql("delete from login_throttle where slot = :slot")
_PRUNE_FAILURES = sql("delete from login_throttle where failed_at <= :before")

_encode = msgspec.json.Encoder().encode
_decode = json_decoder(tuple[Proof, ...])


def find_session(reader: Reader, digest: bytes, *, now: int) -> Session | None:
    """Return the live session of an active person by the digest of its cookie."""
    row = reader.one(_FIND_SESSION, digest=digest, now=now)
    return None if row is None else _session(row)


def get_session(reader: Reader, id: str, *, now: int) -> Session | None:
    """Return the live session of an active person by its id."""
    row = reader.one(_GET_SESSION, id=id, now=now)
    return None if row is None else _session(row)


def sessions_of(reader: Reader, person: str, *, now: int) -> list[Session]:
    """Return the live sessions of a person, the last used first."""
    return [_session(row) for row in reader.all(_SESSIONS_OF, person=person, now=now)]


def add_session(tx: Tx, one: Session, digest: bytes, *, idle_until: int) -> None:
    """Store a new session under the digest of its cookie."""
    tx.touch("session", one.id)
    tx.run(
        _ADD_SESSION,
        id=one.id,
        digest=digest,
        person=one.person,
        proofs=_encode(one.proofs).decode(),
        network=one.network,
        browser=one.browser,
        now=one.created_at,
        idle_until=idle_until,
        expires_at=one.expires_at,
    )


def use_session(tx: Tx, id: str, *, idle_until: int) -> None:
    """Record a use of a session."""
    tx.run(_USE_SESSION, id=id, now=tx.now, idle_until=idle_until)


def end_session(tx: Tx, id: str) -> bool:
    """End a session; return whether it had not ended before. Its row stays until its expiry."""
    tx.touch("session", id)
    return bool(tx.run(_END_SESSION, id=id, now=tx.now))


def any_expired(reader: Reader, *, now: int) -> bool:
    """Return whether a session or a setup link has expired and is stored still."""
    return reader.one(_ANY_EXPIRED, now=now) is not None


def drop_expired(tx: Tx, *, now: int, limit: int) -> int:
    """Delete at most `limit` sessions that have expired, and every such setup link; return their number."""
    sessions = tx.all(_DROP_EXPIRED_SESSIONS, now=now, limit=limit)
    links = tx.all(_DROP_EXPIRED_LINKS, now=now)
    for (id,) in sessions:
        tx.touch("session", id)
    for (person,) in links:
        tx.touch("setup_link", person)
    return len(sessions) + len(links)


def password(reader: Reader, person: str) -> str | None:
    """Return the hash of the password of an active person, as a PHC string."""
    row = reader.one(_PASSWORD, person=person)
    return None if row is None else str(row[0])


def set_password(tx: Tx, person: str, hash: str) -> None:
    """Store the hash of a password."""
    tx.touch("password", person)
    tx.run(_SET_PASSWORD, person=person, hash=hash, now=tx.now)


def drop_password(tx: Tx, person: str) -> None:
    """Delete the password of a person."""
    tx.touch("password", person)
    tx.run(_DROP_PASSWORD, person=person)


def find_setup_link(reader: Reader, digest: bytes, *, now: int) -> str | None:
    """Return the person that a setup link is for; None if it was used, has expired, or the person has left."""
    row = reader.one(_LINK, digest=digest, now=now)
    return None if row is None else str(row[0])


def add_setup_link(tx: Tx, digest: bytes, *, person: str, expires_at: int) -> None:
    """Store a setup link, which replaces every earlier one of the person."""
    tx.touch("setup_link", person)
    tx.run(_DROP_LINKS, person=person)
    tx.run(_ADD_LINK, digest=digest, person=person, now=tx.now, expires_at=expires_at)


def drop_setup_links(tx: Tx, person: str) -> None:
    """Delete the setup links of a person."""
    tx.touch("setup_link", person)
    tx.run(_DROP_LINKS, person=person)


def failures(reader: Reader, slot: str) -> Failures:
    """Return the failures of a slot."""
    row = reader.one(_FAILURES, slot=slot)
    return NONE if row is None else Failures(*row)


def set_failures(tx: Tx, slot: str, one: Failures) -> None:
    """Store the failures of a slot."""
    tx.run(_SET_FAILURES, slot=slot, failures=one.number, at=one.at)


def drop_failures(tx: Tx, slot: str) -> None:
    """Forget the failures of a slot."""
    tx.run(_DROP_FAILURES, slot=slot)


def prune_failures(tx: Tx, *, before: int) -> int:
    """Forget failures before that instant; return the number of slots."""
    return tx.run(_PRUNE_FAILURES, before=before)


def _session(row: Row) -> Session:
    id, person, proofs, network, browser, created_at, used_at, expires_at = row
    return Session(
        id=id,
        person=person,
        proofs=_decode(proofs),
        network=network,
        browser=browser,
        created_at=created_at,
        used_at=used_at,
        expires_at=expires_at,
    )

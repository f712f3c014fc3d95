"""Stored data of logins: sessions, passwords, authenticator apps, passkeys, recovery codes, setup links, failed logins.

Rows from before `person.logins_since` are not valid, so that a person who left and returns must set up a new login.
While the kill switch stops a person, the person's sessions are not valid, but can be ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.trust.model.passkeys import Passkey
from ostiaryd.trust.model.sessions import Proof, Session
from ostiaryd.trust.model.throttle import NONE, Failures

_UNENDED = """select s.id, s.person, s.proofs, s.network, s.browser, s.created_at, s.used_at, s.expires_at
    from person_session s join person p on p.person_id = s.person
    where p.state = 'active' and s.created_at > p.logins_since and s.ended_at is null
    and s.expires_at > :now and s.idle_until > :now """
_SESSION = _UNENDED + "and not exists (select 1 from stop where what = 'owner' and value = s.person) "
_FIND_SESSION = sql(_SESSION + "and s.digest = :digest", steady=True)
_GET_SESSION = sql(_SESSION + "and s.id = :id")
_SESSIONS_OF = sql(_SESSION + "and s.person = :person order by s.used_at desc, s.id")
_GET_UNENDED = sql(_UNENDED + "and s.id = :id")
_UNENDED_OF = sql(_UNENDED + "and s.person = :person order by s.id")
_ALL_UNENDED = sql(_UNENDED + "order by s.id")
_ADD_SESSION = sql(
    """insert into person_session
       (id, digest, person, proofs, network, browser, created_at, used_at, idle_until, expires_at)
       values (:id, :digest, :person, :proofs, :network, :browser, :now, :now, :idle_until, :expires_at)"""
)
_RENEW_SESSION = sql(
    """update person_session set digest = :digest, proofs = :proofs, network = :network, browser = :browser,
       created_at = :now, used_at = :now, idle_until = :idle_until, expires_at = :expires_at where id = :id"""
)
_USE_SESSION = sql(
    "update person_session set used_at = :now, idle_until = :idle_until where id = :id and used_at < :now"
)
_ENDED_SESSIONS = sql(
    """select id, person from person_session where ended_at is not null and closed_at is null
       order by ended_at limit :limit"""
)
_CLOSE_SESSION = sql("update person_session set closed_at = :now where id = :id")
_LIVE_SESSIONS = sql("select id from person_session where ended_at is null order by id")
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

_TOTP = sql(
    """select c.sealed, c.last_step from person_totp c join person p on p.person_id = c.person
       where c.person = :person and p.state = 'active' and c.set_at > p.logins_since"""
)
_SET_TOTP = sql(
    """insert into person_totp (person, sealed, set_at, last_step) values (:person, :sealed, :now, :step)
       on conflict (person) do update
       set sealed = excluded.sealed, set_at = excluded.set_at, last_step = excluded.last_step"""
)
_USE_TOTP = sql("update person_totp set last_step = :step where person = :person and last_step < :step")
_USE_ALL_TOTP = sql("update person_totp set last_step = :step where last_step < :step")
_DROP_TOTP = sql("delete from person_totp where person = :person")

_PASSKEY = """select c.id, c.person, c.name, c.public_key, c.sign_count, c.transports, c.added_at, c.used_at
    from person_passkey c join person p on p.person_id = c.person
    where p.state = 'active' and c.added_at > p.logins_since """
_FIND_PASSKEY = sql(_PASSKEY + "and c.id = :id")
_PASSKEYS_OF = sql(_PASSKEY + "and c.person = :person order by c.added_at, c.id")
_IS_PASSKEY = sql("select 1 from person_passkey where id = :id")
_ADD_PASSKEY = sql(
    """insert into person_passkey (id, person, name, public_key, sign_count, transports, added_at)
       values (:id, :person, :name, :public_key, :sign_count, :transports, :now)"""
)
_USE_PASSKEY = sql("update person_passkey set sign_count = :sign_count, used_at = :now where id = :id")
_DROP_PASSKEY = sql("delete from person_passkey where id = :id and person = :person")
_PASSKEY_IDS = sql("select id from person_passkey where person = :person")

_COUNT_RECOVERY = sql(
    """select count(*) from recovery_code c join person p on p.person_id = c.person
       where c.person = :person and p.state = 'active' and c.made_at > p.logins_since"""
)
_RECOVERY = sql(
    """select 1 from recovery_code c join person p on p.person_id = c.person
       where c.digest = :digest and c.person = :person and p.state = 'active' and c.made_at > p.logins_since"""
)
_ADD_RECOVERY = sql("insert into recovery_code (digest, person, made_at) values (:digest, :person, :now)")
_USE_RECOVERY = sql(
    """delete from recovery_code where digest = :digest and person = :person
       and made_at > (select logins_since from person where person_id = :person)"""
)
_DROP_RECOVERY = sql("delete from recovery_code where person = :person")
_DROP_ALL_RECOVERY = sql("delete from recovery_code")

_LINK = sql(
    """select l.person, l.expires_at from setup_link l join person p on p.person_id = l.person
       where l.digest = :digest and l.expires_at > :now and p.state = 'active' and l.created_at > p.logins_since"""
)
_ADD_LINK = sql(
    "insert into setup_link (digest, person, created_at, expires_at) values (:digest, :person, :now, :expires_at)"
)
_DROP_LINKS = sql("delete from setup_link where person = :person")
_DROP_ALL_LINKS = sql("delete from setup_link returning person")
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
    """Return the live session of an active person, whom no kill switch stops, by the digest of its cookie; None if
    there is no such session.
    """
    row = reader.one(_FIND_SESSION, digest=digest, now=now)
    return None if row is None else _session(row)


def get_session(reader: Reader, id: str, *, now: int) -> Session | None:
    """Return the live session of an active person, whom no kill switch stops, by its id; None if there is no such
    session.
    """
    row = reader.one(_GET_SESSION, id=id, now=now)
    return None if row is None else _session(row)


def sessions_of(reader: Reader, person: str, *, now: int) -> list[Session]:
    """Return the live sessions of a person, the last used first."""
    return [_session(row) for row in reader.all(_SESSIONS_OF, person=person, now=now)]


def get_unended(reader: Reader, id: str, *, now: int) -> Session | None:
    """Return a session by its id if it has neither ended nor expired, even if the kill switch stops its person;
    otherwise None.
    """
    row = reader.one(_GET_UNENDED, id=id, now=now)
    return None if row is None else _session(row)


def unended_sessions(reader: Reader, *, now: int, person: str | None = None) -> list[Session]:
    """Return the sessions of a person (of all persons for None) that have neither ended nor expired, even if the kill
    switch stops the person.
    """
    if person is None:
        return [_session(row) for row in reader.all(_ALL_UNENDED, now=now)]
    return [_session(row) for row in reader.all(_UNENDED_OF, person=person, now=now)]


def add_session(tx: Tx, one: Session, digest: bytes, *, idle_until: int) -> None:
    """Store a new session with the digest of its cookie."""
    tx.touch("session", one.id)
    tx.send(_ADD_SESSION, person=one.person, **_login_values(one, digest, idle_until=idle_until))


def renew_session(tx: Tx, one: Session, digest: bytes, *, idle_until: int) -> None:
    """Store a new cookie digest and the proofs of a new login for an existing session."""
    tx.touch("session", one.id)
    tx.send(_RENEW_SESSION, **_login_values(one, digest, idle_until=idle_until))


def _login_values(one: Session, digest: bytes, *, idle_until: int) -> dict[str, object]:
    return {
        "id": one.id,
        "digest": digest,
        "proofs": _encode(one.proofs).decode(),
        "network": one.network,
        "browser": one.browser,
        "now": one.created_at,
        "idle_until": idle_until,
        "expires_at": one.expires_at,
    }


def use_session(tx: Tx, id: str, *, idle_until: int) -> None:
    """Record a use of a session, and postpone its idle timeout to `idle_until` (microseconds)."""
    tx.send(_USE_SESSION, id=id, now=tx.now, idle_until=idle_until)


def end_session(tx: Tx, id: str) -> bool:
    """End a session; return whether it had not been ended before. The row is kept until the session expires."""
    tx.touch("session", id)
    return bool(tx.run(_END_SESSION, id=id, now=tx.now))


def list_not_ended(reader: Reader) -> list[str]:
    """Return the ids of all sessions that were not ended, including expired ones."""
    return [id for (id,) in reader.all(_LIVE_SESSIONS)]


def list_ended_sessions(reader: Reader, *, limit: int) -> list[tuple[str, str]]:
    """Return (id, person) of at most `limit` sessions that have ended and for which `close_session` was not called yet,
    in the order of their ends.
    """
    return [(id, person) for id, person in reader.all(_ENDED_SESSIONS, limit=limit)]


def close_session(tx: Tx, id: str) -> None:
    """Record that all grants and tokens of an ended session have ended."""
    tx.send(_CLOSE_SESSION, id=id, now=tx.now)


def any_expired(reader: Reader, *, now: int) -> bool:
    """Return whether an expired session or setup link is still stored."""
    return reader.one(_ANY_EXPIRED, now=now) is not None


def drop_expired(tx: Tx, *, now: int, limit: int) -> int:
    """Delete at most `limit` expired sessions, and all expired setup links; return the number of deleted rows."""
    sessions = tx.all(_DROP_EXPIRED_SESSIONS, now=now, limit=limit)
    links = tx.all(_DROP_EXPIRED_LINKS, now=now)
    for (id,) in sessions:
        tx.touch("session", id)
    for (person,) in links:
        tx.touch("setup_link", person)
    return len(sessions) + len(links)


def password(reader: Reader, person: str) -> str | None:
    """Return the hash of the password of an active person, as a PHC string; None without a password."""
    row = reader.one(_PASSWORD, person=person)
    return None if row is None else str(row[0])


def set_password(tx: Tx, person: str, hash: str) -> None:
    """Store the hash of a password."""
    tx.touch("password", person)
    tx.send(_SET_PASSWORD, person=person, hash=hash, now=tx.now)


def drop_password(tx: Tx, person: str) -> None:
    """Delete the password of a person."""
    tx.touch("password", person)
    tx.send(_DROP_PASSWORD, person=person)


def totp(reader: Reader, person: str) -> tuple[bytes, int] | None:
    """Return the encrypted secret of an active person's authenticator app, and the step of the last accepted code; None
    without an app.
    """
    row = reader.one(_TOTP, person=person)
    return None if row is None else (bytes(row[0]), row[1])


def set_totp(tx: Tx, person: str, sealed: bytes, *, step: int) -> None:
    """Store the encrypted secret of an authenticator app, and the step of its first code."""
    tx.touch("totp", person)
    tx.send(_SET_TOTP, person=person, sealed=sealed, step=step, now=tx.now)


def use_totp(tx: Tx, person: str, *, step: int) -> bool:
    """Record the time step of a code as used; return false if a code of this step or a later step was used before."""
    return bool(tx.run(_USE_TOTP, person=person, step=step))


def drop_totp(tx: Tx, person: str) -> None:
    """Delete the authenticator app of a person."""
    tx.touch("totp", person)
    tx.send(_DROP_TOTP, person=person)


def find_passkey(reader: Reader, id: str) -> Passkey | None:
    """Return a passkey of an active person by its credential id; None if there is no such passkey."""
    row = reader.one(_FIND_PASSKEY, id=id)
    return None if row is None else _passkey(row)


def passkeys_of(reader: Reader, person: str) -> list[Passkey]:
    """Return the passkeys of a person, the oldest first; an empty list if the person is not active."""
    return [_passkey(row) for row in reader.all(_PASSKEYS_OF, person=person)]


def is_passkey(reader: Reader, id: str) -> bool:
    """Return whether a passkey with this credential id is stored, for whichever person."""
    return reader.one(_IS_PASSKEY, id=id) is not None


def add_passkey(tx: Tx, one: Passkey) -> None:
    """Store a new passkey."""
    tx.touch("passkey", one.id)
    tx.send(
        _ADD_PASSKEY,
        id=one.id,
        person=one.person,
        name=one.name,
        public_key=one.public_key,
        sign_count=one.sign_count,
        transports=one.transports,
        now=tx.now,
    )


def use_passkey(tx: Tx, id: str, *, sign_count: int) -> None:
    """Record that a passkey was used now, and the authenticator's counter `sign_count`."""
    tx.send(_USE_PASSKEY, id=id, sign_count=sign_count, now=tx.now)


def drop_passkey(tx: Tx, id: str, *, person: str) -> bool:
    """Delete a passkey of a person; return whether the passkey existed."""
    tx.touch("passkey", id)
    return bool(tx.run(_DROP_PASSKEY, id=id, person=person))


def count_recovery_codes(reader: Reader, person: str) -> int:
    """Return the number of unused recovery codes of a person."""
    row = reader.one(_COUNT_RECOVERY, person=person)
    return 0 if row is None else int(row[0])


def has_recovery_code(reader: Reader, digest: bytes, *, person: str) -> bool:
    """Return whether the digest is that of an unused recovery code of a person."""
    return reader.one(_RECOVERY, digest=digest, person=person) is not None


def set_recovery_codes(tx: Tx, person: str, digests: Sequence[bytes]) -> None:
    """Replace the recovery codes of a person by the codes with these digests; without digests, delete all codes."""
    tx.send(_DROP_RECOVERY, person=person)
    for digest in digests:
        tx.send(_ADD_RECOVERY, digest=digest, person=person, now=tx.now)


def use_recovery_code(tx: Tx, digest: bytes, *, person: str) -> bool:
    """Delete a recovery code of a person; return whether the code was stored."""
    return bool(tx.run(_USE_RECOVERY, digest=digest, person=person))


def drop_credentials(tx: Tx, person: str) -> None:
    """Delete the password, the authenticator app, the passkeys, recovery codes and setup links of a person."""
    drop_password(tx, person)
    drop_totp(tx, person)
    for (id,) in tx.all(_PASSKEY_IDS, person=person):
        drop_passkey(tx, id, person=person)
    set_recovery_codes(tx, person, ())
    drop_setup_links(tx, person)


def find_setup_link(reader: Reader, digest: bytes, *, now: int) -> str | None:
    """Return the id of the person to whom a setup link belongs. Return None if the link was used or has expired, or if
    the person is not active.
    """
    row = reader.one(_LINK, digest=digest, now=now)
    return None if row is None else str(row[0])


def add_setup_link(tx: Tx, digest: bytes, *, person: str, expires_at: int) -> None:
    """Store a setup link of a person; delete the person's earlier links."""
    tx.touch("setup_link", person)
    tx.send(_DROP_LINKS, person=person)
    tx.send(_ADD_LINK, digest=digest, person=person, now=tx.now, expires_at=expires_at)


def drop_setup_links(tx: Tx, person: str) -> None:
    """Delete the setup links of a person."""
    tx.touch("setup_link", person)
    tx.send(_DROP_LINKS, person=person)


def drop_single_use(tx: Tx, *, step: int) -> None:
    """Delete the setup links and recovery codes of all persons, and mark the codes of authenticator apps until the time
    step `step` as used.
    """
    for (person,) in tx.all(_DROP_ALL_LINKS):
        tx.touch("setup_link", person)
    tx.send(_DROP_ALL_RECOVERY)
    tx.send(_USE_ALL_TOTP, step=step)


def failures(reader: Reader, slot: str) -> Failures:
    """Return the failures of a throttle slot."""
    row = reader.one(_FAILURES, slot=slot)
    return NONE if row is None else Failures(*row)


def set_failures(tx: Tx, slot: str, one: Failures) -> None:
    """Store the number of failures of a throttle slot, and the time of the last one."""
    tx.send(_SET_FAILURES, slot=slot, failures=one.number, at=one.at)


def drop_failures(tx: Tx, slot: str) -> None:
    """Delete the failures of a throttle slot."""
    tx.send(_DROP_FAILURES, slot=slot)


def prune_failures(tx: Tx, *, before: int) -> int:
    """Delete the throttle slots whose last failure was at `before` (microseconds) or earlier; return their number."""
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


def _passkey(row: Row) -> Passkey:
    id, person, name, public_key, sign_count, transports, added_at, used_at = row
    return Passkey(id, person, name, bytes(public_key), sign_count, transports, added_at, used_at)

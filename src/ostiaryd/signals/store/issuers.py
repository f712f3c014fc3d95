"""Tables of the issuers of signals, of their `sub`s linked to persons, and of the tokens received from them."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.signals.model.issuers import Issuer, IssuerId

_COLUMNS = (
    "issuer_id, issuer, audience, jwks_uri, method, endpoint, secret_digest, sealed, domains, names_agents, critical, "
    "stream, configuration_endpoint, verification_endpoint, state, verified_at, trouble, created_at, heard, heard_at, "
    "attempts, due_at, busy_until"
)
_NAMES = _COLUMNS.split(", ")
_ATTRIBUTES = {"heard": "received", "heard_at": "received_at"}
"""Attributes whose database columns have another, earlier name."""
_VALUES = ", ".join(f":{name}" for name in _NAMES)
_SET = ", ".join(f"{name} = :{name}" for name in _NAMES[1:])
_ALL = sql(f"select {_COLUMNS} from ssf_issuer order by issuer_id")
_GET = sql(f"select {_COLUMNS} from ssf_issuer where issuer_id = :id")
_BY_NAME = sql(f"select {_COLUMNS} from ssf_issuer where issuer = :issuer")
_INSERT = sql(f"insert into ssf_issuer ({_COLUMNS}) values ({_VALUES})")
_UPDATE = sql(f"update ssf_issuer set {_SET} where issuer_id = :issuer_id")
_CLAIM = sql(
    """update ssf_issuer set busy_until = :until
       where issuer_id = :id and busy_until <= :now and due_at <= :now"""
)
_DELETE = sql("delete from ssf_issuer where issuer_id = :id")
_UNLINK_ALL = sql("delete from ssf_identity where issuer = :issuer")
_LINK = sql(
    """insert into ssf_identity (issuer, sub, person) values (:issuer, :sub, :person)
       on conflict (issuer, sub) do update set person = excluded.person"""
)
_UNLINK = sql("delete from ssf_identity where issuer = :issuer and sub = :sub")
_LINKED = sql("select person from ssf_identity where issuer = :issuer and sub = :sub")
_LINKS = sql("select sub, person from ssf_identity where issuer = :issuer and sub > :after order by sub limit :limit")
_BY_EMAIL = sql("select person_id from person where lower(email) = :email order by person_id limit :limit")
_SEEN = sql("select count(*) from ssf_seen where digest = :digest")
_SEE = sql("insert into ssf_seen (digest, until) values (:digest, :until) on conflict (digest) do nothing")
_FORGET = sql("delete from ssf_seen where until <= :before")
SHARED = 10
"""Maximum number of persons that one e-mail address may stand for."""


def issuers(reader: Reader) -> list[Issuer]:
    """Return all issuers."""
    return [_issuer(row) for row in reader.all(_ALL)]


def get(reader: Reader, id_or_url: str) -> Issuer | None:
    """Return the issuer with this id or, if the argument contains `/`, with this URL; None if there is none."""
    by_url = "/" in id_or_url
    row = reader.one(_BY_NAME, issuer=id_or_url) if by_url else reader.one(_GET, id=id_or_url)
    return None if row is None else _issuer(row)


def insert(tx: Tx, issuer: Issuer) -> None:
    """Insert a new issuer."""
    tx.run(_INSERT, **_columns(issuer))


def update(tx: Tx, issuer: Issuer) -> None:
    """Update an issuer."""
    tx.run(_UPDATE, **_columns(issuer))


def delete(tx: Tx, id: IssuerId) -> None:
    """Delete an issuer and its links to persons."""
    tx.run(_UNLINK_ALL, issuer=id)
    tx.run(_DELETE, id=id)


def claim(tx: Tx, id: IssuerId, *, until: int) -> bool:
    """Claim the next poll for this process until `until` (microseconds). Return False if another process has the claim,
    or the poll is not due.
    """
    return tx.run(_CLAIM, id=id, until=until, now=tx.now) == 1


def link(tx: Tx, id: IssuerId, sub: str, person: str) -> None:
    """Link a subject (`sub`) of the issuer to a person, so that signals about the subject concern the person."""
    tx.run(_LINK, issuer=id, sub=sub, person=person)


def unlink(tx: Tx, id: IssuerId, sub: str) -> bool:
    """Delete a link; return whether the link existed."""
    return tx.run(_UNLINK, issuer=id, sub=sub) == 1


def links(reader: Reader, id: IssuerId, *, after: str, limit: int) -> list[tuple[str, str]]:
    """Return at most `limit` links of the issuer as (`sub`, person id), sorted by `sub`, after the `sub` in `after`."""
    return [(sub, person) for sub, person in reader.all(_LINKS, issuer=id, after=after, limit=limit)]


def find_linked_person(reader: Reader, id: IssuerId, sub: str) -> str | None:
    """Return the id of the person to whom this `sub` of the issuer is linked; None if there is none."""
    row = reader.one(_LINKED, issuer=id, sub=sub)
    return None if row is None else str(row[0])


def find_persons(reader: Reader, email: str) -> list[str]:
    """Return the ids of the persons with this e-mail address (in lower case), at most `SHARED`."""
    return [id for (id,) in reader.all(_BY_EMAIL, email=email, limit=SHARED)]


def was_received(reader: Reader, digest: bytes) -> bool:
    """Return whether a security event token with this digest was received before."""
    row = reader.one(_SEEN, digest=digest)
    return row is not None and row[0] > 0


def remember_received(tx: Tx, digest: bytes, *, until: int) -> bool:
    """Remember a received token until `until` (microseconds). Return False if the server remembers the
    token already.
    """
    return tx.run(_SEE, digest=digest, until=until) == 1


def forget_received(tx: Tx, *, before: int) -> int:
    """Delete the records of tokens that the server had to remember until `before` (microseconds) or an earlier time;
    return the number of deleted records.
    """
    return tx.run(_FORGET, before=before)


def _columns(issuer: Issuer) -> dict[str, object]:
    columns = {name: getattr(issuer, _ATTRIBUTES.get(name, name)) for name in _NAMES}
    spelled = {name: " ".join(columns[name]) for name in ("domains", "critical")}
    return columns | spelled | {"names_agents": int(issuer.names_agents)}


def _issuer(row: Row) -> Issuer:
    columns = dict(zip(_NAMES, row, strict=True))
    for name in ("domains", "critical"):
        columns[name] = tuple(columns[name].split())
    for name in ("secret_digest", "sealed"):
        columns[name] = None if columns[name] is None else bytes(columns[name])
    values = {_ATTRIBUTES.get(name, name): value for name, value in columns.items()}
    return Issuer(**values | {"names_agents": bool(columns["names_agents"])})

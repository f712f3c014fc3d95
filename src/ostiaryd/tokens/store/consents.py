"""Stored consents, and the agents that represent clients that no administrator registered, each for one person."""

from __future__ import annotations

import msgspec

from ostiary.authorization.bounds import parse_details, render_details
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.tokens.model.consent import Consent

_COLUMNS = ", ".join(Consent.__struct_fields__)
_SINCE = "granted_at > (select logins_since from person where person_id = consent.person)"
"""SQL condition: the consent was granted after the person's logins last became valid. A consent from before a departure
of the person stays void, even after the person's return.
"""
_GET = sql(f"select {_COLUMNS} from consent where consent_id = :consent_id", steady=True)
_LIVE = sql(
    f"""select {_COLUMNS} from consent
        where person = :person and client_id = :client_id and resource = :resource and ended_at is null and {_SINCE}""",
    steady=True,
)
_ANY = sql("select 1 from consent where person = :person and client_id = :client_id and ended_at is null limit 1")
_PUT = sql(f"insert into consent ({_COLUMNS}) values ({', '.join(f':{name}' for name in Consent.__struct_fields__)})")
_CHANGE = sql(
    """update consent set client_name = :client_name, scopes = :scopes, details = :details, digest = :digest,
       granted_at = :granted_at, expires_at = :expires_at where consent_id = :consent_id"""
)
_END = sql("update consent set ended_at = :now, ended_why = :why where consent_id = :consent_id and ended_at is null")
_END_VOID = sql(
    """update consent set ended_at = :now, ended_why = 'person left'
       where person = :person and client_id = :client_id and resource = :resource and ended_at is null"""
)
_END_ALL = sql("update consent set ended_at = :now, ended_why = :why where ended_at is null")
_PAGE = sql(
    f"""select {_COLUMNS} from consent where consent_id > :after and ended_at is null and {_SINCE}
        order by consent_id limit :limit"""
)
_PAGE_OF = sql(
    f"""select {_COLUMNS} from consent where person = :person and consent_id > :after and ended_at is null
        and {_SINCE} order by consent_id limit :limit"""
)
_OF_PERSON = sql(
    f"""select {_COLUMNS} from consent where person = :person and ended_at is null and {_SINCE}
        order by granted_at desc, consent_id"""
)
_OF_CLIENT = sql(f"select {_COLUMNS} from consent where client_id = :client_id and ended_at is null")
_NAMES = sql("select distinct client_name from consent where person = :person and client_id <> :client_id")
_PRUNE = sql("delete from consent where expires_at < :before or ended_at < :before", prunes=True)
_AGENT = sql("select agent from client_agent where client_id = :client_id and person = :person")
_PUT_AGENT = sql("insert into client_agent (client_id, person, agent) values (:client_id, :person, :agent)")


def get(reader: Reader, id: str) -> Consent | None:
    """Return a consent by its id, including ended consents; None if there is none."""
    return reader.one_as(_GET, _consent, consent_id=id)


def live(reader: Reader, *, person: str, client_id: str, resource: str) -> Consent | None:
    """Return the consent of a person to a client at a resource that was not withdrawn, even if it has expired; None if
    there is none.
    """
    return reader.one_as(_LIVE, _consent, person=person, client_id=client_id, resource=resource)


def has_any(reader: Reader, *, person: str, client_id: str) -> bool:
    """Return whether a person has given a client a consent, at any resource, that was not withdrawn. An expired consent
    counts.
    """
    return reader.one(_ANY, person=person, client_id=client_id) is not None


def put(tx: Tx, consent: Consent) -> None:
    """Store a new consent. An earlier consent of the person to the same client and resource, which is void since the
    person left, ends.
    """
    tx.send(_END_VOID, person=consent.person, client_id=consent.client_id, resource=consent.resource, now=tx.now)
    tx.send(_PUT, **_values(consent))


def change(tx: Tx, consent: Consent) -> None:
    """Store the changed scopes, bounds, client metadata and times of an existing consent."""
    values = _values(consent)
    tx.send(_CHANGE, **{name: values[name] for name in _CHANGE.names})


def end(tx: Tx, id: str, *, why: str) -> bool:
    """End a consent; return false if it was withdrawn or ended before."""
    return tx.run(_END, consent_id=id, why=why, now=tx.now) == 1


def end_all_consents(tx: Tx, *, why: str) -> int:
    """End every consent of every person that was not withdrawn; return the number of ended consents."""
    return tx.run(_END_ALL, why=why, now=tx.now)


def page_consents(reader: Reader, page: Page, *, person: str | None) -> list[Consent]:
    """Return a page of the consents that were not withdrawn: those of `person`, or of all persons for None."""
    if person is None:
        return [_consent(row) for row in reader.all(_PAGE, after=page.after, limit=page.limit)]
    rows = reader.all(_PAGE_OF, person=person, after=page.after, limit=page.limit)
    return [_consent(row) for row in rows]


def list_consents(reader: Reader, person: str) -> list[Consent]:
    """Return the consents of a person that were not withdrawn, newest first. Expired consents are included until they
    are deleted, a day later.
    """
    return [_consent(row) for row in reader.all(_OF_PERSON, person=person)]


def of_client(reader: Reader, client_id: str) -> list[Consent]:
    """Return the consents to a client that were not withdrawn."""
    return [_consent(row) for row in reader.all(_OF_CLIENT, client_id=client_id)]


def client_names(reader: Reader, *, person: str, without: str) -> list[str]:
    """Return the names of the clients, except the client `without`, in a person's stored consents, live or ended."""
    return [name for (name,) in reader.all(_NAMES, person=person, client_id=without)]


def prune(tx: Tx, *, before: int) -> int:
    """Delete consents that expired or were ended before `before` (microseconds); return their number."""
    return tx.run(_PRUNE, before=before)


def agent_of(reader: Reader, *, client_id: str, person: str) -> str | None:
    """Return the id of the agent that represents, for a person, a client that no administrator registered; None if
    there is none.
    """
    row = reader.one(_AGENT, client_id=client_id, person=person)
    return None if row is None else str(row[0])


def put_agent(tx: Tx, *, client_id: str, person: str, agent: str) -> None:
    """Store the agent that represents, for a person, a client that no administrator registered."""
    tx.send(_PUT_AGENT, client_id=client_id, person=person, agent=agent)


def _values(consent: Consent) -> dict[str, object]:
    values = {name: getattr(consent, name) for name in Consent.__struct_fields__}
    details = msgspec.json.encode(render_details(consent.details)).decode()
    return values | {"scopes": " ".join(sorted(consent.scopes)), "details": details}


def _consent(row: Row) -> Consent:
    values = dict(zip(Consent.__struct_fields__, row, strict=True))
    values["scopes"] = frozenset(values["scopes"].split())
    values["details"] = parse_details(msgspec.json.decode(values["details"]))
    return Consent(**values)

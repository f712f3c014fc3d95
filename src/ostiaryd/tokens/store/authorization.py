"""Stored authorization requests, authorization codes, and the grants that codes become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.tokens.model.authorization import AuthorizationRequest
from ostiaryd.tokens.model.refresh import PersonGrant

_decode = json_decoder(AuthorizationRequest)

_GET_REQUEST = sql(
    "select request, created_at, expires_at, used_at from authorization_request where reference = :reference",
    keys="reference",
)
_COUNT = sql(
    """select count(*) from authorization_request
       where network = :network and network <> '' and expires_at > :now and used_at is null"""
)
_PUT_REQUEST = sql(
    """insert into authorization_request (reference, client_id, request, network, created_at, expires_at)
       values (:reference, :client_id, :request, :network, :now, :expires_at)""",
    keys="reference",
)
_USE_REQUEST = sql("update authorization_request set used_at = :now where reference = :reference", keys="reference")
_PRUNE_REQUESTS = sql("delete from authorization_request where expires_at < :before", prunes=True)


class StoredRequest(NamedTuple):
    """A stored authorization request, without its reference. Times are in microseconds."""

    request: AuthorizationRequest
    created_at: int
    expires_at: int
    used_at: int | None


def get_request(reader: Reader, reference: str) -> StoredRequest | None:
    """Return a stored request by its database key, the key of its reference; None if there is none."""
    row = reader.one(_GET_REQUEST, reference=reference)
    return None if row is None else StoredRequest(_decode(row[0]), *row[1:])


def count_requests(reader: Reader, *, network: str, now: int) -> int:
    """Return the number of unanswered requests from a network that have not expired."""
    row = reader.one(_COUNT, network=network, now=now)
    assert row is not None
    return int(row[0])


def put_request(tx: Tx, reference: str, request: AuthorizationRequest, *, network: str, expires_at: int) -> None:
    """Store a request under `reference`, the database key of its reference. `expires_at` is in microseconds."""
    tx.late(_PUT_REQUEST, (reference, request.client_id, _encode(request), network, tx.now, expires_at))


def use_request(tx: Tx, reference: str) -> bool:
    """Mark an authorization request as answered. Return true if this act is the first to answer it; false if the
    request is unknown or was answered before.
    """
    stored = get_request(tx, reference)
    if stored is None or stored.used_at is not None:
        return False
    tx.late(_USE_REQUEST, (tx.now, reference))
    return True


def prune(tx: Tx, *, before: int, codes_before: int) -> int:
    """Delete expired rows, and return their number: authorization requests and grants that expired before `before`
    (microseconds), and codes that expired before `codes_before`. Until then, a second use of a code is detected.
    """
    return (
        tx.run(_PRUNE_REQUESTS, before=before)
        + tx.run(_PRUNE_CODES, before=codes_before)
        + tx.run(_PRUNE_GRANTS, before=before)
    )


_GET_CODE = sql(
    """select consent, session, request, acr, amr, authenticated_at, expires_at, used_at, grant_id
       from authorization_code where code = :code""",
    keys="code",
)
_PUT_CODE = sql(
    """insert into authorization_code
         (code, consent, session, request, acr, amr, authenticated_at, created_at, expires_at)
       values (:code, :consent, :session, :request, :acr, :amr, :authenticated_at, :now, :expires_at)""",
    keys="code",
)
_USE_CODE = sql("update authorization_code set used_at = :now, grant_id = :grant_id where code = :code", keys="code")
_PRUNE_CODES = sql("delete from authorization_code where expires_at < :before", prunes=True)


class Code(NamedTuple):
    """An authorization code as stored, without its secret; times are in microseconds. `grant_id` is the grant that the
    code became.
    """

    consent: str
    session: str
    request: AuthorizationRequest
    acr: str
    amr: tuple[str, ...]
    authenticated_at: int
    expires_at: int
    used_at: int | None = None
    grant_id: str | None = None


def get_code(reader: Reader, code: str) -> Code | None:
    """Return an authorization code by its database key; None if there is none."""
    row = reader.one(_GET_CODE, code=code)
    if row is None:
        return None
    consent, session, request, acr, amr, authenticated_at, expires_at, used_at, grant_id = row
    return Code(
        consent, session, _decode(request), acr, tuple(amr.split()), authenticated_at, expires_at, used_at, grant_id
    )


def put_code(tx: Tx, key: str, code: Code) -> None:
    """Store an authorization code under its database key."""
    tx.late(
        _PUT_CODE,
        (
            key,
            code.consent,
            code.session,
            _encode(code.request),
            code.acr,
            " ".join(code.amr),
            code.authenticated_at,
            tx.now,
            code.expires_at,
        ),
    )


def use_code(tx: Tx, key: str, *, grant_id: str) -> None:
    """Mark an authorization code as used for a grant. The act must have read the code before."""
    tx.late(_USE_CODE, (tx.now, grant_id, key))


_GRANT_COLUMNS = ", ".join(PersonGrant.__struct_fields__)
_GET_GRANT = sql(f"select {_GRANT_COLUMNS} from oauth_grant where grant_id = :id", keys="id")
_GET_WITH_END = sql(
    f"""select {", ".join(f"oauth_grant.{name}" for name in PersonGrant.__struct_fields__)},
         holding.expires_at, holding.ended_at
        from oauth_grant left join holding on holding.id = grant_id where grant_id = :id""",
    keys="id",
)
_OF_CONSENT = sql(f"select {_GRANT_COLUMNS} from oauth_grant where consent = :consent order by grant_id")
_OF_TASK = sql(
    f"""select {", ".join(f"oauth_grant.{name}" for name in PersonGrant.__struct_fields__)}
        from consent join oauth_grant on oauth_grant.consent = consent.consent_id
        where consent.person = :person and consent.client_id = :client_id and consent.ended_at is null
          and oauth_grant.task = :task"""
)
_OF_SESSION = sql(f"select {_GRANT_COLUMNS} from oauth_grant where session = :session order by grant_id")
_PUT_GRANT = sql(
    f"""insert into oauth_grant ({_GRANT_COLUMNS})
        values (:id, {", ".join(f":{name}" for name in PersonGrant.__struct_fields__[1:])})""",
    keys="id consent",
)
_ROTATE = sql(
    """update oauth_grant set sequence = :sequence, rotated_at = :now, rotated_from = :network
       where grant_id = :id and consent = :consent""",
    keys="id consent",
)
_COUNT_GRANTS = sql("select count(*) from oauth_grant where consent = :consent", keys="consent")
_DELETE_GRANT = sql("delete from oauth_grant where grant_id = :grant_id")
_PRUNE_GRANTS = sql("delete from oauth_grant where expires_at < :before", prunes=True)


def get_grant(reader: Reader, id: str) -> PersonGrant | None:
    """Return a grant by its id; None if there is none."""
    row = reader.one(_GET_GRANT, id=id)
    return None if row is None else _grant(row)


def get_live_grant(reader: Reader, id: str, *, now: int) -> tuple[PersonGrant, bool] | None:
    """Return a grant by its id, and whether its holding has neither ended nor expired at `now` (microseconds); None if
    there is no grant.
    """
    row = reader.one(_GET_WITH_END, id=id)
    if row is None:
        return None
    *grant, expires_at, ended_at = row
    return _grant(grant), expires_at is not None and ended_at is None and now < expires_at


def grants_of_consent(reader: Reader, consent: str) -> list[PersonGrant]:
    """Return the grants of a consent, including ended grants."""
    return [_grant(row) for row in reader.all(_OF_CONSENT, consent=consent)]


def count_grants(reader: Reader, consent: str) -> int:
    """Return the number of grants of a consent, including ended grants."""
    row = reader.one(_COUNT_GRANTS, consent=consent)
    assert row is not None
    return int(row[0])


def delete_grant(tx: Tx, id: str) -> None:
    """Delete a grant that has ended."""
    tx.send(_DELETE_GRANT, grant_id=id)


def grant_of_task(reader: Reader, task: str, *, person: str, client_id: str) -> PersonGrant | None:
    """Return a grant of this person and client whose task is `task`; None if there is none, or if its consent was
    withdrawn.
    """
    row = reader.one(_OF_TASK, task=task, person=person, client_id=client_id)
    return None if row is None else _grant(row)


def grants_of_session(reader: Reader, session: str) -> list[PersonGrant]:
    """Return the grants of a login session, including ended grants."""
    return [_grant(row) for row in reader.all(_OF_SESSION, session=session)]


def put_grant(tx: Tx, grant: PersonGrant) -> None:
    """Store a new grant."""
    values = {name: getattr(grant, name) for name in PersonGrant.__struct_fields__}
    values |= {"request": _encode(grant.request), "amr": " ".join(grant.amr), "is_offline": int(grant.is_offline)}
    tx.late(_PUT_GRANT, list(values.values()))


def rotate(tx: Tx, grant: PersonGrant, *, network: str) -> PersonGrant:
    """Increase the sequence number of a grant's refresh token by one in the database, and return the changed grant.
    `network`: the network of the request. The act must have read the grant before.
    """
    tx.late(_ROTATE, (grant.sequence + 1, tx.now, network, grant.grant_id, grant.consent))
    return msgspec.structs.replace(grant, sequence=grant.sequence + 1)


def _grant(row: Sequence[Any]) -> PersonGrant:
    values = dict(zip(PersonGrant.__struct_fields__, row, strict=True))
    values["request"] = _decode(values["request"])
    values["amr"] = tuple(values["amr"].split())
    values["is_offline"] = bool(values["is_offline"])
    return PersonGrant(**values)


def _encode(request: AuthorizationRequest) -> str:
    return msgspec.json.encode(request).decode()

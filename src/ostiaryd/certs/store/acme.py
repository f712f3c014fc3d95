"""The tables of ACME: MAC keys, accounts, orders and authorizations."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ostiaryd.certs.model.acme import (
    AccountStatus,
    AcmeAccount,
    AcmeKey,
    Authorization,
    AuthorizationStatus,
    Order,
    OrderStatus,
    Problem,
)
from ostiaryd.certs.model.certificate import decode_names, encode_names
from ostiaryd.certs.model.names import CertificateName
from ostiaryd.ground.database import Reader, Row, Tx, sql

_KEY_COLUMNS = "kid, holder, profile, names, sealed, created_at, expires_at, account, revoked_at"
_KEY = sql(f"select {_KEY_COLUMNS} from acme_key where kid = :kid")
_KEYS = sql(f"select {_KEY_COLUMNS} from acme_key where kid > :after order by kid limit :limit")
_UNUSED_KEYS = sql(
    """select count(*) from acme_key where holder = :holder and account is null and revoked_at is null
       and expires_at > :now"""
)
_ADD_KEY = sql(
    """insert into acme_key (kid, holder, profile, names, sealed, created_at, expires_at)
       values (:kid, :holder, :profile, :names, :sealed, :now, :expires_at)"""
)
_USE_KEY = sql("update acme_key set account = :account where kid = :kid and account is null")
_UNUSED = sql("select kid from acme_key where account is null and revoked_at is null")
_REVOKE_KEY = sql("update acme_key set revoked_at = :now where kid = :kid")

_ACCOUNT_COLUMNS = "id, jkt, jwk, holder, kid, contacts, status, created_at"
_ACCOUNT = sql(f"select {_ACCOUNT_COLUMNS} from acme_account where id = :id", steady=True)
_ACCOUNT_OF_KEY = sql(f"select {_ACCOUNT_COLUMNS} from acme_account where jkt = :jkt")
_ADD_ACCOUNT = sql(
    """insert into acme_account (id, jkt, jwk, holder, kid, contacts, status, created_at)
       values (:id, :jkt, :jwk, :holder, :kid, :contacts, :status, :now)"""
)
_CHANGE_ACCOUNT = sql("update acme_account set contacts = :contacts, status = :status where id = :id")
_CHANGE_KEY = sql("update acme_account set jkt = :jkt, jwk = :jwk where id = :id")

_ORDER_COLUMNS = "id, account, status, identifiers, not_after, replaces, created_at, expires_at, problem, serial"
_ORDER = sql(f"select {_ORDER_COLUMNS} from acme_order where id = :id")
_ORDERS = sql("select id from acme_order where account = :account and id > :after order by id limit :limit")
_OPEN_ORDERS = sql(
    """select count(*) from acme_order where account = :account and status in ('pending', 'ready')
       and expires_at > :now"""
)
_REPLACING = sql("select count(*) from acme_order where replaces = :id and status <> 'invalid'")
_OF_CERTIFICATE = sql("select count(*) from acme_order where account = :account and serial = :serial")
_ADD_ORDER = sql(
    """insert into acme_order (id, account, status, identifiers, not_after, replaces, created_at, expires_at)
       values (:id, :account, :status, :identifiers, :not_after, :replaces, :now, :expires_at)"""
)
_CHANGE_ORDER = sql(
    """update acme_order set status = :status, problem = :problem, serial = :serial, expires_at = :expires_at
       where id = :id"""
)

_AUTHORIZATION_COLUMNS = (
    "id, order_id, account, name, status, expires_at, token, challenge, problem, validated_at, attempts, due_at"
)
_AUTHORIZATION = sql(f"select {_AUTHORIZATION_COLUMNS} from acme_authorization where id = :id")
_AUTHORIZATIONS = sql(f"select {_AUTHORIZATION_COLUMNS} from acme_authorization where order_id = :order_id order by id")
_IS_PROVED = sql(
    """select count(*) from acme_authorization
       where account = :account and name = :name and status = 'valid' and expires_at > :now"""
)
_ADD_AUTHORIZATION = sql(
    """insert into acme_authorization
         (id, order_id, account, name, status, expires_at, token, challenge, attempts, due_at, busy_until)
       values (:id, :order_id, :account, :name, 'pending', :expires_at, :token, '', 0, 0, 0)"""
)
_CHANGE_AUTHORIZATION = sql(
    """update acme_authorization set status = :status, expires_at = :expires_at, challenge = :challenge,
         problem = :problem, validated_at = :validated_at, attempts = :attempts, due_at = :due_at, busy_until = 0
       where id = :id"""
)
_DUE = sql(
    f"""select {_AUTHORIZATION_COLUMNS} from acme_authorization
        where status = 'processing' and due_at <= :now and busy_until <= :now order by due_at limit :limit"""
)
_CLAIM = sql(
    """update acme_authorization set busy_until = :until
       where id = :id and status = 'processing' and due_at <= :now and busy_until <= :now"""
)
_POSTPONE = sql(
    """update acme_authorization set attempts = attempts + 1, due_at = :due_at, busy_until = 0
       where id = :id and status = 'processing'"""
)
_EXPIRED = sql("select id from acme_order where expires_at < :before order by expires_at limit :limit")
_DROP_AUTHORIZATIONS = sql("delete from acme_authorization where order_id = :id")
_DROP_ORDER = sql("delete from acme_order where id = :id")


def get_key(reader: Reader, kid: str) -> AcmeKey | None:
    """Return a MAC key by its id; None if there is none."""
    return reader.one_as(_KEY, _key, kid=kid)


def list_keys(reader: Reader, *, after: str, limit: int) -> list[AcmeKey]:
    """Return at most `limit` MAC keys, sorted by id, whose ids are after `after`."""
    return [_key(row) for row in reader.all(_KEYS, after=after, limit=limit)]


def count_unused_keys(reader: Reader, holder: str, *, now: int) -> int:
    """Return the number of MAC keys of a holder that are unused, unrevoked and unexpired."""
    row = reader.one(_UNUSED_KEYS, holder=holder, now=now)
    assert row is not None
    return int(row[0])


def add_key(tx: Tx, key: AcmeKey) -> None:
    """Store a new MAC key."""
    tx.run(
        _ADD_KEY,
        kid=key.kid,
        holder=key.holder,
        profile=key.profile,
        names=" ".join(key.names),
        sealed=key.sealed,
        now=key.created_at,
        expires_at=key.expires_at,
    )
    tx.touch("acme_key", key.kid)


def use_key(tx: Tx, kid: str, *, account: str) -> bool:
    """Record that a MAC key has created this account. Return False if the key has created an account before."""
    tx.touch("acme_key", kid)
    return tx.run(_USE_KEY, kid=kid, account=account) == 1


def unused_keys(reader: Reader) -> list[str]:
    """Return the ids of the MAC keys of all holders that have created no account and are not revoked."""
    return [kid for (kid,) in reader.all(_UNUSED)]


def revoke_key(tx: Tx, kid: str) -> None:
    """Mark a MAC key as revoked."""
    tx.run(_REVOKE_KEY, kid=kid, now=tx.now)
    tx.touch("acme_key", kid)


def get_account(reader: Reader, id: str) -> AcmeAccount | None:
    """Return an account by its id; None if there is none."""
    return reader.one_as(_ACCOUNT, _account, id=id)


def get_account_of_key(reader: Reader, jkt: str) -> AcmeAccount | None:
    """Return the account whose key has the thumbprint `jkt`; None if there is none."""
    return reader.one_as(_ACCOUNT_OF_KEY, _account, jkt=jkt)


def add_account(tx: Tx, account: AcmeAccount) -> None:
    """Store a new account."""
    tx.run(
        _ADD_ACCOUNT,
        id=account.account_id,
        jkt=account.jkt,
        jwk=json.dumps(account.jwk),
        holder=account.holder,
        kid=account.kid,
        contacts=json.dumps(account.contacts),
        status=account.status,
        now=account.created_at,
    )
    tx.touch("acme_account", account.account_id)


def change_account(tx: Tx, account: AcmeAccount) -> None:
    """Update the contacts and the status of an account."""
    contacts = json.dumps(account.contacts)
    tx.run(_CHANGE_ACCOUNT, id=account.account_id, contacts=contacts, status=account.status)
    tx.touch("acme_account", account.account_id)


def change_account_key(tx: Tx, id: str, *, jkt: str, jwk: dict[str, str]) -> None:
    """Replace the key of an account. The caller has checked that no other account has the new key."""
    tx.run(_CHANGE_KEY, id=id, jkt=jkt, jwk=json.dumps(jwk))
    tx.touch("acme_account", id)


def get_order(reader: Reader, id: str) -> Order | None:
    """Return an order by its id; None if there is none."""
    return reader.one_as(_ORDER, _order, id=id)


def list_orders(reader: Reader, account: str, *, after: str, limit: int) -> list[str]:
    """Return at most `limit` ids of an account's orders, sorted, after the id `after`."""
    return [id for (id,) in reader.all(_ORDERS, account=account, after=after, limit=limit)]


def count_open_orders(reader: Reader, account: str, *, now: int) -> int:
    """Return the number of orders of an account that can still be finalized."""
    row = reader.one(_OPEN_ORDERS, account=account, now=now)
    assert row is not None
    return int(row[0])


def is_replaced(reader: Reader, certificate_id: str) -> bool:
    """Return whether an order that is not invalid replaces the certificate with this ARI identifier."""
    row = reader.one(_REPLACING, id=certificate_id)
    return row is not None and row[0] > 0


def has_order(reader: Reader, account: str, serial: str) -> bool:
    """Return whether the certificate with the serial number `serial` was issued for an order of the account."""
    row = reader.one(_OF_CERTIFICATE, account=account, serial=serial)
    return row is not None and row[0] > 0


def add_order(tx: Tx, order: Order, authorizations: Sequence[Authorization]) -> None:
    """Store a new order with its authorizations."""
    tx.run(
        _ADD_ORDER,
        id=order.order_id,
        account=order.account,
        status=order.status,
        identifiers=encode_names(order.identifiers),
        not_after=order.not_after,
        replaces=order.replaces,
        now=order.created_at,
        expires_at=order.expires_at,
    )
    for one in authorizations:
        tx.run(
            _ADD_AUTHORIZATION,
            id=one.authorization_id,
            order_id=one.order,
            account=one.account,
            name=str(one.identifier),
            expires_at=one.expires_at,
            token=one.token,
        )


def change_order(tx: Tx, order: Order) -> None:
    """Replace the stored status, problem, certificate and expiry of an order."""
    tx.run(
        _CHANGE_ORDER,
        id=order.order_id,
        status=order.status,
        problem=_dump(order.problem),
        serial=order.serial,
        expires_at=order.expires_at,
    )


def get_authorization(reader: Reader, id: str) -> Authorization | None:
    """Return an authorization by its id; None if there is none."""
    return reader.one_as(_AUTHORIZATION, _authorization, id=id)


def list_authorizations(reader: Reader, order: str) -> list[Authorization]:
    """Return the authorizations of an order, sorted by their ids."""
    return [_authorization(row) for row in reader.all(_AUTHORIZATIONS, order_id=order)]


def is_proved(reader: Reader, account: str, name: CertificateName, *, now: int) -> bool:
    """Return whether an account has a valid, unexpired authorization for a name."""
    row = reader.one(_IS_PROVED, account=account, name=str(name), now=now)
    return row is not None and row[0] > 0


def change_authorization(tx: Tx, authorization: Authorization) -> None:
    """Update an authorization, and end the claim on its validation."""
    tx.run(
        _CHANGE_AUTHORIZATION,
        id=authorization.authorization_id,
        status=authorization.status,
        expires_at=authorization.expires_at,
        challenge=authorization.challenge,
        problem=_dump(authorization.problem),
        validated_at=authorization.validated_at,
        attempts=authorization.attempts,
        due_at=authorization.due_at,
    )


def list_due(reader: Reader, *, now: int, limit: int) -> list[Authorization]:
    """Return at most `limit` ACME authorizations whose validation is due at `now` (microseconds), the oldest first."""
    return [_authorization(row) for row in reader.all(_DUE, now=now, limit=limit)]


def claim(tx: Tx, id: str, *, until: int) -> bool:
    """Claim a validation for this process until `until` (microseconds). Return False if another process has the
    claim.
    """
    return tx.run(_CLAIM, id=id, now=tx.now, until=until) == 1


def postpone(tx: Tx, id: str, *, due_at: int) -> None:
    """Count a failed attempt of a validation, and schedule the next attempt at `due_at` (microseconds)."""
    tx.run(_POSTPONE, id=id, due_at=due_at)


def prune(tx: Tx, *, before: int, limit: int) -> int:
    """Delete up to `limit` orders that expired before `before` (microseconds), with their authorizations;
    return the number of deleted orders.
    """
    rows = tx.all(_EXPIRED, before=before, limit=limit)
    for (id,) in rows:
        tx.run(_DROP_AUTHORIZATIONS, id=id)
        tx.run(_DROP_ORDER, id=id)
    return len(rows)


def _key(row: Row) -> AcmeKey:
    kid, holder, profile, names, sealed, created_at, expires_at, account, revoked_at = row
    return AcmeKey(
        kid=kid,
        holder=holder,
        profile=profile,
        names=tuple(names.split()),
        sealed=bytes(sealed),
        created_at=created_at,
        expires_at=expires_at,
        account=account,
        revoked_at=revoked_at,
    )


def _account(row: Row) -> AcmeAccount:
    id, jkt, jwk, holder, kid, contacts, status, created_at = row
    return AcmeAccount(
        account_id=id,
        jkt=jkt,
        jwk=json.loads(jwk),
        holder=holder,
        kid=kid,
        contacts=tuple(json.loads(contacts)),
        status=AccountStatus(status),
        created_at=created_at,
    )


def _order(row: Row) -> Order:
    id, account, status, identifiers, not_after, replaces, created_at, expires_at, problem, serial = row
    return Order(
        order_id=id,
        account=account,
        status=OrderStatus(status),
        identifiers=decode_names(identifiers),
        not_after=not_after,
        replaces=replaces,
        created_at=created_at,
        expires_at=expires_at,
        problem=_load(problem),
        serial=serial,
    )


def _authorization(row: Row) -> Authorization:
    id, order, account, name, status, expires_at, token, challenge, problem, validated_at, attempts, due_at = row
    return Authorization(
        authorization_id=id,
        order=order,
        account=account,
        identifier=decode_names(name)[0],
        status=AuthorizationStatus(status),
        expires_at=expires_at,
        token=token,
        challenge=challenge,
        problem=_load(problem),
        validated_at=validated_at,
        attempts=attempts,
        due_at=due_at,
    )


def _dump(problem: Problem | None) -> str | None:
    return None if problem is None else json.dumps(problem)


def _load(text: str | None) -> Problem | None:
    return None if text is None else Problem(*json.loads(text))

"""Providers at which persons connect accounts, the connected accounts, and the access tokens of leases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Sql, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.secrets.model.connected_account import AccountProvider, AccountState, ConnectedAccount
from ostiaryd.secrets.model.sealing import Envelope

_PROVIDER = sql("select settings, removed_at from account_provider where name = :name")
_PROVIDERS = sql("select settings, removed_at from account_provider order by name")
_REMOVED = sql("select settings, removed_at from account_provider where removed_at is not null order by name")
_SECRET = sql("select wrapped_key, sealed from account_provider where name = :name and sealed is not null")
_INSERT_PROVIDER = sql(
    """insert into account_provider (name, settings, wrapped_key, sealed, added_at)
       values (:name, :settings, :wrapped_key, :sealed, :added_at)"""
)
_SETTINGS = sql("update account_provider set settings = :settings where name = :name")
_SET_SECRET = sql("update account_provider set wrapped_key = :wrapped_key, sealed = :sealed where name = :name")
_REMOVE = sql("update account_provider set removed_at = :now where name = :name and removed_at is null")
_DELETE_PROVIDER = sql("delete from account_provider where name = :name")

_COLUMNS = ", ".join(ConnectedAccount.__struct_fields__)
_ACCOUNT = sql(f"select {_COLUMNS} from connected_account where account_id = :id")
_OF_PERSON = sql(f"select {_COLUMNS} from connected_account where person = :person and provider = :provider")
_ALL_OF_PERSON = sql(f"select {_COLUMNS} from connected_account where person = :person order by provider")
_PAGE = sql(f"select {_COLUMNS} from connected_account where account_id > :after order by account_id limit :limit")
_PAGE_OF_PERSON = sql(
    f"""select {_COLUMNS} from connected_account where person = :person and account_id > :after
        order by account_id limit :limit"""
)
_OF_PROVIDER = sql(
    f"""select {_COLUMNS} from connected_account where provider = :provider
        order by state = 'ending', account_id limit :limit"""
)
_INSERT = sql(
    f"""insert into connected_account ({_COLUMNS}, wrapped_key, sealed, token_key, token, claimed_until)
        values ({", ".join(f":{name}" for name in ConnectedAccount.__struct_fields__)},
                :wrapped_key, :sealed, :token_key, :token, 0)"""
)
_DELETE = sql("delete from connected_account where account_id = :id")
_REFRESH_TOKEN = sql("select wrapped_key, sealed from connected_account where account_id = :id")
_SHARED_TOKEN = sql("select token_key, token from connected_account where account_id = :id")
_CLAIM = sql(
    """update connected_account set claimed_until = :until
       where account_id = :id and state = 'active' and claimed_until <= :now"""
)
_RELEASE = sql("update connected_account set claimed_until = 0 where account_id = :id and rotation = :rotation")
_ROTATE = sql(
    """update connected_account set wrapped_key = :wrapped_key, sealed = :sealed, rotation = rotation + 1
       where account_id = :id and rotation = :rotation"""
)
_REFRESHED = sql("update connected_account set refreshed_at = :now, claimed_until = 0 where account_id = :id")
_SHARE = sql(
    """update connected_account set token_key = :wrapped_key, token = :sealed, token_expires_at = :expires_at
       where account_id = :id"""
)
_SET_STATE = sql(
    """update connected_account set state = :state, error = :error, due_at = :now, attempts = 0
       where account_id = :id"""
)
_DUE = sql(
    f"""select {_COLUMNS} from connected_account where state = 'ending' and due_at <= :now and claimed_until <= :now
        order by due_at limit :limit"""
)
_CLAIM_END = sql(
    """update connected_account set due_at = :until where account_id = :id and state = 'ending' and due_at <= :now"""
)
_POSTPONE = sql(
    """update connected_account set attempts = :attempts, due_at = :due_at, error = :error
       where account_id = :id and state = 'ending'"""
)
_LEFT = sql(
    f"""select {", ".join(f"connected_account.{name}" for name in ConnectedAccount.__struct_fields__)}
        from person join connected_account on connected_account.person = person.person_id
        where person.logins_since > 0 and person.logins_since >= :since
        and connected_account.connected_at <= person.logins_since and connected_account.state <> 'ending'
        limit :limit"""
)

_INSERT_TOKEN = sql(
    """insert into account_token (lease_id, account, scopes, wrapped_key, sealed, expires_at)
       values (:lease_id, :account, :scopes, :wrapped_key, :sealed, :expires_at)"""
)
_TOKEN = sql("select account, scopes, wrapped_key, sealed, expires_at from account_token where lease_id = :id")
_SET_TOKEN = sql(
    """update account_token set wrapped_key = :wrapped_key, sealed = :sealed, expires_at = :expires_at
       where lease_id = :id"""
)
_LEASED = sql(
    """select account_token.lease_id from account_token join lease on lease.lease_id = account_token.lease_id
       where account_token.account = :account and account_token.scopes = :scopes and account_token.expires_at > :until
       and lease.agent = :agent and lease.task = :task and lease.state = 'live' and lease.expires_at > :until
       order by lease.expires_at desc limit 1"""
)
_LEASES = sql("select lease_id from account_token where account = :account and lease_id > :after limit :limit")
_AGENTS = sql(
    """select distinct lease.agent from account_token join lease on lease.lease_id = account_token.lease_id
       where account_token.account = :account and lease.state = 'live' order by lease.agent limit :limit"""
)
_decode_provider = json_decoder(AccountProvider)


class LeasedToken(NamedTuple):
    """The access token of a lease. `secret` is None if the token was not fetched, or if the lease uses the account's
    access token that all agents share. `expires_at`: microseconds since the epoch.
    """

    account: str
    scopes: frozenset[str]
    secret: Envelope | None
    expires_at: int


# --- providers


def provider(reader: Reader, name: str) -> AccountProvider | None:
    """Return the provider `name`, even if it is marked as removed; None if there is none."""
    row = reader.one(_PROVIDER, name=name)
    return None if row is None else _provider(row)


def providers(reader: Reader, *, is_removed: bool = False) -> list[AccountProvider]:
    """Return all providers, sorted by name; with `is_removed`, only the providers that are marked as removed."""
    return [_provider(row) for row in reader.all(_REMOVED if is_removed else _PROVIDERS)]


def client_secret(reader: Reader, name: str) -> Envelope | None:
    """Return the encrypted client secret of a provider; None if there is none."""
    row = reader.one(_SECRET, name=name)
    return None if row is None else _envelope(row)


def insert_provider(tx: Tx, new: AccountProvider, secret: Envelope | None) -> None:
    """Insert a provider."""
    tx.touch("account_provider", new.name)
    tx.run(
        _INSERT_PROVIDER,
        name=new.name,
        settings=msgspec.json.encode(new).decode(),
        wrapped_key=None if secret is None else secret.wrapped_key,
        sealed=None if secret is None else secret.sealed,
        added_at=new.added_at,
    )


def update_provider(tx: Tx, changed: AccountProvider) -> None:
    """Replace the settings of a provider."""
    tx.touch("account_provider", changed.name)
    tx.run(_SETTINGS, name=changed.name, settings=msgspec.json.encode(changed).decode())


def set_secret(tx: Tx, name: str, secret: Envelope) -> None:
    """Replace the client secret of a provider."""
    tx.run(_SET_SECRET, name=name, wrapped_key=secret.wrapped_key, sealed=secret.sealed)


def remove_provider(tx: Tx, name: str) -> bool:
    """Mark a provider as removed. Return False if the provider is marked already."""
    tx.touch("account_provider", name)
    return tx.run(_REMOVE, name=name, now=tx.now) == 1


def delete_provider(tx: Tx, name: str) -> None:
    """Delete a provider that has no accounts."""
    tx.touch("account_provider", name)
    tx.run(_DELETE_PROVIDER, name=name)


# --- accounts


def get(reader: Reader, account_id: str) -> ConnectedAccount | None:
    """Return the connected account with this id; None if there is none."""
    return reader.one_as(_ACCOUNT, _account, id=account_id)


def find(reader: Reader, person: str, provider: str) -> ConnectedAccount | None:
    """Return the account of a person at a provider; None if there is none."""
    return reader.one_as(_OF_PERSON, _account, person=person, provider=provider)


def of_person(reader: Reader, person: str) -> list[ConnectedAccount]:
    """Return the accounts of a person, sorted by provider."""
    return [_account(row) for row in reader.all(_ALL_OF_PERSON, person=person)]


def of_provider(reader: Reader, provider: str, *, limit: int) -> list[ConnectedAccount]:
    """Return at most `limit` accounts at a provider, sorted by id; accounts that are ending come last."""
    return [_account(row) for row in reader.all(_OF_PROVIDER, provider=provider, limit=limit)]


def page(reader: Reader, page: Page, *, person: str | None = None) -> list[ConnectedAccount]:
    """Return a page of all accounts, or of the accounts of one person."""
    if person is not None:
        rows = reader.all(_PAGE_OF_PERSON, person=person, after=page.after, limit=page.limit)
    else:
        rows = reader.all(_PAGE, after=page.after, limit=page.limit)
    return [_account(row) for row in rows]


def insert(tx: Tx, account: ConnectedAccount, *, refresh_token: Envelope, token: Envelope) -> None:
    """Insert an account with its refresh token and its first access token."""
    tx.touch("connected_account", account.account_id)
    values = msgspec.structs.asdict(account)
    tx.run(
        _INSERT,
        **{**values, "scopes": _render_scopes(account.scopes), "state": account.state.value},
        wrapped_key=refresh_token.wrapped_key,
        sealed=refresh_token.sealed,
        token_key=token.wrapped_key,
        token=token.sealed,
    )


def delete(tx: Tx, account_id: str) -> None:
    """Delete an account whose tokens are revoked."""
    tx.touch("connected_account", account_id)
    tx.run(_DELETE, id=account_id)


def refresh_token(reader: Reader, account_id: str) -> Envelope:
    """Return the encrypted refresh token of an account. The account must exist."""
    return _present(reader, _REFRESH_TOKEN, account_id)


def shared_token(reader: Reader, account_id: str) -> Envelope:
    """Return the encrypted access token that all agents of an account share. The account must exist."""
    return _present(reader, _SHARED_TOKEN, account_id)


def claim(tx: Tx, account_id: str, *, until: int) -> bool:
    """Claim the refresh of an account for this process until `until` (microseconds). Return False if another process
    has the claim, or the account is not active.
    """
    return tx.run(_CLAIM, id=account_id, now=tx.now, until=until) == 1


def release(tx: Tx, account_id: str, *, rotation: int) -> None:
    """End the claim of a failed refresh. Do nothing if `rotation` is not the number of the present refresh token any
    more.
    """
    tx.run(_RELEASE, id=account_id, rotation=rotation)


def rotate(tx: Tx, account_id: str, secret: Envelope, *, rotation: int) -> bool:
    """Replace the refresh token. Return False if `rotation` is not the number of the present refresh token any more."""
    return tx.run(_ROTATE, id=account_id, wrapped_key=secret.wrapped_key, sealed=secret.sealed, rotation=rotation) == 1


def note_refresh(tx: Tx, account_id: str) -> None:
    """Record a successful refresh, and end its claim."""
    tx.run(_REFRESHED, id=account_id, now=tx.now)


def share_token(tx: Tx, account_id: str, secret: Envelope, *, expires_at: int) -> None:
    """Replace the access token that agents share, which expires at `expires_at` (microseconds)."""
    tx.run(_SHARE, id=account_id, wrapped_key=secret.wrapped_key, sealed=secret.sealed, expires_at=expires_at)


def set_state(tx: Tx, account_id: str, state: AccountState, *, error: str = "") -> None:
    """Set the state of an account. If the state is `ending`, the revocation of the refresh token is due now."""
    tx.touch("connected_account", account_id)
    tx.run(_SET_STATE, id=account_id, state=state.value, error=error, now=tx.now)


def due(reader: Reader, *, now: int, limit: int) -> list[ConnectedAccount]:
    """Return at most `limit` connected accounts whose refresh token must be revoked at the provider now."""
    return [_account(row) for row in reader.all(_DUE, now=now, limit=limit)]


def claim_end(tx: Tx, account_id: str, *, until: int) -> bool:
    """Claim the revocation of a refresh token for this process until `until` (microseconds). Return False if no
    revocation is due, or another process has the claim.
    """
    return tx.run(_CLAIM_END, id=account_id, now=tx.now, until=until) == 1


def postpone(tx: Tx, account_id: str, *, attempts: int, due_at: int, error: str) -> None:
    """Record the error of a failed revocation, the number of attempts, and the time (`due_at`, microseconds) of the
    next attempt. Do nothing if the account is not ending.
    """
    tx.run(_POSTPONE, id=account_id, attempts=attempts, due_at=due_at, error=error)


def of_departed(reader: Reader, *, since: int, limit: int) -> list[ConnectedAccount]:
    """Return at most `limit` accounts, not yet ending, of persons who have left since `since` (microseconds)."""
    return [_account(row) for row in reader.all(_LEFT, since=since, limit=limit)]


# --- tokens of leases


def insert_token(tx: Tx, lease_id: str, account: str, scopes: Iterable[str], *, expires_at: int) -> None:
    """Insert the record of a lease's access token, which expires at `expires_at` (microseconds). The token is stored
    later, unless agents share it.
    """
    tx.run(
        _INSERT_TOKEN,
        lease_id=lease_id,
        account=account,
        scopes=_render_scopes(scopes),
        wrapped_key=None,
        sealed=None,
        expires_at=expires_at,
    )


def set_token(tx: Tx, lease_id: str, secret: Envelope, *, expires_at: int) -> bool:
    """Store the access token of a lease, which expires at `expires_at` (microseconds). Return False if the lease has no
    record of a token.
    """
    values = {"wrapped_key": secret.wrapped_key, "sealed": secret.sealed, "expires_at": expires_at}
    return tx.run(_SET_TOKEN, id=lease_id, **values) == 1


def find_leased(
    reader: Reader, account: str, scopes: Iterable[str], *, agent: str, task: str, until: int
) -> str | None:
    """Return the id of a live lease of the agent's task whose access token has exactly these scopes and is valid after
    `until` (microseconds); None if there is none.
    """
    row = reader.one(_LEASED, account=account, scopes=_render_scopes(scopes), agent=agent, task=task, until=until)
    return None if row is None else str(row[0])


def token(reader: Reader, lease_id: str) -> LeasedToken | None:
    """Return the record of the access token that belongs to a lease; None if there is none."""
    row = reader.one(_TOKEN, id=lease_id)
    if row is None:
        return None
    account, scopes, wrapped_key, sealed, expires_at = row
    secret = None if sealed is None else Envelope(bytes(wrapped_key), bytes(sealed))
    return LeasedToken(account, _parse_scopes(scopes), secret, expires_at)


def leases_of(reader: Reader, account_id: str, *, after: str = "", limit: int) -> list[str]:
    """Return at most `limit` ids of the leases of an account, after the id `after`."""
    return [str(id) for (id,) in reader.all(_LEASES, account=account_id, after=after, limit=limit)]


def agents_of(reader: Reader, account_id: str, *, limit: int) -> list[str]:
    """Return at most `limit` ids of the agents that have an access token of an account."""
    return [str(id) for (id,) in reader.all(_AGENTS, account=account_id, limit=limit)]


def _present(reader: Reader, query: Sql, account_id: str) -> Envelope:
    row = reader.one(query, id=account_id)
    assert row is not None
    return _envelope(row)


def _envelope(row: Row) -> Envelope:
    return Envelope(bytes(row[0]), bytes(row[1]))


def _provider(row: Row) -> AccountProvider:
    settings, removed_at = row
    return msgspec.structs.replace(_decode_provider(settings), removed_at=removed_at)


def _render_scopes(scopes: Iterable[str]) -> str:
    return " ".join(sorted(scopes))


def _parse_scopes(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _account(row: Row) -> ConnectedAccount:
    values = dict(zip(ConnectedAccount.__struct_fields__, row, strict=True))
    values["scopes"], values["state"] = _parse_scopes(values["scopes"]), AccountState(values["state"])
    return ConnectedAccount(**values)

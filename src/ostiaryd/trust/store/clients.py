"""Stored OAuth clients."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.trust.model.clients import ClientKind, ClientState, OAuthClient, decode_metadata

_SELECT = """select client_id, handle, kind, state, metadata, digest, created_at, changed_at, fresh_until, used_at,
    network, access_digest from oauth_client """
_BY_ID = sql(_SELECT + "where client_id = :client_id", steady=True)
_PUT = sql(
    """insert into oauth_client (client_id, handle, kind, state, metadata, digest, created_at, changed_at, fresh_until,
           used_at, network, access_digest)
       values (:client_id, :handle, :kind, :state, :metadata, :digest, :created_at, :changed_at, :fresh_until,
           :used_at, :network, :access_digest)
       on conflict (client_id) do update set state = excluded.state, metadata = excluded.metadata,
           digest = excluded.digest, changed_at = excluded.changed_at, fresh_until = excluded.fresh_until,
           used_at = excluded.used_at, access_digest = excluded.access_digest"""
)
_DELETE = sql("delete from oauth_client where client_id = :client_id")
_BY_HANDLE = sql(_SELECT + "where handle = :handle")
_LIST = sql(_SELECT + "where handle > :after and (:state = '' or state = :state) order by handle limit :limit")
_SET_FRESH = sql("update oauth_client set fresh_until = :until where client_id = :client_id")
_SET_USED = sql("update oauth_client set used_at = :now where client_id = :client_id and used_at is null")
_AGENT_NAMES = sql(
    """select name from agent where agent_id in
       (select client_id from oauth_client where client_id >= 'ag_' and client_id < 'ag`' order by client_id desc
        limit :limit)"""
)
_COUNT_UNUSED = sql(
    """select (select count(*) from oauth_client where used_at is null),
           (select count(*) from oauth_client where used_at is null and network = :network)"""
)
_UNUSED = sql(
    """select client_id from oauth_client
       where used_at is null and created_at <= :before and (state <> 'pending' or created_at <= :pending_before)
       order by created_at limit :limit"""
)
_ADD_TOKEN = sql(
    """insert into registration_token (digest, id, created_at, expires_at, uses_left)
       values (:digest, :id, :now, :expires_at, :uses)"""
)
_USE_TOKEN = sql(
    """update registration_token set uses_left = uses_left - 1
       where digest = :digest and expires_at > :now and uses_left > 0 returning id"""
)
_COUNT_TOKENS = sql("select count(*) from registration_token")
_DROP_TOKENS = sql("delete from registration_token")
_PRUNE_TOKENS = sql("delete from registration_token where expires_at <= :now or uses_left = 0")
_AGENT_KEYS = sql(
    "select jwk, not_after from agent_key where agent = :agent and revoked_at is null order by added_at", steady=True
)


def get_oauth_client(reader: Reader, client_id: str) -> OAuthClient | None:
    """Return the record of a client in any state by its client id; None for an unknown client."""
    return reader.one_as(_BY_ID, _client, client_id=client_id)


def put(tx: Tx, client: OAuthClient) -> None:
    """Store a new or changed client."""
    tx.touch("client", client.client_id)
    tx.send(
        _PUT,
        client_id=client.client_id,
        handle=client.handle,
        kind=client.kind.value,
        state=client.state.value,
        metadata=msgspec.json.encode(client.metadata).decode(),
        digest=client.digest,
        created_at=client.created_at,
        changed_at=client.changed_at,
        fresh_until=client.fresh_until,
        used_at=client.used_at,
        network=client.network,
        access_digest=client.access_digest,
    )


def by_handle(reader: Reader, handle: str) -> OAuthClient | None:
    """Return a client by the id of its record; None if there is none."""
    return reader.one_as(_BY_HANDLE, _client, handle=handle)


def page_clients(reader: Reader, page: Page, *, state: str = "") -> list[OAuthClient]:
    """Return a page of the clients in this state (empty: in every state), in the order of their record ids."""
    return [_client(row) for row in reader.all(_LIST, after=page.after, limit=page.limit, state=state)]


def agent_names(reader: Reader, *, limit: int) -> list[str]:
    """Return the names of the newest `limit` agents that may ask people for consent."""
    return [name for (name,) in reader.all(_AGENT_NAMES, limit=limit)]


def set_fresh(tx: Tx, client_id: str, *, until: int) -> None:
    """Store the time until which the stored metadata of a client need not be fetched again."""
    tx.send(_SET_FRESH, client_id=client_id, until=until)


def note_client_use(tx: Tx, client_id: str) -> None:
    """Record that a person consented to a client, so that it is not deleted as unused."""
    tx.send(_SET_USED, client_id=client_id, now=tx.now)


def count_unused(reader: Reader, *, network: str) -> tuple[int, int]:
    """Return two numbers of clients without a consent: all, and those from the network."""
    row = reader.one(_COUNT_UNUSED, network=network)
    assert row is not None
    return int(row[0]), int(row[1])


def unused(reader: Reader, *, before: int, pending_before: int, limit: int) -> list[str]:
    """Return the ids of at most `limit` clients without a consent that were stored at `before` or earlier, the oldest
    first. For clients that wait for approval, `pending_before` applies instead. Times are in microseconds.
    """
    rows = reader.all(_UNUSED, before=before, pending_before=pending_before, limit=limit)
    return [client_id for (client_id,) in rows]


def drop_registration_tokens(tx: Tx) -> None:
    """Delete every initial access token."""
    tx.send(_DROP_TOKENS)


def add_registration_token(tx: Tx, digest: str, *, id: str, expires_at: int, uses: int) -> None:
    """Store the digest of an initial access token."""
    tx.send(_ADD_TOKEN, digest=digest, id=id, now=tx.now, expires_at=expires_at, uses=uses)


def use_registration_token(tx: Tx, digest: str) -> str | None:
    """Use an initial access token for one registration; return its id, or None if the token is unknown, used up
    or expired.
    """
    row = tx.one(_USE_TOKEN, digest=digest, now=tx.now)
    return None if row is None else str(row[0])


def count_registration_tokens(tx: Tx) -> int:
    """Delete initial access tokens that have expired or are used up, and return the number of the remaining tokens."""
    tx.send(_PRUNE_TOKENS, now=tx.now)
    row = tx.one(_COUNT_TOKENS)
    return 0 if row is None else int(row[0])


def delete(tx: Tx, client_id: str) -> None:
    """Delete a client."""
    tx.touch("client", client_id)
    tx.send(_DELETE, client_id=client_id)


@lru_cache(maxsize=1024)
def _client(row: Row) -> OAuthClient:
    client_id, handle, kind, state, metadata, digest, created_at, changed_at, *rest = row
    fresh_until, used_at, network, access_digest = rest
    return OAuthClient(
        client_id=client_id,
        handle=handle,
        kind=ClientKind(kind),
        state=ClientState(state),
        metadata=decode_metadata(metadata),
        digest=digest,
        created_at=created_at,
        changed_at=changed_at,
        fresh_until=fresh_until,
        used_at=used_at,
        network=network,
        access_digest=access_digest,
    )


def agent_keys(reader: Reader, agent: str, *, now: int) -> list[tuple[str, int | None]]:
    """Return the keys with which an agent can authenticate at the time `now` (microseconds), as (JWK in
    JSON, expiry).
    """
    return [(jwk, ends) for jwk, ends in reader.all(_AGENT_KEYS, agent=agent) if ends is None or ends > now]

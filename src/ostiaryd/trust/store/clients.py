"""Stored OAuth clients."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.trust.model.clients import ClientKind, ClientState, OAuthClient, decode_metadata

_SELECT = """select client_id, handle, kind, state, metadata, digest, created_at, changed_at, fresh_until, used_at,
    network, secret_digest, secret_expires_at, access_digest from oauth_client """
_BY_ID = sql(_SELECT + "where client_id = :client_id", steady=True)
_PUT = sql(
    """insert into oauth_client (client_id, handle, kind, state, metadata, digest, created_at, changed_at, fresh_until,
           used_at, network, secret_digest, secret_expires_at, access_digest)
       values (:client_id, :handle, :kind, :state, :metadata, :digest, :created_at, :changed_at, :fresh_until,
           :used_at, :network, :secret_digest, :secret_expires_at, :access_digest)
       on conflict (client_id) do update set state = excluded.state, metadata = excluded.metadata,
           digest = excluded.digest, changed_at = excluded.changed_at, fresh_until = excluded.fresh_until,
           used_at = excluded.used_at, secret_digest = excluded.secret_digest,
           secret_expires_at = excluded.secret_expires_at, access_digest = excluded.access_digest"""
)
_DELETE = sql("delete from oauth_client where client_id = :client_id")


def get(reader: Reader, client_id: str) -> OAuthClient | None:
    """Return a client by the id that it sends; a point read."""
    return reader.made(_BY_ID, _client, client_id=client_id)


def put(tx: Tx, client: OAuthClient) -> None:
    """Store a client, new or changed."""
    tx.touch("client", client.client_id)
    tx.run(
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
        secret_digest=client.secret_digest,
        secret_expires_at=client.secret_expires_at,
        access_digest=client.access_digest,
    )


def delete(tx: Tx, client_id: str) -> None:
    """Delete a client."""
    tx.touch("client", client_id)
    tx.run(_DELETE, client_id=client_id)


@lru_cache(maxsize=1024)
def _client(row: Row) -> OAuthClient:
    client_id, handle, kind, state, metadata, digest, created_at, changed_at, *rest = row
    fresh_until, used_at, network, secret_digest, secret_expires_at, access_digest = rest
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
        secret_digest=secret_digest,
        secret_expires_at=secret_expires_at,
        access_digest=access_digest,
    )

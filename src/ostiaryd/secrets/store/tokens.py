"""Vault tokens, stored under the keyed hash of their text."""

from __future__ import annotations

from ostiary.authorization.bounds import parse_details, render_details
from ostiary.protocol import canonical
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.token import VaultToken

_COLUMNS = """holding, accessor, network, seconds, created_at, renewed_at, expires_at, source, acr, scopes,
    details"""
_GET = sql(f"select {_COLUMNS} from vault_token where digest = :digest", lasting=True)
_INSERT = sql(
    f"""insert into vault_token (digest, {_COLUMNS}) values (:digest, :holding, :accessor, :network, :seconds,
        :created_at, :renewed_at, :expires_at, :source, :acr, :scopes, :details)"""
)
_RENEW = sql("update vault_token set expires_at = :expires_at, renewed_at = :now where digest = :digest")
_PRUNE = sql(
    """delete from vault_token where digest in
        (select digest from vault_token where expires_at < :before order by expires_at limit :limit)""",
    prunes=True,
)


def get(reader: Reader, digest: bytes) -> VaultToken | None:
    """Return a token by its digest; None if there is none."""
    return reader.made(_GET, _token, digest=digest)


def insert(tx: Tx, digest: bytes, token: VaultToken) -> None:
    """Insert a token under a new digest."""
    tx.run(
        _INSERT,
        digest=digest,
        holding=token.holding,
        accessor=token.accessor,
        network=token.network,
        seconds=token.seconds,
        created_at=token.created_at,
        renewed_at=token.renewed_at,
        expires_at=token.expires_at,
        source=token.source,
        acr=token.acr,
        scopes=" ".join(sorted(token.scopes)),
        details=canonical.encode(render_details(token.details)).decode(),
    )


def renew(tx: Tx, digest: bytes, *, expires_at: int) -> None:
    """Set the end of a token."""
    tx.run(_RENEW, digest=digest, expires_at=expires_at, now=tx.now)


def prune(tx: Tx, *, limit: int) -> int:
    """Delete tokens that have expired; return their number."""
    return tx.run(_PRUNE, before=tx.now, limit=limit)


def _token(row: Row) -> VaultToken:
    holding, accessor, network, seconds, created_at, renewed_at, expires_at, source, acr, scopes, details = row
    return VaultToken(
        holding=holding,
        accessor=accessor,
        network=network,
        seconds=seconds,
        created_at=created_at,
        renewed_at=renewed_at,
        expires_at=expires_at,
        source=source,
        acr=acr,
        scopes=frozenset(scopes.split()),
        details=parse_details(canonical.parse(details.encode())),
    )

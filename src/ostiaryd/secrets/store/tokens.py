"""The table of Vault tokens, which are stored under the keyed hash of their text."""

from __future__ import annotations

import msgspec

from ostiary.authorization.bounds import parse_details, render_details
from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.token import LONGEST_S, NO_OPTIONS, TokenOptions, VaultToken

_COLUMNS = """holding, accessor, network, seconds, created_at, renewed_at, expires_at, source, acr, scopes,
    details"""
_ALL_COLUMNS = """holding, vault_token.accessor, network, seconds, created_at, renewed_at, vault_token.expires_at,
    source, acr, scopes, details, agent, options, uses_left"""
_TOKEN = f"""select {_ALL_COLUMNS} from vault_token
    left join vault_token_option on vault_token_option.accessor = vault_token.accessor"""
_GET = sql(f"{_TOKEN} where digest = :digest", lasting=True)
_INSERT = sql(
    f"""insert into vault_token (digest, {_COLUMNS}) values (:digest, :holding, :accessor, :network, :seconds,
        :created_at, :renewed_at, :expires_at, :source, :acr, :scopes, :details)"""
)
_INSERT_OPTION = sql(
    """insert into vault_token_option (accessor, agent, options, uses_left, expires_at)
       values (:accessor, :agent, :options, :uses_left, :ends_at)"""
)
_BY_ACCESSOR = sql(f"{_TOKEN} where vault_token.accessor = :accessor")
_RENEW = sql("update vault_token set expires_at = :expires_at, renewed_at = :now where accessor = :accessor")
_ACCESSORS = sql(
    """select vault_token.accessor from vault_token_option
       join vault_token on vault_token.accessor = vault_token_option.accessor
       where agent = :agent and vault_token.expires_at > :now order by vault_token.accessor limit :limit"""
)
_BELOW = sql("select accessor, options from vault_token_option where agent = :agent and options like :pattern")
_SET_OPTIONS = sql("update vault_token_option set options = :options where accessor = :accessor")
_USE = sql("update vault_token_option set uses_left = :uses_left where accessor = :accessor")
_PRUNE = sql(
    """delete from vault_token where digest in
        (select digest from vault_token where expires_at < :before order by expires_at limit :limit)""",
    prunes=True,
)

_decode_options = json_decoder(TokenOptions)

_PRUNE_OPTIONS = sql(
    """delete from vault_token_option where accessor in
        (select accessor from vault_token_option where expires_at < :before order by expires_at limit :limit)""",
    prunes=True,
)


def get(reader: Reader, digest: bytes) -> VaultToken | None:
    """Return the Vault token whose text has this keyed hash; None if there is none."""
    return reader.one_as(_GET, _token, digest=digest)


def insert(tx: Tx, digest: bytes, token: VaultToken) -> None:
    """Insert a token under the keyed hash of its text, which must be new."""
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
    tx.run(
        _INSERT_OPTION,
        accessor=token.accessor,
        agent=token.agent,
        options=msgspec.json.encode(token.options).decode(),
        uses_left=token.uses_left,
        ends_at=token.created_at + LONGEST_S * SECOND,
    )


def get_by_accessor(reader: Reader, accessor: str) -> VaultToken | None:
    """Return a token by its accessor; None if there is none."""
    return reader.one_as(_BY_ACCESSOR, _token, accessor=accessor)


def accessors(reader: Reader, agent: str, *, now: int, limit: int) -> list[str]:
    """Return at most `limit` accessors of the tokens of an agent that have not expired at `now` (microseconds)."""
    return [accessor for (accessor,) in reader.all(_ACCESSORS, agent=agent, now=now, limit=limit)]


def release(tx: Tx, token: VaultToken) -> None:
    """Make the child tokens of a token orphans, and remove the token from the list of tokens above of each token below
    it, so that the end of the token does not end them.
    """
    for accessor, text in tx.all(_BELOW, agent=token.agent, pattern=f"%{token.accessor}%"):
        options = _decode_options(text)
        if token.accessor in options.above:
            above = tuple(one for one in options.above if one != token.accessor)
            is_orphan = options.is_orphan or options.above[0] == token.accessor
            changed = msgspec.structs.replace(options, above=above, is_orphan=is_orphan)
            tx.run(_SET_OPTIONS, accessor=accessor, options=msgspec.json.encode(changed).decode())


def renew(tx: Tx, accessor: str, *, expires_at: int) -> None:
    """Set the end of a token, in microseconds since the epoch."""
    tx.run(_RENEW, accessor=accessor, expires_at=expires_at, now=tx.now)


def set_uses(tx: Tx, accessor: str, uses_left: int) -> None:
    """Set the number of uses that a token has left (0: no limit, -1: none left)."""
    tx.run(_USE, accessor=accessor, uses_left=uses_left)


def prune(tx: Tx, *, limit: int) -> int:
    """Delete at most `limit` Vault tokens that have expired; return their number."""
    tx.run(_PRUNE_OPTIONS, before=tx.now, limit=limit)
    return tx.run(_PRUNE, before=tx.now, limit=limit)


def _token(row: Row) -> VaultToken:
    holding, accessor, network, seconds, created_at, renewed_at, expires_at, source, acr, scopes, details = row[:11]
    agent, options, uses_left = row[11:]
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
        agent=agent or "",
        options=NO_OPTIONS if options in (None, "{}") else _decode_options(options),
        uses_left=uses_left or 0,
    )

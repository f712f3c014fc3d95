"""Stored join tokens, which enrol an agent on a machine."""

from __future__ import annotations

from ostiaryd.ground.database import Tx, sql

_ADD_JOIN = sql(
    """insert into join_token (digest, agent, created_at, expires_at)
       values (:digest, :agent, :created_at, :expires_at)"""
)
_USE_JOIN = sql(
    """update join_token set used_at = :now
       where digest = :digest and used_at is null and expires_at > :now returning agent"""
)
_DROP_JOIN = sql("delete from join_token where agent = :agent and used_at is null")
_DROP_ALL_JOIN = sql("delete from join_token where used_at is null")
_PRUNE_JOIN = sql("delete from join_token where expires_at <= :before")


def add_join_token(tx: Tx, digest: bytes, *, agent: str, expires_at: int) -> None:
    """Store the digest of a join token."""
    tx.send(_ADD_JOIN, digest=digest, agent=agent, created_at=tx.now, expires_at=expires_at)


def use_join_token(tx: Tx, digest: bytes) -> str | None:
    """Mark a join token as used, and return the id of its agent. Return None if the token is unknown,
    used or expired.
    """
    row = tx.one(_USE_JOIN, digest=digest, now=tx.now)
    return None if row is None else str(row[0])


def drop_join_tokens(tx: Tx, agent: str) -> int:
    """Delete the unused join tokens of an agent; return their number."""
    return tx.run(_DROP_JOIN, agent=agent)


def drop_all_join_tokens(tx: Tx) -> None:
    """Delete the unused join tokens of all agents."""
    tx.send(_DROP_ALL_JOIN)


def prune_join_tokens(tx: Tx, *, before: int) -> int:
    """Delete the join tokens that expired by `before` (microseconds); return their number."""
    return tx.run(_PRUNE_JOIN, before=before)

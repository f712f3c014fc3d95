"""Guarded rows: rows on which decisions depend. Entries of the ledger contain digests of them.

A store function that writes a guarded row calls `tx.touch(kind, key)`. The entry of the act then contains the digest of
the row after the batch. If the digest of a row differs from the newest entry that names the row, the row was changed
without the server (docs/adr/0041-state-against-the-ledger.md).

Columns that change without an act are left out of the digest: heartbeats, counters, the end of a restriction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

import msgspec

from ostiary.protocol.jose import b64u
from ostiaryd.ground.database import Read, Reader, Row, sql

DIGEST_BYTES = 12
"""Length of a digest, in bytes. With 96 bits, it is infeasible to find another row with the same digest."""
GONE = ""
"""Digest that the ledger records for a guarded row that does not exist."""
ENDED = "."
"""Suffix of the digest of a row that has ended permanently, which therefore need not be remembered for long. For a
token, its expiry follows (microseconds): the row of a revoked token may be deleted only after that time.
"""
NO_AGENT = "''"
"""SQL expression of a row that determines the access of several agents."""
_AT_ONCE = 64


class Guarded(NamedTuple):
    """The guarded columns of a table, on which decisions depend; ledger entries contain digests of them. `key` is the
    SQL expression of a row's key. `ended` is an SQL expression: 0 for a row in force, 1 for a row that has ended
    permanently, or the time of its expiry in microseconds.
    """

    table: str
    key: str
    columns: str
    agent: str = NO_AGENT
    """SQL expression for the id of the agent whose access the row determines, or of the resource or the person with
    this access.
    """
    ended: str = "0"
    is_listed: bool = True
    """True if entries of the ledger name every row of the table. If false, only rows that entries name are compared."""


GUARDED: dict[str, Guarded] = {
    "agent": Guarded(
        "agent",
        "agent_id",
        "name, owner, deputy, kind, provider, model, risk_tier, segment, scopes, state, epoch, expires_at, max_depth,"
        " speaks",
        agent="agent_id",
    ),
    "key": Guarded("agent_key", "jkt", "agent, alg, jwk, not_after, revoked_at", agent="agent"),
    "task": Guarded(
        "task",
        "task_id",
        "agent, person, purpose, scopes, bounds, state, expires_at, ended_at, parent, depth, heartbeat, ends_with_last,"
        " intent, elevated",
        agent="agent",
        ended="case when state = 'live' then 0 else 1 end",
    ),
    "exemption": Guarded("bearer_exemption", "agent || ' ' || resource", "since", agent="agent"),
    "bearer_class": Guarded("bearer_class", "resource || ' ' || registration", "since"),
    "secret": Guarded("client_secret", "id", "agent, digest, expires_at", agent="agent"),
    "anchor": Guarded("trust_anchor", "digest", "name, certificate, is_own"),
    "certificate_client": Guarded("certificate_client", "client", "method, kind, value, is_bound", agent="client"),
    "client_certificate": Guarded(
        "client_certificate", "client || ' ' || digest", "certificate, added_at", agent="client"
    ),
    "client": Guarded("oauth_client", "client_id", "kind, state, metadata, access_digest"),
    "eligible": Guarded("eligible", "agent", "scopes", agent="agent"),
    "awaiting": Guarded("awaiting", "agent", "incident", agent="agent"),
    "resource": Guarded(
        "resource", "resource_id", "name, uri, mode, segment, jkt, jwk, catalogue, catalogue_hash, proposed"
    ),
    "acme_key": Guarded(
        "acme_key", "kid", "holder, profile, names, sealed, expires_at, account, revoked_at", agent="holder"
    ),
    "acme_account": Guarded("acme_account", "id", "jkt, jwk, holder, kid, status", agent="holder"),
    "pep": Guarded("pep", "id", "name, networks, revoked_at"),
    "pep_key": Guarded("pep_key", "id", "pep, digest, expires_at"),
    "stop": Guarded("stop", "what || ' ' || value", "since, said_by, why, incident"),
    "policy": Guarded("policy_active", "cast(id as text)", "hash"),
    "watched_policy": Guarded("policy_watched", "cast(id as text)", "hash"),
    "policy_set": Guarded("policy_set", "hash", "files, ir, actions"),
    "person": Guarded("person", "person_id", "name, deputy, state"),
    "person_key": Guarded("person_key", "jkt", "person, alg, jwk, revoked_at"),
    "session": Guarded("person_session", "id", "digest, person, proofs, expires_at, ended_at"),
    "password": Guarded("person_password", "person", "hash"),
    "totp": Guarded("person_totp", "person", "sealed"),
    "passkey": Guarded("person_passkey", "id", "person, public_key"),
    "setup_link": Guarded("setup_link", "person", "digest, expires_at"),
    "holding": Guarded(
        "holding",
        "id",
        "kind, agent, audience, expires_at, ended_at",
        agent="agent",
        ended="expires_at",
        is_listed=False,
    ),
    "authority": Guarded("authority", "authority_id", "kind, state, parent, certificate, cross_certificate, permitted"),
    "workload": Guarded("workload", "workload_id", "agent, selectors", agent="agent"),
    "svid_key": Guarded("svid_key", "kid", "sealed, signs_at"),
    "trust_domain": Guarded(
        "trust_domain",
        "name",
        "case endpoint_spiffe_id when '' then bundle_url else bundle_url || ' ' || endpoint_spiffe_id end, sequence,"
        " content",
    ),
    "trusted_domain": Guarded("trust_domain_agent", "trust_domain || ' ' || agent", "agent", agent="agent"),
    "team": Guarded("team", "team_id", "name, deputy"),
    "role": Guarded("role_assignment", "subject || ' ' || role || ' ' || source", "granted_at"),
    "login_provider": Guarded("login_provider", "provider_id", "name, issuer, settings, sealed"),
    "account_provider": Guarded("account_provider", "name", "settings, removed_at"),
    "connected_account": Guarded("connected_account", "account_id", "provider, person, scopes, state"),
    "login_identity": Guarded("login_identity", "issuer || ' ' || sub", "person"),
    "member": Guarded("member", "team || ' ' || person", "team, person"),
}

AGENT_KINDS = frozenset(kind for kind, spec in GUARDED.items() if spec.agent != NO_AGENT)
"""Kinds of rows that determine the access of one agent, resource or person."""


def _select(kind: str) -> str:
    spec = GUARDED[kind]
    return f"select {spec.key}, {spec.agent}, {spec.ended}, {spec.columns} from {spec.table}"


_BY_KEY = {
    (kind, count): sql(f"{_select(kind)} where {spec.key} in ({', '.join(f':k{i}' for i in range(count))})")
    for kind, spec in GUARDED.items()
    for count in (1, _AT_ONCE)
}
_BY_PAGE = {
    kind: sql(f"{_select(kind)} where {spec.key} > :after order by {spec.key} limit :limit")
    for kind, spec in GUARDED.items()
}


class GuardedRow(NamedTuple):
    """A guarded row, read from its table. `digest` is the digest of its guarded columns, with a suffix if the row has
    ended (`ENDED`). `agent` is the id of the agent whose access the row determines, or of the resource or the person
    with this access; empty for several agents.
    """

    name: str
    """Kind and key of the row, as entries name it: `agent ag_...`."""
    digest: str
    agent: str


def row_name(kind: str, key: str) -> str:
    """Return the name of a guarded row in ledger entries: kind and key."""
    return f"{kind} {key}"


def has_ended(digest: str) -> bool:
    """Return whether the digest of a guarded row says that the row has ended permanently, or may be deleted after its
    expiry (a token).
    """
    return ENDED in digest


def expiry(digest: str) -> int:
    """Return the expiry in the digest of a row, in microseconds; 0 if the digest contains none."""
    return int(digest.partition(ENDED)[2] or 0)


def digests(reader: Reader, names: Iterable[str]) -> dict[str, str]:
    """Return the present digest of each of these guarded rows, by the name that `row_name` returns; `GONE` for a row
    that does not exist.
    """
    current = dict.fromkeys(names, GONE)
    by_kind: dict[str, list[str]] = {}
    for name in current:
        kind, _, key = name.partition(" ")
        by_kind.setdefault(kind, []).append(key)
    chunks = [(kind, chunk) for kind, keys in by_kind.items() for chunk in _chunks(keys)]
    reads = [Read(_BY_KEY[kind, len(chunk)], {f"k{i}": key for i, key in enumerate(chunk)}) for kind, chunk in chunks]
    for (kind, _), rows in zip(chunks, reader.each(*reads), strict=True):
        current |= {row.name: row.digest for row in (_read(kind, each) for each in rows)}
    return current


def page(reader: Reader, kind: str, *, after: str, limit: int) -> tuple[list[GuardedRow], str]:
    """Return name, digest and agent of at most `limit` rows of a kind of `GUARDED` whose keys are after `after`, in the
    order of the database. The second value is the key of the last of them, or `after` if there is none.
    """
    rows = reader.all(_BY_PAGE[kind], after=after, limit=limit)
    return [_read(kind, row) for row in rows], rows[-1][0] if rows else after


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    """Yield the keys in chunks of `_AT_ONCE`, the last chunk filled up with copies of its last key. A single key is
    yielded alone.

    By this, each kind of row needs only two statements.
    """
    if len(keys) == 1:
        yield keys
        return
    for start in range(0, len(keys), _AT_ONCE):
        chunk = keys[start : start + _AT_ONCE]
        yield [*chunk, *[chunk[-1]] * (_AT_ONCE - len(chunk))]


def _read(kind: str, row: Row) -> GuardedRow:
    key, agent, ended, *values = row
    digest = b64u(sha256(msgspec.json.encode([kind, key, *values])).digest()[:DIGEST_BYTES])
    end = f"{ENDED}{ended if ended > 1 else ''}" if ended else ""
    return GuardedRow(row_name(kind, key), digest + end, agent)

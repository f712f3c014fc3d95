"""The tables of policy sets, which are never changed, of the hashes of the active and the watching set, and of
approvals. Until a set is put, the starter set is active, and the table has no active set.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.values import Entity, Uid
from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.policy.model import (
    Loaded,
    PolicySet,
    decode_actions,
    decode_files,
    encode_actions,
    encode_files,
    starter_files,
)

_ACTIVE = sql("select hash from policy_active where id = 1", steady=True)
_ACTIVATE = sql(
    """insert into policy_active (id, hash, since) values (1, :hash, :now)
       on conflict (id) do update set hash = excluded.hash, since = excluded.since"""
)
_WATCHED = sql("select hash from policy_watched where id = 1", steady=True)
_WATCH = sql(
    """insert into policy_watched (id, hash, since) values (1, :hash, :now)
       on conflict (id) do update set hash = excluded.hash, since = excluded.since"""
)
_UNWATCH = sql("delete from policy_watched where id = 1")
_COLUMNS = "hash, policies, safeguards, tests, created_at, created_by"
_GET = sql(f"select {_COLUMNS} from policy_set where hash = :hash")
_PAGE = sql(
    f"""select {_COLUMNS} from policy_set where created_at < :at or (created_at = :at and hash > :hash)
        order by created_at desc, hash limit :limit"""
)
_FILES = sql("select files from policy_set where hash = :hash")
_RULES = sql("select files, ir, actions from policy_set where hash = :hash")
_INSERT = sql(
    """insert into policy_set (hash, files, ir, actions, policies, safeguards, tests, created_at, created_by)
       values (:hash, :files, :ir, :actions, :policies, :safeguards, :tests, :now, :by)
       on conflict (hash) do nothing"""
)
_INSERT_APPROVED = sql("insert into approved (approval_id, digest, policies) values (:id, :digest, :policies)")
_APPROVED = sql("select digest, policies from approved where approval_id = :id")
_SPEND_APPROVED = sql(
    "update approved set spent_at = :now, spent_for = :call where approval_id = :id and spent_at is null"
)
_NEWEST = 1 << 62


class Approved(NamedTuple):
    """An approval that persons have given: the digest of the approved request, and the ids of the policies that asked
    for the approval.
    """

    digest: str
    policies: frozenset[str]


def insert_approved(tx: Tx, id: str, *, digest: str, policies: list[str]) -> None:
    """Store that persons approved the request with this digest. `policies`: the ids of the policies that asked for
    approval.
    """
    tx.run(_INSERT_APPROVED, id=id, digest=digest, policies=canonical.encode(policies).decode())


def approved(reader: Reader, id: str) -> Approved | None:
    """Return an approval by its id; None if there is none."""
    row = reader.one(_APPROVED, id=id)
    return None if row is None else Approved(row[0], frozenset(json_decoder(list[str])(row[1])))


def spend_approved(tx: Tx, id: str, *, call: str) -> bool:
    """Mark an approval as used for the call with the random number `call`. Return False if it was used before."""
    return tx.run(_SPEND_APPROVED, id=id, call=call, now=tx.now) == 1


def active_hash(reader: Reader) -> str:
    """Return the hash of the active set."""
    row = reader.one(_ACTIVE)
    return starter_files().hash if row is None else row[0]


def get_active_ir(reader: Reader) -> tuple[str, str]:
    """Return the hash of the active set, and its policies in compiled form (IR, as JSON), which guards get."""
    hash = active_hash(reader)
    row = reader.one(_RULES, hash=hash)
    return hash, ir.render(starter_files().ir).decode() if row is None else row[1]


def activate(tx: Tx, hash: str) -> None:
    """Make the stored set with this hash the active set: the set that decides."""
    tx.touch("policy", "1")
    tx.run(_ACTIVATE, hash=hash, now=tx.now)


def watched(reader: Reader) -> str | None:
    """Return the hash of the watching set, whose verdicts are recorded and not enforced; None if there is none."""
    row = reader.one(_WATCHED)
    return None if row is None else row[0]


def watch(tx: Tx, hash: str) -> None:
    """Make the stored set with this hash the watching set, whose verdicts are recorded and not enforced."""
    tx.touch("watched_policy", "1")
    tx.run(_WATCH, hash=hash, now=tx.now)


def unwatch(tx: Tx) -> None:
    """Remove the watching set; the set itself stays stored."""
    tx.touch("watched_policy", "1")
    tx.run(_UNWATCH)


def insert(tx: Tx, loaded: Loaded, *, by: str) -> None:
    """Store a set. `by`: the id of the person or agent that puts the set. A set with the same hash that is stored
    already stays unchanged.
    """
    tx.touch("policy_set", loaded.hash)
    tx.run(
        _INSERT,
        hash=loaded.hash,
        files=encode_files(loaded.files),
        ir=ir.render(loaded.ir).decode(),
        actions=encode_actions(loaded.actions),
        policies=loaded.count,
        safeguards=loaded.safeguards,
        tests=loaded.tests,
        now=tx.now,
        by=by,
    )


def get(reader: Reader, hash: str) -> PolicySet | None:
    """Return the summary of a set; None if it is not stored."""
    row = reader.one(_GET, hash=hash)
    return None if row is None else _summary(row)


def page(reader: Reader, *, after: PolicySet | None, limit: int) -> list[PolicySet]:
    """Return at most `limit` stored sets, the newest first: those older than the set `after`, or with None all from the
    newest.
    """
    at, hash = (_NEWEST, "") if after is None else (after.created_at, after.hash)
    return [_summary(row) for row in reader.all(_PAGE, at=at, hash=hash, limit=limit)]


def files(reader: Reader, hash: str) -> dict[str, str] | None:
    """Return the files of a set; None if it is not stored."""
    row = reader.one(_FILES, hash=hash)
    return None if row is None else decode_files(row[0])


def rules(reader: Reader, hash: str) -> tuple[dict[str, str], ir.PolicySetIR, dict[Uid, Entity]] | None:
    """Return the files of a stored set, its policies in compiled form (IR), and the actions of its schema; None if the
    set is not stored.
    """
    row = reader.one(_RULES, hash=hash)
    return None if row is None else (decode_files(row[0]), ir.parse(row[1].encode()), decode_actions(row[2]))


def _summary(row: Row) -> PolicySet:
    hash, policies, safeguards, tests, created_at, created_by = row
    return PolicySet(
        hash=hash, policies=policies, safeguards=safeguards, tests=tests, created_at=created_at, created_by=created_by
    )

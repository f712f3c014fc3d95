"""DPoP proofs of reported calls, and the record of which proof is the evidence for which entry."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql

_INSERT_EVIDENCE = sql("insert into evidence (idx, proof) values (:idx, :proof)")
_EVIDENCE = sql("select proof from evidence where idx = :idx")
_OLDEST_EVIDENCE = sql("select min(idx) from evidence")
_FORGET_EVIDENCE = sql("delete from evidence where idx < :before")
_USE_EVIDENCE = sql(
    "insert into evidence_used (digest, idx, until) values (:digest, :idx, :until) on conflict (digest) do nothing"
)
_USED_FOR = sql("select idx from evidence_used where digest = :digest")
_FORGET_USED = sql("delete from evidence_used where until <= :now")


def insert_evidence(tx: Tx, rows: list[tuple[int, str]]) -> None:
    """Store the DPoP proofs of entries, each with the index of its entry."""
    tx.many(_INSERT_EVIDENCE, rows)


def get_evidence(reader: Reader, index: int) -> str | None:
    """Return the unverified DPoP proof of the call in entry `index`; None if the proof is no longer stored."""
    row = reader.one(_EVIDENCE, idx=index)
    return None if row is None else row[0]


def use_evidence(tx: Tx, digest: bytes, index: int, *, until: int) -> bool:
    """Record the proof with this digest as the evidence for entry `index`, until the time `until` (microseconds).
    Return True on success; return False if the proof is already the evidence for another entry.
    """
    tx.send(_USE_EVIDENCE, digest=digest, idx=index, until=until)
    row = tx.one(_USED_FOR, digest=digest)
    return row is not None and row[0] == index


def forget_evidence(tx: Tx, *, before: int, count: int) -> bool:
    """Delete the proofs of at most `count` consecutive entries, from the oldest stored proof on, only below the index
    `before`. Return whether further proofs may remain to be deleted.
    """
    row = tx.one(_OLDEST_EVIDENCE)
    if row is None or row[0] is None or row[0] >= before:
        return False
    tx.send(_FORGET_EVIDENCE, before=min(before, row[0] + count))
    return True


def forget_used_evidence(tx: Tx) -> None:
    """Delete the records of used proofs that no verification would accept any more, because their time `until`
    is past.
    """
    tx.send(_FORGET_USED, now=tx.now)

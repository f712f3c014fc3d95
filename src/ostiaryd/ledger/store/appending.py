"""Append a batch of entries to the tree, and sign the new head, once per commit for all acts of the commit."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.protocol.checkpoint import HISTORY, Checkpoint, sign_checkpoint
from ostiary.protocol.merkle import Frontier, leaf_hash
from ostiaryd.ground.database import Tx, opening_sql, sql
from ostiaryd.ground.database.guarded import digests
from ostiaryd.ground.database.pin import Head, InRecovery
from ostiaryd.ledger.model import Entry, encode_entry, indexed_words, spread_rows
from ostiaryd.ledger.store.evidence import insert_evidence
from ostiaryd.ledger.store.histories import has_head
from ostiaryd.ledger.store.indexes import add_names
from ostiaryd.ledger.store.tree import TOPIC, frontier_of, get_log_key

_HEAD_WITH_HISTORY = opening_sql(
    """select log_history.id, log_head.size, log_head.peaks, log_head.at, exists (select 1 from loss) from log_history
       left join log_head on log_head.id = 1 where log_history.ended_at is null"""
)
_SAVE_HEAD = sql(
    """insert into log_head (id, size, peaks, checkpoint, at) values (1, :size, :peaks, :checkpoint, :at)
       on conflict (id) do update set size = excluded.size, peaks = excluded.peaks, checkpoint = excluded.checkpoint,
       at = excluded.at"""
)
_INSERT = sql(
    """insert into entry (idx, leaf, body, at, action, outcome, agent, task, person, resource)
       values (:idx, :leaf, :body, :at, :action, :outcome, :agent, :task, :person, :resource)"""
)
_INSERT_FACT = sql("insert into fact (idx, body) values (:idx, :body)")
_SUBTREE = sql("insert into subtree (level, idx, hash) values (:level, :idx, :hash)")


def append(tx: Tx, entries: Sequence[Entry]) -> None:
    """Append the entries of one commit and sign the new head.

    The time of an entry is raised to the time of the entry before, because the clocks of a database's servers differ.
    Raises HistoryLost if the database lacks the head that this server has pinned; InRecovery if another server has
    recorded a loss.
    """
    if any(entry.rows for entry in entries):
        entries = _with_digests(tx, entries)
    row = tx.one(_HEAD_WITH_HISTORY)
    assert row is not None
    history, frontier = row[0], Frontier() if row[1] is None else frontier_of(row[1], row[2])
    at: int = row[3] or 0
    if row[4] and not tx.pin.is_lost:  # another server of this database has recorded a loss
        raise InRecovery
    tx.pin.check(history, frontier.size, frontier.root(), lambda pinned: has_head(tx, pinned))
    start = frontier.size
    for entry in entries:
        at = entry.at = max(at, entry.at)
    evidence = [(start + i, entry.evidence) for i, entry in enumerate(entries) if entry.evidence]
    facts = [(start + i, entry.kept_facts) for i, entry in enumerate(entries) if entry.kept_facts is not None]
    bodies = [encode_entry(entry) for entry in entries]
    leaves = [leaf_hash(body) for body in bodies]
    completed = frontier.extend(leaves)
    tx.many(
        _INSERT,
        [
            (start + i, leaves[i], bodies[i], e.at, e.action, e.outcome, *indexed_words(e))
            for i, e in enumerate(entries)
        ],
    )
    add_names(tx, start, entries)
    if facts:
        tx.many(_INSERT_FACT, facts)
    if evidence:
        insert_evidence(tx, evidence)
    if completed:
        tx.many(_SUBTREE, completed)
    key = get_log_key(tx, tx.keys)
    checkpoint = Checkpoint(key.name, frontier.size, frontier.root(), (f"{HISTORY} {history}",))
    note = sign_checkpoint(checkpoint, key=key, sign=tx.keys.signer("ledger").sign)
    tx.send(_SAVE_HEAD, size=frontier.size, peaks=b"".join(frontier.peaks), checkpoint=note.decode(), at=at)
    tx.head = Head(key.public, history, checkpoint.size, checkpoint.root)
    tx.topics.add(TOPIC)


def _with_digests(tx: Tx, entries: Sequence[Entry]) -> list[Entry]:
    """Set the digest of each row that the entries name, and split entries with too many rows (`spread_rows`). One
    statement reads up to 64 rows of one table.
    """
    now = digests(tx, (name for entry in entries for name in entry.rows))
    for entry in entries:
        entry.rows = {name: now[name] for name in entry.rows}
    return spread_rows(entries)

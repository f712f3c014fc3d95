"""The ledger's tables: entries with their leaf hashes, hashes of complete 256-subtrees, and the head."""

from __future__ import annotations

from collections.abc import Sequence

from ostiary.core.checkpoint import Checkpoint, sign_checkpoint
from ostiary.core.jose import unb64u
from ostiary.core.merkle import HASH_BYTES, Frontier, leaf_hash
from ostiary.core.note import NoteKey
from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.ground.keyring import Keyring
from ostiaryd.ledger.model import Entry, encode_entry

_HEAD = sql("select size, peaks, checkpoint from log_head where id = 1")
_DOMAIN = sql("select value from setting where name = 'trust_domain'")
_SAVE_HEAD = sql(
    """insert into log_head (id, size, peaks, checkpoint) values (1, :size, :peaks, :checkpoint)
       on conflict (id) do update set size = excluded.size, peaks = excluded.peaks, checkpoint = excluded.checkpoint"""
)
_INSERT = sql(
    """insert into entry (idx, leaf, body, at, action, outcome, agent, task, person, resource)
       values (:idx, :leaf, :body, :at, :action, :outcome, :agent, :task, :person, :resource)"""
)
_SUBTREE = sql("insert into subtree (level, idx, hash) values (:level, :idx, :hash)")


def log_key(reader: Reader, keys: Keyring) -> NoteKey:
    """The public key under which this log signs; its name is the log's origin."""
    row = reader.one(_DOMAIN)
    assert row is not None
    return NoteKey(f"{row[0]}/ostiary", unb64u(keys.signer("ledger").public.jwk["x"]))


def head(reader: Reader) -> tuple[Frontier, str]:
    """The right edge of the tree and its signed checkpoint (empty before the first entry)."""
    row = reader.one(_HEAD)
    if row is None:
        return Frontier(), ""
    size, peaks, checkpoint = row
    return Frontier(size, [peaks[i : i + HASH_BYTES] for i in range(0, len(peaks), HASH_BYTES)]), checkpoint


def append(tx: Tx, entries: Sequence[Entry]) -> None:
    """Append a batch and sign the new head: runs once per commit, for all of its acts."""
    frontier, _ = head(tx)
    start = frontier.size
    bodies = [encode_entry(entry) for entry in entries]
    leaves = [leaf_hash(body) for body in bodies]
    completed = frontier.extend(leaves)
    tx.many(
        _INSERT,
        [
            (start + i, leaves[i], bodies[i], e.at, e.action, e.outcome, e.agent, e.task, e.person, e.resource)
            for i, e in enumerate(entries)
        ],
    )
    if completed:
        tx.many(_SUBTREE, completed)
    key = log_key(tx, tx.keys)
    checkpoint = Checkpoint(key.name, frontier.size, frontier.root())
    note = sign_checkpoint(checkpoint, key=key, sign=tx.keys.signer("ledger").sign)
    tx.run(_SAVE_HEAD, size=frontier.size, peaks=b"".join(frontier.peaks), checkpoint=note.decode())

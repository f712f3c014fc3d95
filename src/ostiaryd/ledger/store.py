"""The ledger's tables: entries with their leaf hashes, hashes of complete 256-subtrees, and the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from ostiary.core.checkpoint import HISTORY, Checkpoint, sign_checkpoint
from ostiary.core.jose import unb64u
from ostiary.core.merkle import HASH_BYTES, Frontier, leaf_hash, tree_root
from ostiary.core.note import NoteKey
from ostiary.core.tiles import Rows, hashes_from
from ostiaryd.ground.database import Reader, Sql, Tx, sql
from ostiaryd.ground.ids import standing_agent
from ostiaryd.ground.keyring import Keyring
from ostiaryd.ground.pin import Head
from ostiaryd.ledger.model import Entry, classes_of, encode_entry, is_standing

TOPIC = "ledger"
"""what listeners of the writer hear when entries were added"""
_HEAD = sql("select size, peaks, checkpoint from log_head where id = 1")
_HEAD_WITH_HISTORY = sql(
    """select log_history.id, log_head.size, log_head.peaks, log_head.at from log_history
       left join log_head on log_head.id = 1 where log_history.ended_at is null"""
)
_DOMAIN = sql("select value from setting where name = 'trust_domain'")
_SAVE_HEAD = sql(
    """insert into log_head (id, size, peaks, checkpoint, at) values (1, :size, :peaks, :checkpoint, :at)
       on conflict (id) do update set size = excluded.size, peaks = excluded.peaks, checkpoint = excluded.checkpoint,
       at = excluded.at"""
)
_INSERT = sql(
    """insert into entry (idx, leaf, body, at, action, outcome, agent, task, person, resource)
       values (:idx, :leaf, :body, :at, :action, :outcome, :agent, :task, :person, :resource)"""
)
_INSERT_CLASS = sql("insert into entry_class (data_class, idx) values (:data_class, :idx)")
_INSERT_FACT = sql("insert into fact (idx, body) values (:idx, :body)")
_INSERT_EVIDENCE = sql("insert into evidence (idx, proof) values (:idx, :proof)")
_EVIDENCE = sql("select proof from evidence where idx = :idx")
_OLDEST_EVIDENCE = sql("select min(idx) from evidence")
_FORGET_EVIDENCE = sql("delete from evidence where idx < :before")
_USE_EVIDENCE = sql(
    "insert into evidence_used (digest, idx, until) values (:digest, :idx, :until) on conflict (digest) do nothing"
)
_USED_FOR = sql("select idx from evidence_used where digest = :digest")
_FORGET_USED = sql("delete from evidence_used where until <= :now")
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
    return _frontier(size, peaks), checkpoint


def _frontier(size: int, peaks: bytes) -> Frontier:
    return Frontier(size, [peaks[i : i + HASH_BYTES] for i in range(0, len(peaks), HASH_BYTES)])


def root_at(reader: Reader, size: int) -> bytes:
    """The root of the tree when it had `size` entries, which it has at least."""
    return tree_root(size, hashes_from(rows(reader)))


def append(tx: Tx, entries: Sequence[Entry]) -> None:
    """Append a batch and sign the new head: runs once per commit, for all of its acts.

    The time of an entry is never less than that of the entry before it: servers that share a database have clocks of
    their own. Raises HistoryLost if the database does not have the head that this server has pinned.
    """
    row = tx.one(_HEAD_WITH_HISTORY)
    assert row is not None
    history, frontier = row[0], Frontier() if row[1] is None else _frontier(row[1], row[2])
    at: int = row[3] or 0
    tx.pin.check(frontier.size, frontier.root(), lambda size: root_at(tx, size))
    start = frontier.size
    for entry in entries:
        at = entry.at = max(at, entry.at)
    evidence = [(start + i, entry.evidence) for i, entry in enumerate(entries) if entry.evidence]
    facts = [(start + i, entry.beside) for i, entry in enumerate(entries) if entry.beside is not None]
    bodies = [encode_entry(entry) for entry in entries]
    leaves = [leaf_hash(body) for body in bodies]
    completed = frontier.extend(leaves)
    tx.many(
        _INSERT,
        [(start + i, leaves[i], bodies[i], e.at, e.action, e.outcome, *_indexed(e)) for i, e in enumerate(entries)],
    )
    if classes := [(name, start + i) for i, entry in enumerate(entries) for name in classes_of(entry)]:
        tx.many(_INSERT_CLASS, classes)
    if facts:
        tx.many(_INSERT_FACT, facts)
    if evidence:
        tx.many(_INSERT_EVIDENCE, evidence)
    if completed:
        tx.many(_SUBTREE, completed)
    key = log_key(tx, tx.keys)
    checkpoint = Checkpoint(key.name, frontier.size, frontier.root(), (f"{HISTORY} {history}",))
    note = sign_checkpoint(checkpoint, key=key, sign=tx.keys.signer("ledger").sign)
    tx.run(_SAVE_HEAD, size=frontier.size, peaks=b"".join(frontier.peaks), checkpoint=note.decode(), at=at)
    tx.head = Head(key.public, history, checkpoint.size, checkpoint.root)
    tx.topics.add(TOPIC)


def _indexed(entry: Entry) -> list[str | None]:
    """What is searched by, as every database can hold it: PostgreSQL's text has no NUL: one would fail the batch.

    Who starts or ends a task does so under none but the standing one: it is found by the task that it is about.
    """
    task = "" if is_standing(entry) else entry.task
    if not task and entry.object is not None and entry.object.startswith("tk_"):
        task = entry.object
    words = (entry.agent, task, entry.person, entry.resource)
    return [word and word.replace("\0", "\ufffd") for word in words]


_BODY = sql("select body from entry where idx = :idx")
_BODIES = sql("select body from entry where idx >= :start and idx < :stop order by idx")
_LEAVES = sql("select leaf from entry where idx >= :start and idx < :stop order by idx")
_SUBTREES = sql("select hash from subtree where level = :level and idx >= :start and idx < :stop order by idx")
_FILTERS = {
    "agent": "agent = :agent",
    "task": "task = :task",
    "person": "person = :person",
    "resource": "resource = :resource",
    "action": "action = :action",
    "outcome": "outcome = :outcome",
    "since": "at >= :since",
    "until": "at < :until",
    "data_class": "data_class = :data_class",
    "after": "{idx} > :after",
    "before": "{idx} < :before",
}


def body(reader: Reader, index: int) -> bytes | None:
    """The bytes of entry `index`, as they were hashed."""
    row = reader.one(_BODY, idx=index)
    return None if row is None else bytes(row[0])


def bodies(reader: Reader, start: int, count: int) -> list[bytes]:
    """The entries from number `start` on."""
    return [bytes(row[0]) for row in reader.all(_BODIES, start=start, stop=start + count)]


_SIZES = sql(
    """select entry.idx, length(entry.body) + coalesce(length(fact.body), 0)
       from entry left join fact on fact.idx = entry.idx
       where entry.idx >= :start and entry.idx < :stop order by entry.idx limit :limit"""
)
_WITH_FACTS = sql(
    """select entry.idx, entry.body, fact.body from entry left join fact on fact.idx = entry.idx
       where entry.idx >= :start and entry.idx < :stop order by entry.idx"""
)
_FIRST = sql("select idx from entry where at >= :since order by at, idx limit 1")
_OLDEST_FACT = sql("select min(idx) from fact")
_FORGET = sql("delete from fact where idx < :before")


def end_of_page(reader: Reader, start: int, stop: int, *, count: int, size: int) -> int:
    """Up to where entries from `start` on, with their facts, are so many and have so many bytes; one at least."""
    end = start
    for index, length in reader.all(_SIZES, start=start, stop=stop, limit=count):
        size -= length
        if size < 0 and end > start:
            break
        end = index + 1
    return end


def with_facts(reader: Reader, start: int, stop: int) -> list[tuple[int, bytes, bytes | None]]:
    """(index, body, facts) of entries with an index from `start` to below `stop`, in order; None: it has no facts."""
    return reader.all(_WITH_FACTS, start=start, stop=stop)


def first_since(reader: Reader, since: int) -> int | None:
    """The index of the first entry at `since` (microseconds) or later; None: there is none."""
    row = reader.one(_FIRST, since=since)
    return None if row is None else row[0]


def oldest_facts(reader: Reader) -> int | None:
    """The index of the oldest entry that has facts."""
    row = reader.one(_OLDEST_FACT)
    return None if row is None else row[0]


def forget_facts(tx: Tx, *, before: int) -> None:
    """Forget what stands beside entries with an index below `before`; the entries stay."""
    tx.run(_FORGET, before=before)


def evidence(reader: Reader, index: int) -> str | None:
    """The DPoP proof beside entry `index`, while it is kept; not checked."""
    row = reader.one(_EVIDENCE, idx=index)
    return None if row is None else row[0]


def use_evidence(tx: Tx, digest: bytes, index: int, *, until: int) -> bool:
    """Whether the proof of that digest backs entry `index`: it backs the first entry that it was used for."""
    tx.run(_USE_EVIDENCE, digest=digest, idx=index, until=until)
    row = tx.one(_USED_FOR, digest=digest)
    return row is not None and row[0] == index


def forget_evidence(tx: Tx, *, before: int, count: int) -> bool:
    """Forget the oldest proofs of entries below `before`, of at most `count` entries; whether there may be more."""
    row = tx.one(_OLDEST_EVIDENCE)
    if row is None or row[0] is None or row[0] >= before:
        return False
    tx.run(_FORGET_EVIDENCE, before=min(before, row[0] + count))
    return True


def forget_used_evidence(tx: Tx) -> None:
    """Forget which proofs were used, once they are too old to be shown."""
    tx.run(_FORGET_USED, now=tx.now)


def rows(reader: Reader) -> Rows:
    """The stored rows of the tree: leaf hashes, and one hash for each complete 256 of the row below."""

    def read(level: int, start: int, count: int) -> list[bytes]:
        if level == 0:
            found = reader.all(_LEAVES, start=start, stop=start + count)
        else:
            found = reader.all(_SUBTREES, level=level, start=start, stop=start + count)
        return [bytes(row[0]) for row in found]

    return read


def search(reader: Reader, filters: Mapping[str, str | int], *, limit: int) -> list[tuple[int, bytes]]:
    """(index, body) of the newest entries that match every filter; after `after` the oldest first."""
    found = _find(reader, filters, limit)
    if "task" in filters:
        agent = standing_agent(str(filters["task"]))
        if filters.get("agent", agent) == agent:
            found += _find(reader, {**filters, "task": "", "agent": agent}, limit)
            found.sort(reverse="after" not in filters)
    return found[:limit]


def _find(reader: Reader, filters: Mapping[str, str | int], limit: int) -> list[tuple[int, bytes]]:
    statement = _search(tuple(sorted(filters)))
    return [(index, bytes(data)) for index, data in reader.all(statement, limit=limit, **filters)]


@lru_cache(maxsize=1 << len(_FILTERS))
def _search(names: tuple[str, ...]) -> Sql:
    """What has data classes is found by walking along the one that is looked for."""
    source, idx = "entry", "entry.idx"
    if "data_class" in names:
        source, idx = "entry_class join entry on entry.idx = entry_class.idx", "entry_class.idx"
    where = " and ".join(_FILTERS[name].format(idx=idx) for name in names) or "1 = 1"
    order = idx if "after" in names else f"{idx} desc"
    return sql(f"select entry.idx, body from {source} where {where} order by {order} limit :limit")

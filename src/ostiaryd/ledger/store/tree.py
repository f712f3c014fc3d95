"""The tables of the tree: the entries with their leaf hashes, the hashes of complete subtrees of 256, 256^2, ...
leaves, and the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ostiary.protocol.jose import unb64u
from ostiary.protocol.merkle import HASH_BYTES, Frontier, tree_root
from ostiary.protocol.note import NoteKey
from ostiary.protocol.tiles import Rows, hashes_from
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Sql, Tx, sql
from ostiaryd.ground.database.pin import Head
from ostiaryd.ground.process.ids import standing_agent
from ostiaryd.ledger.model import USES
from ostiaryd.ledger.store.indexes import NAME_TABLES

TOPIC = "ledger"
"""topic on which the database writer wakes its listeners after a commit that added entries"""
_HEAD = sql("select size, peaks, checkpoint from log_head where id = 1")
_DOMAIN = sql("select value from setting where name = 'trust_domain'", steady=True)


def has_tree(reader: Reader, stated: Head) -> bool:
    """Return whether the first `stated.size` entries of this tree have the root hash `stated.root`."""
    return stated.size <= get_head(reader)[0].size and root_at(reader, stated.size) == stated.root


def get_log_key(reader: Reader, keys: Keyring) -> NoteKey:
    """Return the public key of the log; the key's name is the origin line of the log's checkpoints."""
    row = reader.one(_DOMAIN)
    assert row is not None
    return _note_key(row[0], keys.signer("ledger").public.jwk["x"])


@lru_cache(maxsize=16)
def _note_key(domain: str, x: str) -> NoteKey:
    return NoteKey(f"{domain}/ostiary", unb64u(x))


def get_head(reader: Reader) -> tuple[Frontier, str]:
    """Return the right edge of the tree, to which entries are appended, and the signed checkpoint of the tree (empty
    text before the first entry).
    """
    row = reader.one(_HEAD)
    if row is None:
        return Frontier(), ""
    size, peaks, checkpoint = row
    return frontier_of(size, peaks), checkpoint


def frontier_of(size: int, peaks: bytes) -> Frontier:
    """Return the frontier (right edge) of a tree with `size` entries. `peaks`: the stored hashes of the complete
    subtrees of this edge, concatenated.
    """
    return Frontier(size, [peaks[i : i + HASH_BYTES] for i in range(0, len(peaks), HASH_BYTES)])


def root_at(reader: Reader, size: int) -> bytes:
    """Return the root hash of the tree at the time when it had `size` entries. The tree must have at least `size`
    entries.
    """
    return tree_root(size, hashes_from(get_hash_reader(reader)))


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
    "since": "{idx} >= :since",
    "until": "{idx} < :until",
    "after": "{idx} > :after",
    "before": "{idx} < :before",
    "without_reads_of": """not (action = 'token.issue' and outcome = 'ok'
        and coalesce(resource, '') = :without_reads_of)""",
    **{name: f"{one.column} = :{name}" for name, one in NAME_TABLES.items()},
}
"""The condition of each filter of a search."""
_TIMES = ("since", "until")
"""Filters of a search by time. The search converts them to filters by the index of the entry."""


def get_entry_body(reader: Reader, index: int) -> bytes | None:
    """Return the bytes of entry `index`, as they were hashed; None if there is no such entry."""
    row = reader.one(_BODY, idx=index)
    return None if row is None else bytes(row[0])


def list_entry_bodies(reader: Reader, start: int, count: int) -> list[bytes]:
    """Return the bytes of at most `count` entries, in order, from the entry with the index `start` on."""
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
_PLACE = sql(
    """with recursive span (low, high, size) as (
       select cast(0 as bigint), log_head.size, log_head.size from log_head where id = 1
       union all select case when entry.at < :at then (low + high) / 2 + 1 else low end,
       case when entry.at < :at then high else (low + high) / 2 end, span.size
       from span join entry on entry.idx = (low + high) / 2 where low < high)
       select low, size from span where low >= high"""
)
_OLDEST_FACT = sql("select min(idx) from fact")
_FORGET = sql("delete from fact where idx < :before")


def find_page_end(reader: Reader, start: int, stop: int, *, count: int, size: int) -> int:
    """Return the index after the last entry of a page that starts at index `start` and ends before `stop`. The page has
    at most `count` entries and `size` bytes, but at least one entry.
    """
    end = start
    for index, length in reader.all(_SIZES, start=start, stop=stop, limit=count):
        size -= length
        if size < 0 and end > start:
            break
        end = index + 1
    return end


def list_entries_with_facts(reader: Reader, start: int, stop: int) -> list[tuple[int, bytes, bytes | None]]:
    """Return (index, body, facts) of the entries from `start` to below `stop`, in order; facts are None if the
    entry has none.
    """
    return reader.all(_WITH_FACTS, start=start, stop=stop)


def find_first_since(reader: Reader, since: int) -> int | None:
    """Return the index of the first entry at `since` (microseconds) or later; None without such an entry."""
    place, size = _place(reader, since)
    return place if place < size else None


def _place(reader: Reader, at: int) -> tuple[int, int]:
    """Return (the number of entries before the time `at`, the number of all entries).

    The search is a bisection without an index, since times never decrease (`append`). Migration 171 raised the stored
    time of older entries to the highest time before them; their hashed bytes keep the original time.
    """
    return reader.one(_PLACE, at=at) or (0, 0)


def oldest_facts(reader: Reader) -> int | None:
    """Return the index of the oldest entry with stored facts (the decided request and the values of its decision); None
    if there is none.
    """
    row = reader.one(_OLDEST_FACT)
    return None if row is None else row[0]


def forget_facts(tx: Tx, *, before: int) -> None:
    """Delete the facts (the decided request and the values of its decision) stored beside entries with an index below
    `before`; the entries stay.
    """
    tx.send(_FORGET, before=before)


def get_hash_reader(reader: Reader) -> Rows:
    """Return a function that reads stored hashes by (level, start, count). Level 0 has the leaf hashes; each higher
    level has one hash for each complete group of 256 hashes of the level below.
    """

    def read(level: int, start: int, count: int) -> list[bytes]:
        if level == 0:
            rows = reader.all(_LEAVES, start=start, stop=start + count)
        else:
            rows = reader.all(_SUBTREES, level=level, start=start, stop=start + count)
        return [bytes(row[0]) for row in rows]

    return read


def search_entries(reader: Reader, filters: Mapping[str, str | int], *, limit: int) -> list[tuple[int, bytes]]:
    """Return (index, bytes) of at most `limit` entries that match every filter, the newest first; with the filter
    `after`, the oldest first.
    """
    filters = {name: _place(reader, int(value))[0] if name in _TIMES else value for name, value in filters.items()}
    matches = _find(reader, filters, limit)
    if "task" in filters:
        agent = standing_agent(str(filters["task"]))
        if filters.get("agent", agent) == agent:
            matches += _find(reader, {**filters, "task": "", "agent": agent}, limit)
            matches.sort(reverse="after" not in filters)
    return matches[:limit]


_LAST_USE = sql(f"select at from entry where agent = :agent and action in {USES} order by idx desc limit 1")


def get_last_use(reader: Reader, agent: str) -> int | None:
    """Return the time of the agent's newest act of its own (`USES`), in microseconds since the epoch; None if there is
    none.
    """
    row = reader.one(_LAST_USE, agent=agent)
    return None if row is None else row[0]


def count_entries_before(reader: Reader, at: int) -> int:
    """Return the number of entries before the time `at` (microseconds since the epoch), which is the index of the first
    entry at that time or later.
    """
    return _place(reader, at)[0]


def count(reader: Reader, filters: Mapping[str, str | int], *, most: int) -> int | None:
    """Return the number of entries that match every filter; None if the number exceeds `most`."""
    filters = {name: _place(reader, int(value))[0] if name in _TIMES else value for name, value in filters.items()}
    total = _count(reader, filters, most + 1)
    if "task" in filters:
        agent = standing_agent(str(filters["task"]))
        if filters.get("agent", agent) == agent:
            total += _count(reader, {**filters, "task": "", "agent": agent}, most + 1)
    return total if total <= most else None


_OUTCOMES = sql(
    """select count(*) from (select 1 from entry where outcome = :outcome and outcome <> 'ok'
       and idx >= :start and idx < :stop limit :most) as counted"""
)
_ACTIONS = sql(
    """select count(*) from (select 1 from entry where action = :action and outcome = 'ok' and idx >= :start
       limit :most) as counted"""
)


def count_outcomes(reader: Reader, outcome: str, start: int, stop: int, *, most: int) -> int:
    """Return the number of entries with this outcome, which must not be `ok`, and an index from `start` to below
    `stop`, counted up to `most`. For `ok` the result is 0, because no database index covers these entries.
    """
    row = reader.one(_OUTCOMES, outcome=outcome, start=start, stop=stop, most=most)
    return 0 if row is None else int(row[0])


def count_actions(reader: Reader, action: str, start: int, *, most: int) -> int:
    """Return the number of entries with this action, the outcome `ok` and an index of at least `start`, counted up to
    `most`. Refused attempts are not counted.
    """
    row = reader.one(_ACTIONS, action=action, start=start, most=most)
    return 0 if row is None else int(row[0])


def count_acts_of_agent(reader: Reader, agent: str, since: int, until: int, *, most: int) -> int:
    """Return the number of entries of the agent from the time `since` to before `until` (microseconds since the epoch),
    counted up to `most`.
    """
    return _count(reader, {"agent": agent, "since": _place(reader, since)[0], "until": _place(reader, until)[0]}, most)


def _count(reader: Reader, filters: Mapping[str, str | int], limit: int) -> int:
    row = reader.one(_count_statement(tuple(sorted(filters))), limit=limit, **filters)
    assert row is not None
    return int(row[0])


@lru_cache(maxsize=1 << len(_FILTERS))
def _count_statement(names: tuple[str, ...]) -> Sql:
    source, where, _ = _parts(names)
    return sql(f"select count(*) from (select 1 from {source} where {where} limit :limit) as counted")


def _find(reader: Reader, filters: Mapping[str, str | int], limit: int) -> list[tuple[int, bytes]]:
    statement = _search(tuple(sorted(filters)))
    return [(index, bytes(data)) for index, data in reader.all(statement, limit=limit, **filters)]


@lru_cache(maxsize=1 << len(_FILTERS))
def _search(names: tuple[str, ...]) -> Sql:
    source, where, idx = _parts(names)
    order = idx if "after" in names else f"{idx} desc"
    return sql(f"select entry.idx, body from {source} where {where} order by {order} limit :limit")


def _parts(names: tuple[str, ...]) -> tuple[str, str, str]:
    """Return the three parts of a search statement for these filters: the tables, the condition, and the column of the
    index. The filters of `NAME_TABLES` use tables of their own.
    """
    source, idx = "entry", "entry.idx"
    for table in (NAME_TABLES[name].table for name in names if name in NAME_TABLES):
        source, idx = f"{source} join {table} on {table}.idx = entry.idx", f"{table}.idx"
    return source, " and ".join(_FILTERS[name].format(idx=idx) for name in names) or "1 = 1", idx

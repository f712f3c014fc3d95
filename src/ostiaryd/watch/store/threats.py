"""Threat lists, stored as hashes (marks) of their values. The package `watch` writes the lists; guards and detectors
check values against them.
"""

from __future__ import annotations

from ostiary.provenance.noticing.threats import MARK_BYTES, ThreatList, Threats, parse_marks
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.watch.model.threats import ListId, ThreatSource

_SOURCE = f"""select list_id, name, url, form, points, created_at, due_at, refreshed_at, failed, skipped,
    length(marks) / {MARK_BYTES} from threat_list """
_SOURCES = sql(_SOURCE + "order by name")
_DUE = sql(_SOURCE + "where url <> '' and due_at <= :now order by due_at")
_BY_NAME = sql(_SOURCE + "where name = :name")
_INSERT = sql(
    """insert into threat_list
         (list_id, name, url, form, points, created_at, due_at, failed, skipped, networks, marks)
       values (:id, :name, :url, :form, :points, :created_at, :due_at, '', 0, '', :none)"""
)
_DELETE = sql("delete from threat_list where list_id = :id")
_CLAIM = sql("update threat_list set due_at = :until where list_id = :id and due_at <= :now")
_FAIL = sql("update threat_list set failed = :failed where list_id = :id")
_REFRESH = sql(
    """update threat_list set refreshed_at = :now, due_at = :due_at, failed = '', skipped = :skipped
       where list_id = :id"""
)
_FILL = sql("update threat_list set networks = :networks, marks = :marks where list_id = :id")
_LOADED = sql("select name, points, networks, marks from threat_list where list_id = :id")
_IDS = sql(f"select list_id from threat_list where length(marks) >= {MARK_BYTES} order by list_id")
_COUNT = sql(f"select coalesce(sum(length(marks)), 0) / {MARK_BYTES} from threat_list where list_id <> :id")
_VERSION = sql("select version from threat_version")
_NEXT_VERSION = sql("update threat_version set version = version + 1")


def sources(reader: Reader) -> list[ThreatSource]:
    """Return all threat lists."""
    return [_source(row) for row in reader.all(_SOURCES)]


def due(reader: Reader, *, now: int) -> list[ThreatSource]:
    """Return the lists that are due for a fetch at `now` (microseconds)."""
    return [_source(row) for row in reader.all(_DUE, now=now)]


def by_name(reader: Reader, name: str) -> ThreatSource | None:
    """Return a list by its name; None if there is none."""
    row = reader.one(_BY_NAME, name=name)
    return None if row is None else _source(row)


def insert(tx: Tx, source: ThreatSource) -> None:
    """Store a threat list without values."""
    tx.run(
        _INSERT,
        id=source.list_id,
        name=source.name,
        url=source.url,
        form=source.form,
        points=source.points,
        created_at=source.created_at,
        due_at=source.due_at,
        none=b"",
    )


def delete(tx: Tx, id: ListId) -> None:
    """Delete a threat list with all its values."""
    tx.run(_DELETE, id=id)
    tx.run(_NEXT_VERSION)


def claim(tx: Tx, id: ListId, *, until: int) -> bool:
    """Reserve the fetch of a list until `until` (microseconds). Return false if another server has reserved the fetch,
    or the list is not due.
    """
    return tx.run(_CLAIM, id=id, until=until, now=tx.now) == 1


def fail(tx: Tx, id: ListId, why: str) -> None:
    """Record why the last fetch of a list failed. The stored values do not change."""
    tx.run(_FAIL, id=id, failed=why)


def refresh(tx: Tx, id: ListId, *, due_at: int, skipped: int) -> None:
    """Record a successful fetch: the time of the next fetch (microseconds), and the number of items that cannot be
    checked.
    """
    tx.run(_REFRESH, id=id, now=tx.now, due_at=due_at, skipped=skipped)


def fill(tx: Tx, id: ListId, marks: frozenset[bytes], networks: frozenset[tuple[int, int]]) -> None:
    """Replace the values of a threat list. `marks` are hashes of values; `networks` are the prefix lengths of its
    address ranges, each as (IP version, length).
    """
    lengths = " ".join(f"{version}/{length}" for version, length in sorted(networks))
    tx.run(_FILL, id=id, networks=lengths, marks=b"".join(sorted(marks)))
    tx.run(_NEXT_VERSION)


def list_threat_lists(reader: Reader) -> list[str]:
    """Return the ids of the threat lists that have values: lists after a first successful fetch."""
    return [id for (id,) in reader.all(_IDS)]


def get_threat_list(reader: Reader, id: str) -> ThreatList | None:
    """Return a threat list with its values; None if it has no values or does not exist."""
    row = reader.one(_LOADED, id=id)
    if row is None:
        return None
    name, points, networks, marks = row
    lengths = [one.split("/") for one in networks.split()]
    pairs = frozenset((int(version), int(length)) for version, length in lengths)
    return ThreatList(name, points, parse_marks(bytes(marks)), pairs)


def load(reader: Reader) -> Threats:
    """Return all threat lists that have values, with these values, by id."""
    return {
        id: threat_list for id in list_threat_lists(reader) if (threat_list := get_threat_list(reader, id)) is not None
    }


def count(reader: Reader, *, but: str) -> int:
    """Return the number of values in all threat lists together, except the list with the id `but`."""
    row = reader.one(_COUNT, id=but)
    assert row is not None
    return int(row[0])


def version(reader: Reader) -> int:
    """Return a number that is different after each change of a list."""
    row = reader.one(_VERSION)
    assert row is not None
    return int(row[0])


def _source(row: Row) -> ThreatSource:
    id, name, url, form, points, created_at, due_at, refreshed_at, failed, skipped, count = row
    return ThreatSource(
        list_id=id,
        name=name,
        url=url,
        form=form,
        points=points,
        created_at=created_at,
        due_at=due_at,
        refreshed_at=refreshed_at,
        failed=failed,
        skipped=skipped,
        count=count,
    )

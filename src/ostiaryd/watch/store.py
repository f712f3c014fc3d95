"""Findings."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.watch.model import Finding, FindingId

_COLUMNS = "finding_id, at, detector, points, says, agent, task, owner, entries, incident"
_GET = sql(f"select {_COLUMNS} from finding where finding_id = :id")
_LATEST = sql(f"select {_COLUMNS} from finding where finding_id < :before order by finding_id desc limit :limit")
_OF_AGENT = sql(f"select {_COLUMNS} from finding where agent = :agent and at > :since order by at desc limit :limit")
_INSERT = sql(
    f"""insert into finding ({_COLUMNS})
        values (:id, :at, :detector, :points, :says, :agent, :task, :owner, :entries, :incident)"""
)


def insert(tx: Tx, finding: Finding) -> None:
    tx.run(
        _INSERT, id=finding.finding_id, at=finding.at, detector=finding.detector, points=finding.points,
        says=finding.says, agent=finding.agent, task=finding.task, owner=finding.owner,
        entries=" ".join(map(str, finding.entries)), incident=finding.incident,
    )  # fmt: skip


def get(reader: Reader, id: str) -> Finding | None:
    row = reader.one(_GET, id=id)
    return None if row is None else _finding(row)


def latest(reader: Reader, *, before: str = "~", limit: int = 50) -> list[Finding]:
    """The newest first."""
    return [_finding(row) for row in reader.all(_LATEST, before=before, limit=limit)]


def of_agent(reader: Reader, agent: str, *, since: int = 0, limit: int = 50) -> list[Finding]:
    """The newest first."""
    return [_finding(row) for row in reader.all(_OF_AGENT, agent=agent, since=since, limit=limit)]


def _finding(row: Row) -> Finding:
    id, at, detector, points, says, agent, task, owner, entries, incident = row
    return Finding(
        finding_id=FindingId(id), at=at, detector=detector, points=points, says=says, agent=agent, task=task,
        owner=owner, entries=tuple(map(int, entries.split())), incident=incident,
    )  # fmt: skip

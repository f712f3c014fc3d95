"""Stored findings, and the saved state of the detectors.

A snapshot is written in several small transactions. Its pieces get a new generation number, beside the pieces of the
earlier generation. The new pieces become valid when the last transaction writes the snapshot itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostiary.provenance.noticing import CALM, Risk
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.watch.model import Finding, FindingId, Judgement, Piece, Progress, Verdict

_COLUMNS = """finding_id, at, detector, points, says, agent, task, owner, entries, incident, resource, score, verdict,
    judged_by, judged_at, why, is_proved, may_narrow"""
_GET = sql(f"select {_COLUMNS} from finding where finding_id = :id")
_LATEST = sql(f"select {_COLUMNS} from finding where finding_id < :before order by finding_id desc limit :limit")
_OF_AGENT = sql(
    f"""select {_COLUMNS} from finding
        where agent = :agent and at > :since and at < :until and finding_id < :before
        order by at desc, finding_id desc limit :limit"""
)
_UNJUDGED = "verdict is null and finding_id > :since and finding_id < :before"
_OPEN = sql(
    f"""select {_COLUMNS} from finding where {_UNJUDGED} and (:agent = '' or agent = :agent)
        order by finding_id desc limit :limit"""
)
_COUNT_OPEN = sql(f"select count(*) from (select 1 from finding where {_UNJUDGED} limit :most) as counted")
_OF_INCIDENT = sql(f"select {_COLUMNS} from finding where incident = :incident order by finding_id desc limit :limit")
_TASKS = sql("select distinct task from finding where incident = :incident and task is not null order by task")
_JOIN = sql("update finding set incident = :incident where agent = :agent and at > :since and incident is null")
_INSERT = sql(
    """insert into finding (finding_id, at, detector, points, says, agent, task, owner, entries, incident, resource,
           score, is_proved, may_narrow)
       values (:id, :at, :detector, :points, :says, :agent, :task, :owner, :entries, :incident, :resource, :score,
           :is_proved, :may_narrow)"""
)
_JUDGE = sql(
    """update finding set verdict = :verdict, judged_by = :by, judged_at = :at, why = :why
       where finding_id = :id and verdict is null"""
)


def insert(tx: Tx, finding: Finding) -> None:
    """Store a finding."""
    tx.run(
        _INSERT,
        id=finding.finding_id,
        at=finding.at,
        detector=finding.detector,
        points=finding.points,
        says=finding.says,
        agent=finding.agent,
        task=finding.task,
        owner=finding.owner,
        entries=" ".join(map(str, finding.entries)),
        incident=finding.incident,
        resource=finding.resource,
        score=f"{finding.score:g}",
        is_proved=int(finding.is_proved),
        may_narrow=int(finding.may_narrow),
    )


def get(reader: Reader, id: str) -> Finding | None:
    """Return the finding with this id; None if there is none."""
    row = reader.one(_GET, id=id)
    return None if row is None else _finding(row)


def latest(reader: Reader, *, before: str = "~", limit: int = 50) -> list[Finding]:
    """Return at most `limit` findings with an id below `before`, newest first."""
    return [_finding(row) for row in reader.all(_LATEST, before=before, limit=limit)]


def of_agent(
    reader: Reader, agent: str, *, since: int = 0, until: int = 1 << 62, before: str = "~", limit: int = 50
) -> list[Finding]:
    """Return at most `limit` findings about an agent after `since` and before `until` (microseconds), with an id below
    `before`, newest first.
    """
    rows = reader.all(_OF_AGENT, agent=agent, since=since, until=until, before=before, limit=limit)
    return [_finding(row) for row in rows]


def open_findings(reader: Reader, *, since: int, before: str = "~", agent: str = "", limit: int = 50) -> list[Finding]:
    """Return at most `limit` findings since a time (microseconds) that no person has judged, with an id below `before`,
    newest first; `agent`: those about one agent.
    """
    rows = reader.all(_OPEN, since=_id_at(since), before=before, agent=agent, limit=limit)
    return [_finding(row) for row in rows]


def count_open_findings(reader: Reader, *, since: int, most: int) -> int:
    """Return the number of findings since a time (microseconds) that no person has judged; count no further than
    `most`.
    """
    row = reader.one(_COUNT_OPEN, since=_id_at(since), before="~", most=most)
    return 0 if row is None else int(row[0])


def _id_at(at: int) -> str:
    """Return a text that sorts below the ids of all findings from a time (microseconds) on: ids begin with the time in
    milliseconds (RFC 9562).
    """
    return f"fi_{max(0, at) // 1000 << 80:032x}"


def judge(tx: Tx, id: str, judgement: Judgement) -> bool:
    """Store a person's verdict on a finding; return false if the finding already had one."""
    return (
        tx.run(_JUDGE, id=id, verdict=judgement.verdict.value, by=judgement.by, at=judgement.at, why=judgement.why) == 1
    )


def of_incident(reader: Reader, incident: str, *, limit: int = 200) -> list[Finding]:
    """Return at most `limit` findings of an incident, newest first."""
    return [_finding(row) for row in reader.all(_OF_INCIDENT, incident=incident, limit=limit)]


def tasks_of_incident(reader: Reader, incident: str) -> list[str]:
    """Return the ids of all tasks that have a finding in the incident, without a limit."""
    return [task for (task,) in reader.all(_TASKS, incident=incident)]


def join(tx: Tx, agent: str, incident: str, *, since: int) -> int:
    """Add to an incident the findings about an agent after `since` (microseconds) that belong to no incident; return
    the number of added findings.
    """
    return tx.run(_JOIN, agent=agent, incident=incident, since=since)


def _finding(row: Row) -> Finding:
    (
        id,
        at,
        detector,
        points,
        says,
        agent,
        task,
        owner,
        entries,
        incident,
        resource,
        score,
        verdict,
        by,
        judged_at,
        why,
        is_proved,
        may_narrow,
    ) = row
    return Finding(
        finding_id=FindingId(id),
        at=at,
        detector=detector,
        points=points,
        says=says,
        agent=agent,
        task=task,
        owner=owner,
        entries=tuple(map(int, entries.split())),
        incident=incident,
        resource=resource,
        score=float(score or 0),
        is_proved=bool(is_proved),
        may_narrow=bool(may_narrow),
        judgement=None if verdict is None else Judgement(Verdict(verdict), by, judged_at, why),
    )


_CLAIMED = sql("select millis, at from guard_claim where agent = :agent and resource = :resource")
_PUT_CLAIMED = sql(
    """insert into guard_claim (agent, resource, millis, at) values (:agent, :resource, :millis, :at)
       on conflict (agent, resource) do update set millis = excluded.millis, at = excluded.at"""
)
_FORGET_CLAIMS = sql("delete from guard_claim where at <= :before")


def claimed(reader: Reader, agent: str, resource: str) -> Risk:
    """Return the points that the guard of this resource has added to the agent's risk by reports without proofs, as a
    decaying risk.
    """
    row = reader.one(_CLAIMED, agent=agent, resource=resource)
    return CALM if row is None else Risk(*row)


def put_claimed(tx: Tx, agent: str, resource: str, risk: Risk) -> None:
    """Store the points that the guard of this resource has added to the agent's risk by reports without proofs."""
    tx.run(_PUT_CLAIMED, agent=agent, resource=resource, millis=risk.millis, at=risk.at)


def forget_claims(tx: Tx, *, before: int) -> int:
    """Delete claims of guards that were last raised at `before` (microseconds) or earlier; return the number of deleted
    claims.
    """
    return tx.run(_FORGET_CLAIMS, before=before)


# --- stored state of the detectors ----------------------------------------------------------------------------------

_PROGRESS = sql("select told, told_by, generation, snapshot from watcher where id = 1")
_TOLD = sql("update watcher set told = :told, told_by = :by where id = 1")
_PIECES = sql(
    """select key, body from watched as piece
       where key > :after and generation = (
           select max(generation) from watched as version
           where version.key = piece.key and version.generation <= :generation
       ) order by key limit :limit"""
)
_PUT = sql(
    """insert into watched (key, generation, body) values (:key, :generation, :body)
       on conflict (key, generation) do update set body = excluded.body"""
)
_SUPERSEDED = sql(
    """delete from watched where key = :key and generation < (
           select max(generation) from watched as version where version.key = :key and version.generation < :generation
       )"""
)
_UNFINISHED = sql("delete from watched where generation > :generation")
_FORGET = sql("delete from watched where key = :key")
_FINISH = sql("update watcher set generation = :generation, snapshot = :snapshot where id = 1")


def progress(reader: Reader) -> Progress:
    """Return the stored progress of the detectors."""
    row = reader.one(_PROGRESS)
    assert row is not None  # the row exists: its migration inserts it
    reported, by, generation, snapshot = row
    return Progress(reported, by, generation, None if snapshot is None else bytes(snapshot))


def put_told(tx: Tx, number: int, detector: str) -> None:
    """Store the progress: all findings about entries below `number` are stored, and about the entry `number` the
    findings of the detectors up to `detector` in alphabetical order.
    """
    tx.run(_TOLD, told=number, by=detector)


def pieces(reader: Reader, generation: int, *, after: str, limit: int) -> list[Piece]:
    """Return at most `limit` pieces that are valid in this generation, ordered by key, beginning after the key `after`.
    A piece that did not change since has an earlier generation number.
    """
    rows = reader.all(_PIECES, generation=generation, after=after, limit=limit)
    return [Piece(key, bytes(body)) for key, body in rows]


def put_pieces(tx: Tx, generation: int, pieces: Iterable[Piece]) -> None:
    """Store pieces of an unfinished snapshot. Of each piece's earlier versions only the newest is kept, which is valid
    until the snapshot is finished.
    """
    for key, body in pieces:
        tx.run(_SUPERSEDED, key=key, generation=generation)
        tx.run(_PUT, key=key, generation=generation, body=body)


def finish(tx: Tx, generation: int, snapshot: bytes, gone: Sequence[str]) -> None:
    """Make the snapshot of this generation valid in place of the earlier snapshot, and delete the pieces with the keys
    `gone`.
    """
    tx.run(_FINISH, generation=generation, snapshot=snapshot)
    tx.many(_FORGET, [(key,) for key in gone])


def drop_unfinished(tx: Tx, generation: int) -> None:
    """Delete the pieces of a snapshot that was not finished: those with a generation above `generation`."""
    tx.run(_UNFINISHED, generation=generation)

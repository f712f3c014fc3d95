"""Stored findings, and the risk that guards claimed without proofs."""

from __future__ import annotations

from ostiary.provenance.noticing import CALM, Risk
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.watch.model import Finding, FindingId, Judgement, Verdict

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
_CLAIMED = sql("select millis, at from guard_claim where agent = :agent and resource = :resource")
_PUT_CLAIMED = sql(
    """insert into guard_claim (agent, resource, millis, at) values (:agent, :resource, :millis, :at)
       on conflict (agent, resource) do update set millis = excluded.millis, at = excluded.at"""
)
_FORGET_CLAIMS = sql("delete from guard_claim where at <= :before")


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


def list_findings_of_agent(
    reader: Reader, agent: str, *, since: int = 0, until: int = 1 << 62, before: str = "~", limit: int = 50
) -> list[Finding]:
    """Return at most `limit` findings about an agent after `since` and before `until` (microseconds), with an id below
    `before`, newest first.
    """
    rows = reader.all(_OF_AGENT, agent=agent, since=since, until=until, before=before, limit=limit)
    return [_finding(row) for row in rows]


def open_findings(reader: Reader, *, since: int, before: str = "~", agent: str = "", limit: int = 50) -> list[Finding]:
    """Return at most `limit` findings since `since` (microseconds) that no person has judged, with an id below
    `before`, newest first; only those about `agent`, unless it is empty.
    """
    rows = reader.all(_OPEN, since=_id_at(since), before=before, agent=agent, limit=limit)
    return [_finding(row) for row in rows]


def count_open_findings(reader: Reader, *, since: int, most: int) -> int:
    """Return the number of findings since a time (microseconds) that no person has judged, at most `most`."""
    row = reader.one(_COUNT_OPEN, since=_id_at(since), before="~", most=most)
    return 0 if row is None else int(row[0])


def _id_at(at: int) -> str:
    """Return a text that sorts below the ids of all findings from a time (microseconds) on: ids begin with the time in
    milliseconds (RFC 9562).
    """
    return f"fi_{max(0, at) // 1000 << 80:032x}"


def judge(tx: Tx, id: str, judgement: Judgement) -> bool:
    """Store a person's verdict on a finding; return false, and store nothing, if the finding already has a verdict."""
    return (
        tx.run(_JUDGE, id=id, verdict=judgement.verdict.value, by=judgement.by, at=judgement.at, why=judgement.why) == 1
    )


def list_findings_of_incident(reader: Reader, incident: str, *, limit: int = 200) -> list[Finding]:
    """Return at most `limit` findings of an incident, newest first."""
    return [_finding(row) for row in reader.all(_OF_INCIDENT, incident=incident, limit=limit)]


def list_tasks_of_incident(reader: Reader, incident: str) -> list[str]:
    """Return the ids of all tasks that have a finding in the incident, without a limit."""
    return [task for (task,) in reader.all(_TASKS, incident=incident)]


def assign_findings(tx: Tx, agent: str, incident: str, *, since: int) -> int:
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


def claimed(reader: Reader, agent: str, resource: str) -> Risk:
    """Return the decaying risk points that the guard of this resource has added to the agent's risk by reports without
    proofs.
    """
    row = reader.one(_CLAIMED, agent=agent, resource=resource)
    return CALM if row is None else Risk(*row)


def put_claimed(tx: Tx, agent: str, resource: str, risk: Risk) -> None:
    """Store the decaying risk points that the guard of this resource has added to the agent's risk by reports without
    proofs.
    """
    tx.run(_PUT_CLAIMED, agent=agent, resource=resource, millis=risk.millis, at=risk.at)


def forget_claims(tx: Tx, *, before: int) -> int:
    """Delete the records of risk points by guards (`put_claimed`) that were last changed at `before` (microseconds) or
    earlier; return the number of deleted records.
    """
    return tx.run(_FORGET_CLAIMS, before=before)

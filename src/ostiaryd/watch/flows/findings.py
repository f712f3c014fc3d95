"""Findings: each finding is stored, and raises the risk of its agent and task, which guards receive in the feed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from ostiary.protocol.errors import Conflict, NotFound
from ostiary.provenance.noticing import HALF_LIFE, MAX_SAYS, Noticed, Risk
from ostiary.provenance.noticing.risk import OVER_AFTER, SCALE
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.model import RiskDelta
from ostiaryd.watch import store
from ostiaryd.watch.flows.evidence import is_proved
from ostiaryd.watch.model import JUDGE, MAX_ENTRIES, Finding, FindingId, Judgement, Sighting, Verdict

MAX_CLAIMED = 30
"""Maximum risk of one agent that one guard can cause by reports without proofs, in points. The points decay like the
risk score.
"""
UNPROVED = (
    " (reported by one guard without the agent's proof: isolation needs the report of a second guard, or a person)"
)
Response = Callable[[Act, Finding], object]
"""The response to a finding: a function of the act and the finding, which runs in the act that stores the finding."""


def record_finding(act: Act, noticed: Noticed, *, agent: str, task: str | None, entries: tuple[int, ...]) -> Finding:
    """Store and return a finding that the server itself made, without a detector (`BY_SERVER`), and raise the risk
    scores of the agent and the task. No response is started; the caller can start one. Raises NotFound for an agent
    that is not registered.
    """
    finding = Finding(
        finding_id=FindingId(act.new_id("fi")),
        at=act.now,
        detector=noticed.detector,
        points=noticed.points,
        says=noticed.says,
        agent=agent,
        task=task,
        owner=registry.find_agent(act.tx, agent).owner,
        entries=entries[-MAX_ENTRIES:],
    )
    _store(act, finding, seen_at=act.now)
    return finding


def record_sighting(act: Act, one: Sighting, then: Response) -> Finding | None:
    """Store a sighting (an anomaly that the process of the detectors reported) as a finding, raise the risk scores of
    its agent and task, run the response `then`, and return the finding. Return None if the finding is already stored,
    for example after a restart.

    If the event is old, for example because the detectors were off, its points decay for that time before they raise
    the scores.
    """
    if store.snapshots.progress(act.tx).is_stored(one.number, one.detector):
        return None
    store.snapshots.put_told(act.tx, one.number, one.detector)
    registered = registry.get_agent(act.tx, one.agent) if one.agent else None
    proved = is_proved(act, {one.number, *one.entries})
    finding = Finding(
        finding_id=FindingId(act.new_id("fi")),
        at=act.now,
        detector=one.detector,
        points=one.points,
        says=one.says if proved else one.says[: MAX_SAYS - len(UNPROVED)] + UNPROVED,
        agent=one.agent,
        task=one.task or None,
        owner=None if registered is None else registered.owner,
        entries=one.entries[-MAX_ENTRIES:],
        resource=one.resource or None,
        score=one.score,
        is_proved=proved,
        may_narrow=one.may_narrow,
    )
    _store(act, finding, seen_at=min(one.at, act.now), counted=one.counted)
    then(act, finding)
    return finding


def _store(act: Act, finding: Finding, *, seen_at: int, counted: int = 0) -> None:
    """Store a finding about an event at `seen_at` (microseconds), write the finding into the act's ledger entry, and
    raise the risk of its agent and task.
    """
    agent, resource = finding.agent, finding.resource
    registry.fill_entry(
        act, object=finding.finding_id, owner=finding.owner, detector=finding.detector, points=finding.points
    )
    act.entry.agent, act.entry.task, act.entry.resource = agent or None, finding.task, resource
    store.findings.insert(act.tx, finding)
    points = int(finding.points * 0.5 ** ((act.now - seen_at) / HALF_LIFE))
    if not finding.is_proved:
        points, counted = _claim(act, agent, resource or "", points), 0  # `_claim` counts repeated evidence once
    if points:
        for subject in filter(None, (agent, finding.task)):
            raise_risk(act, subject, points, counted=counted)


def _claim(act: Act, agent: str, resource: str, points: int) -> int:
    """Return how many of `points` a guard's report without proof may add to the agent's risk, so that the guard's
    claims stay within `MAX_CLAIMED`. Add them to the guard's claims.
    """
    claimed = store.findings.claimed(act.tx, agent, resource)
    granted = min(points, max(0, MAX_CLAIMED - claimed.points(act.now)))
    if granted:
        millis = claimed.points(act.now) * SCALE + granted * SCALE
        store.findings.put_claimed(act.tx, agent, resource, Risk(millis, act.now))
    return granted


async def forget_risks(world: World) -> None:
    """Delete risk scores that have decayed to zero, and likewise decayed records of the points that guards have added
    without proofs.
    """
    before = world.now.horizon - OVER_AFTER

    def forget(tx: Tx) -> None:
        registry.forget_risks(tx, before=before)
        store.findings.forget_claims(tx, before=before)

    await world.writer.submit(forget)


def raise_risk(act: Act, subject: str, points: int, *, counted: int = 0) -> None:
    """Raise the risk score of a subject (agent or task) by `points`, and send the new score to guards.

    `counted`: points that an earlier finding of the same evidence has already added, and that are not added again
    (`Risk.raised`).
    """
    risk = registry.get_risk(act.tx, subject).raised(points, act.now, counted=counted)
    registry.put_risk(act.tx, subject, risk)
    queue_for_guards(act, RiskDelta(subject, risk.millis, risk.at))


def find_finding(reader: Reader, id: str) -> Finding:
    """Return a finding by id. Raises NotFound if there is none."""
    if (finding := store.findings.get(reader, id)) is None:
        raise NotFound(f"there is no finding with the id {id[:70]!a}", hint="list the findings: ostiary watch findings")
    return finding


def record_verdict(act: Act, ids: Iterable[str], verdict: Verdict, *, by: str, why: str) -> None:
    """Store a person's verdict on findings: real or false alarm. For each agent among the findings, write a further
    ledger entry, from which the detectors learn the verdict.

    `by` is the id of the person, `why` the reason. Raises NotFound for an unknown finding, and Conflict for a finding
    that has a verdict already.
    """
    by_agent: dict[str, list[Finding]] = defaultdict(list)
    for id in ids:
        finding = find_finding(act.tx, id)
        if not store.findings.judge(act.tx, id, Judgement(verdict, by, act.now, why)):
            raise Conflict(
                f"a person has already given a verdict on the finding {id}",
                hint=f"show the verdict: ostiary watch explain {id}",
                code="judged",
            )
        by_agent[finding.agent].append(finding)
    for agent, findings in by_agent.items():
        judgement = {
            "detectors": [one.detector for one in findings],
            "tasks": len({one.task for one in findings}),
            "is_real": verdict is Verdict.REAL,
        }
        act.further_entries.append(
            Entry(at=act.now, action=JUDGE, agent=agent or None, person=act.entry.person, detail=judgement)
        )


def no_response(act: Act, finding: Finding) -> None:
    """Do nothing. Replaces the response to a finding if that response failed, so that the finding is stored
    nevertheless.
    """


def start_at_end_of_ledger(tx: Tx) -> None:
    """Mark all present ledger entries as reported, if the detectors have never run: from these entries the detectors
    learn, but they report no findings about them.
    """
    if store.snapshots.progress(tx).stored < 0 and (size := ledger.get_head(tx)[0].size):
        store.snapshots.put_told(tx, size - 1, "~")

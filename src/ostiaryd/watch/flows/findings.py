"""What happens when something is noticed: it is kept, and the risk of the agent and its task rises, for guards too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from ostiary.core.errors import Conflict, NotFound
from ostiary.core.watch import HALF_LIFE, Noticed
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows.feed import tell
from ostiaryd.registry.model import RiskDelta
from ostiaryd.registry.store import agents, risks
from ostiaryd.watch import store
from ostiaryd.watch.model import JUDGE, MAX_ENTRIES, Finding, FindingId, Judgement, Sighting, Verdict

Then = Callable[[Act, Finding], object]
"""What else happens in the act in which a finding is kept."""


def find(act: Act, noticed: Noticed, *, agent: str, task: str | None, entries: tuple[int, ...]) -> Finding:
    """Keep what a detector noticed. Raises NotFound for an agent that is not registered."""
    registry.find_agent(act.tx, agent)
    return _keep(act, noticed, agent=agent, task=task, entries=entries, resource=None, score=0.0, at=act.now)


def keep(act: Act, one: Sighting, then: Then) -> Finding | None:
    """Keep what the detectors told, once: None where it is kept already, as after a restart.

    What was noticed long ago, since nobody looked meanwhile, raises the risk by what would be left of it.
    """
    if store.progress(act.tx).is_told(one.number, one.detector):
        return None
    store.put_told(act.tx, one.number, one.detector)
    noticed = Noticed(detector=one.detector, points=one.points, says=one.says)
    finding = _keep(
        act, noticed, agent=one.agent, task=one.task or None, entries=one.entries, resource=one.resource or None,
        score=one.score, at=min(one.at, act.now),
    )  # fmt: skip
    then(act, finding)
    return finding


def _keep(
    act: Act,
    noticed: Noticed,
    *,
    agent: str,
    task: str | None,
    entries: tuple[int, ...],
    resource: str | None,
    score: float,
    at: int,
) -> Finding:
    known = agents.get(act.tx, agent) if agent else None
    owner = None if known is None else known.owner
    finding = Finding(
        finding_id=FindingId(act.new_id("fi")), at=act.now, detector=noticed.detector, points=noticed.points,
        says=noticed.says, agent=agent, task=task, owner=owner, entries=entries[-MAX_ENTRIES:], resource=resource,
        score=score,
    )  # fmt: skip
    registry.note(act, object=finding.finding_id, owner=owner, detector=noticed.detector, points=noticed.points)
    act.entry.agent, act.entry.task, act.entry.resource = agent or None, task, resource
    store.insert(act.tx, finding)
    if points := int(noticed.points * 0.5 ** ((act.now - at) / HALF_LIFE)):
        for subject in filter(None, (agent, task)):
            raise_risk(act, subject, points)
    return finding


def raise_risk(act: Act, subject: str, points: int) -> None:
    """Doubt an agent or a task more; guards hear of it."""
    risk = risks.get(act.tx, subject).raised(points, act.now)
    risks.put(act.tx, subject, risk)
    tell(act, RiskDelta(subject, risk.millis, risk.at))


def find_finding(reader: Reader, id: str) -> Finding:
    """Raises NotFound."""
    if (found := store.get(reader, id)) is None:
        raise NotFound("there is no such finding", hint="ostiary watch findings")
    return found


def judge(act: Act, ids: Iterable[str], verdict: Verdict, *, by: str, why: str) -> None:
    """A person says whether there was something; the detectors hear of it through the ledger, once for each finding.

    Raises NotFound, Conflict for a finding that was judged before.
    """
    by_agent: dict[str, list[str]] = defaultdict(list)
    for id in ids:
        finding = find_finding(act.tx, id)
        if not store.judge(act.tx, id, Judgement(verdict, by, act.now, why)):
            raise Conflict(f"the finding {id} was judged before", code="judged")
        by_agent[finding.agent].append(finding.detector)
    for agent, detectors in by_agent.items():
        said = {"detectors": detectors, "is_real": verdict is Verdict.REAL}
        act.told.append(Entry(at=act.now, action=JUDGE, agent=agent or None, person=act.entry.person, detail=said))


def nothing(act: Act, finding: Finding) -> None:
    """What else happens where nobody responds."""


def begin(tx: Tx) -> None:
    """Where the detectors have never been at work: of what has happened so far they learn, and tell nothing."""
    if store.progress(tx).told < 0 and (size := ledger.head(tx)[0].size):
        store.put_told(tx, size - 1, "~")

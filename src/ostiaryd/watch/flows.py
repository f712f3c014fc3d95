"""What happens when something is noticed: it is kept, and the risk of the agent and its task rises, for guards too."""

from __future__ import annotations

from ostiary.core.watch import Noticed
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows.feed import tell
from ostiaryd.registry.model import RiskDelta
from ostiaryd.registry.store import risks
from ostiaryd.watch import store
from ostiaryd.watch.model import MAX_ENTRIES, Finding, FindingId


def find(act: Act, noticed: Noticed, *, agent: str, task: str | None, entries: tuple[int, ...]) -> Finding:
    """Keep what a detector noticed. Raises NotFound for an agent that is not registered."""
    owner = registry.find_agent(act.tx, agent).owner
    finding = Finding(
        finding_id=FindingId(act.new_id("fi")), at=act.now, detector=noticed.detector, points=noticed.points,
        says=noticed.says, agent=agent, task=task, owner=owner, entries=entries[-MAX_ENTRIES:],
    )  # fmt: skip
    registry.note(act, object=finding.finding_id, owner=owner, detector=noticed.detector, points=noticed.points)
    act.entry.agent, act.entry.task = agent, task
    store.insert(act.tx, finding)
    for subject in filter(None, (agent, task)):
        raise_risk(act, subject, noticed.points)
    return finding


def raise_risk(act: Act, subject: str, points: int) -> None:
    """Doubt an agent or a task more; guards hear of it."""
    risk = risks.get(act.tx, subject).raised(points, act.now)
    risks.put(act.tx, subject, risk)
    tell(act, RiskDelta(subject, risk.millis, risk.at))

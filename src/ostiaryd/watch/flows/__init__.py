"""Operations on findings and threat lists, and control of the detectors' process."""

from ostiaryd.watch.flows.evidence import forget_evidence
from ostiaryd.watch.flows.findings import Then, find, find_finding, forget_risks, judge, keep, nothing, raise_risk
from ostiaryd.watch.flows.process import OFF, Watch, watch
from ostiaryd.watch.store import (
    count_open_findings,
)
from ostiaryd.watch.store import (
    join as assign_findings,
)
from ostiaryd.watch.store import (
    of_agent as list_findings_of_agent,
)
from ostiaryd.watch.store import (
    of_incident as list_findings_of_incident,
)
from ostiaryd.watch.store import (
    tasks_of_incident as list_tasks_of_incident,
)
from ostiaryd.watch.store.threats import (
    ids as list_threat_lists,
)
from ostiaryd.watch.store.threats import (
    loaded as get_threat_list,
)

__all__ = [
    "OFF",
    "Then",
    "Watch",
    "assign_findings",
    "count_open_findings",
    "find",
    "find_finding",
    "forget_evidence",
    "forget_risks",
    "get_threat_list",
    "judge",
    "keep",
    "list_findings_of_agent",
    "list_findings_of_incident",
    "list_tasks_of_incident",
    "list_threat_lists",
    "nothing",
    "raise_risk",
    "watch",
]

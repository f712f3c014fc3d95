"""Operations on findings and threat lists, and control of the detectors' process."""

from ostiaryd.watch.flows.evidence import forget_evidence
from ostiaryd.watch.flows.findings import (
    Response,
    find_finding,
    forget_risks,
    no_response,
    raise_risk,
    record_finding,
    record_sighting,
    record_verdict,
)
from ostiaryd.watch.flows.process import OFF, Watch, watch
from ostiaryd.watch.store.findings import count_open_findings
from ostiaryd.watch.store.findings import join as assign_findings
from ostiaryd.watch.store.findings import of_agent as list_findings_of_agent
from ostiaryd.watch.store.findings import of_incident as list_findings_of_incident
from ostiaryd.watch.store.findings import tasks_of_incident as list_tasks_of_incident
from ostiaryd.watch.store.threats import (
    ids as list_threat_lists,
)
from ostiaryd.watch.store.threats import (
    loaded as get_threat_list,
)

__all__ = [
    "OFF",
    "Response",
    "Watch",
    "assign_findings",
    "count_open_findings",
    "find_finding",
    "forget_evidence",
    "forget_risks",
    "get_threat_list",
    "list_findings_of_agent",
    "list_findings_of_incident",
    "list_tasks_of_incident",
    "list_threat_lists",
    "no_response",
    "raise_risk",
    "record_finding",
    "record_sighting",
    "record_verdict",
    "watch",
]

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
from ostiaryd.watch.store.findings import (
    assign_findings,
    count_open_findings,
    list_findings_of_agent,
    list_findings_of_incident,
    list_tasks_of_incident,
)
from ostiaryd.watch.store.threats import get_threat_list, list_threat_lists

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

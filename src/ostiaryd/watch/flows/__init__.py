"""What happens when something is noticed, and the process in which detectors notice it."""

from ostiaryd.watch.flows.evidence import forget_evidence
from ostiaryd.watch.flows.findings import Then, find, find_finding, forget_risks, judge, keep, nothing, raise_risk
from ostiaryd.watch.flows.process import OFF, Watch, watch

__all__ = [
    "OFF",
    "Then",
    "Watch",
    "find",
    "find_finding",
    "forget_evidence",
    "forget_risks",
    "judge",
    "keep",
    "nothing",
    "raise_risk",
    "watch",
]

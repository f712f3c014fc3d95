"""The decision on a tool call. Guards and the server use this same code.

Its inputs are prepared ahead of the call:

    Principal(claims)                  the caller            once per token
    Protected(name=.., uri=.., ..)     the resource          once per resource and catalogue
    Policies(hash, policy set)         the rules             once per set
    Facts                              the present state     kept current by the deltas of the feed

A call is then resolved, decided and settled:

    call = resolve(principal, tool, arguments, facts, now)
    decision = decide(call, DecisionInputs(memory=..))

`decide` has the list of rules. It takes the inputs of this call from `DecisionInputs`; `decide_steps` yields a request
for each missing input.
"""

from ostiary.decision.access.decide import Decision, check_liveness, decide, decide_steps, deny, find_unproved, refuse
from ostiary.decision.access.facts import AgentStatus, Facts, Principal, Protected, ReadyTool
from ostiary.decision.access.foresee import ALWAYS, NEVER, foresee, unknown_arguments
from ostiary.decision.access.inputs import (
    DecisionInputs,
    History,
    Need,
    RemoteAnswers,
    RemotePolicies,
    ResolvedCall,
    Steps,
    TaskMemory,
    resolve,
)
from ostiary.decision.access.lazy_context import CallHistory, past_of
from ostiary.decision.access.policies import BASE_TYPES, CALL, HISTORY, RISK, Foresight, Judgement, Needs, Policies
from ostiary.decision.access.reasons import Reason
from ostiary.decision.access.recorded import Kept, MemberSizes, arguments_to_record, members_to_record
from ostiary.decision.access.remote_policies import PolicyResult, RemoteSource, fail_all
from ostiary.decision.access.restrictions import Restriction
from ostiary.decision.access.risk_context import risk_context

__all__ = [
    "ALWAYS",
    "BASE_TYPES",
    "CALL",
    "HISTORY",
    "NEVER",
    "RISK",
    "AgentStatus",
    "CallHistory",
    "Decision",
    "DecisionInputs",
    "Facts",
    "Foresight",
    "History",
    "Judgement",
    "Kept",
    "MemberSizes",
    "Need",
    "Needs",
    "Policies",
    "PolicyResult",
    "Principal",
    "Protected",
    "ReadyTool",
    "Reason",
    "RemoteAnswers",
    "RemotePolicies",
    "RemoteSource",
    "ResolvedCall",
    "Restriction",
    "Steps",
    "TaskMemory",
    "arguments_to_record",
    "check_liveness",
    "decide",
    "decide_steps",
    "deny",
    "fail_all",
    "find_unproved",
    "foresee",
    "members_to_record",
    "past_of",
    "refuse",
    "resolve",
    "risk_context",
    "unknown_arguments",
]

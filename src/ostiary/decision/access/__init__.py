"""The decision on a tool call, made by guards and by the server with this same code.

What it rests on is made ready ahead of the call:

    Principal(claims)                  who asks              once per token
    Protected(name=.., uri=.., ..)     what is asked for     once per resource and catalogue
    Policies(hash, policy set)         the rules             once per set
    Facts                              what is true now      kept current by the feed's deltas

and `decide(principal, tool=.., arguments=.., facts=.., now=..) -> Decision` takes five steps, each of which can deny:

    liveness    token and key are alive, the task and those above it, the agent and those it acts for
    audience    the token is for this resource, and the call within what its agents are held to
    task        the tool is known, its scope is in the token, and the token's bounds permit the call
    arguments   they are what the tool's schema says
    policies    one permits, none forbids, none fails; or a person must be asked

In mode `watch` a denial is recorded and the call passes, except for the first two steps: a dead token, or one for
another audience, is no matter of policy.
"""

from ostiary.decision.access.decide import Decision, dead, decide, deny, refuse, unproved
from ostiary.decision.access.doubt import doubted
from ostiary.decision.access.elsewhere import Elsewhere, Said, failed
from ostiary.decision.access.facts import AgentFact, Facts, Principal, Protected, ReadyTool
from ostiary.decision.access.foresee import ALWAYS, NEVER, foresee, unknown_arguments
from ostiary.decision.access.holds import Hold
from ostiary.decision.access.past import Past, past_of
from ostiary.decision.access.policies import BASE_TYPES, CALL, HISTORY, RISK, Foresight, Judgement, Needs, Policies
from ostiary.decision.access.reasons import Reason
from ostiary.decision.access.recorded import Kept, keep

__all__ = [
    "ALWAYS",
    "BASE_TYPES",
    "CALL",
    "HISTORY",
    "NEVER",
    "RISK",
    "AgentFact",
    "Decision",
    "Elsewhere",
    "Facts",
    "Foresight",
    "Hold",
    "Judgement",
    "Kept",
    "Needs",
    "Past",
    "Policies",
    "Principal",
    "Protected",
    "ReadyTool",
    "Reason",
    "Said",
    "dead",
    "decide",
    "deny",
    "doubted",
    "failed",
    "foresee",
    "keep",
    "past_of",
    "refuse",
    "unknown_arguments",
    "unproved",
]

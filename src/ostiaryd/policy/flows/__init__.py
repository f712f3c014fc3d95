"""Operations on policy sets, and the decisions of the active set."""

from ostiaryd.policy.flows.approvals import hold_approval, ready_tool, spend_approval
from ostiaryd.policy.flows.decide import (
    decide_all,
    decide_one,
    keep_facts,
)
from ostiaryd.policy.flows.entity_lookup import entity_of_agent
from ostiaryd.policy.flows.evaluator import Evaluator, ToolCall
from ostiaryd.policy.flows.external_retry import FRESH, RemotePoliciesNeeded, Retry
from ostiaryd.policy.flows.issuance import (
    TaskChain,
    check_certificate,
    check_delegation,
    check_secret,
    decide_issue,
    judge_elevation,
    may_use_secrets,
    why_no_token,
)
from ostiaryd.policy.flows.live import AREAS, list_families
from ostiaryd.policy.flows.roles import (
    authorize_person,
    check_consent,
    check_person_certificate,
    known_roles,
    list_operations,
    list_readable_areas,
    may_answer,
)
from ostiaryd.policy.flows.search import note_search, search
from ostiaryd.policy.flows.sets import (
    activate,
    activate_starter,
    active_policies,
    active_set,
    check_plan,
    find_set,
    list_sets,
    no_set,
    note_unknown_approvers,
    plan_activation,
    plan_put,
    put,
    ready_set,
    show_set,
    stop_watching,
    watch,
)
from ostiaryd.policy.flows.whatif import Gate, Span, begin_whatif
from ostiaryd.policy.store import active_hash, get_active_ir

__all__ = [
    "AREAS",
    "FRESH",
    "Evaluator",
    "Gate",
    "RemotePoliciesNeeded",
    "Retry",
    "Span",
    "TaskChain",
    "ToolCall",
    "activate",
    "activate_starter",
    "active_hash",
    "active_policies",
    "active_set",
    "authorize_person",
    "begin_whatif",
    "check_certificate",
    "check_consent",
    "check_delegation",
    "check_person_certificate",
    "check_plan",
    "check_secret",
    "decide_all",
    "decide_issue",
    "decide_one",
    "entity_of_agent",
    "find_set",
    "get_active_ir",
    "hold_approval",
    "judge_elevation",
    "keep_facts",
    "known_roles",
    "list_families",
    "list_operations",
    "list_readable_areas",
    "list_sets",
    "may_answer",
    "may_use_secrets",
    "no_set",
    "note_search",
    "note_unknown_approvers",
    "plan_activation",
    "plan_put",
    "put",
    "ready_set",
    "ready_tool",
    "search",
    "show_set",
    "spend_approval",
    "stop_watching",
    "watch",
    "why_no_token",
]

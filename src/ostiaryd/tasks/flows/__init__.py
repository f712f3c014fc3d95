"""Operations on tasks, and the revocation of an object together with everything derived from the object."""

from ostiaryd.tasks.flows.budgets import (
    allowance,
    balance,
    balances,
    balances_of,
    draw,
    forget_days,
    give_back,
    in_force,
    report_lost,
    report_spent,
    set_allowance,
    settle,
    spend,
)
from ostiaryd.tasks.flows.counterparts import add_counterparts, counterparts
from ostiaryd.tasks.flows.deleted_task import show_pruned
from ostiaryd.tasks.flows.elevating import elevate, set_eligible
from ostiaryd.tasks.flows.ending import expire, expire_due, prune_ended
from ostiaryd.tasks.flows.find import above, find_task, link_of, place_of, restricted_agents, tree
from ostiaryd.tasks.flows.histories import forget_histories, read_history, record_call, record_created
from ostiaryd.tasks.flows.holding import add_holder, holders, record_heartbeat, remove_holder
from ostiaryd.tasks.flows.intents import intent_of
from ostiaryd.tasks.flows.memories import Remembered, add_output, read_memory
from ostiaryd.tasks.flows.revoking import (
    RevokedKind,
    cancel,
    cancel_all,
    cancel_for,
    decommission_agent,
    revoke,
    revoked_state,
)
from ostiaryd.tasks.flows.show import show, show_briefly
from ostiaryd.tasks.flows.tasks import (
    ELEVATION_ENDED,
    end,
    find_visible,
    live,
    may_list,
    renew,
    start,
)
from ostiaryd.tasks.store.elevations import get_eligible_scopes, list_elevations, list_emergency_elevations
from ostiaryd.tasks.store.tasks import end_all_tasks, get_task, list_ended_tasks, list_live_tasks

__all__ = [
    "ELEVATION_ENDED",
    "Remembered",
    "RevokedKind",
    "above",
    "add_counterparts",
    "add_holder",
    "add_output",
    "allowance",
    "balance",
    "balances",
    "balances_of",
    "cancel",
    "cancel_all",
    "cancel_for",
    "counterparts",
    "decommission_agent",
    "draw",
    "elevate",
    "end",
    "end_all_tasks",
    "expire",
    "expire_due",
    "find_task",
    "find_visible",
    "forget_days",
    "forget_histories",
    "get_eligible_scopes",
    "get_task",
    "give_back",
    "holders",
    "in_force",
    "intent_of",
    "link_of",
    "list_elevations",
    "list_emergency_elevations",
    "list_ended_tasks",
    "list_live_tasks",
    "live",
    "may_list",
    "place_of",
    "prune_ended",
    "read_history",
    "read_memory",
    "record_call",
    "record_created",
    "record_heartbeat",
    "remove_holder",
    "renew",
    "report_lost",
    "report_spent",
    "restricted_agents",
    "revoke",
    "revoked_state",
    "set_allowance",
    "set_eligible",
    "settle",
    "show",
    "show_briefly",
    "show_pruned",
    "spend",
    "start",
    "tree",
]

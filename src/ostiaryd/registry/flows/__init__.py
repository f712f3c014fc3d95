"""Operations on registered objects: one function per verb, each within the caller's act."""

from ostiaryd.registry.flows import queries
from ostiaryd.registry.flows.agent_counts import AgentCounts
from ostiaryd.registry.flows.agents import (
    MAX_LIFETIME_S,
    create_agent,
    decommission_agent,
    renew_tokens,
    revoke_agent,
    set_agent_state,
    set_depth,
    set_end,
    set_keyless,
    set_scopes,
    set_segment,
    set_speaks,
    transfer_agent,
    undo_stop,
)
from ostiaryd.registry.flows.bootstrap import bootstrap_admin
from ostiaryd.registry.flows.callers import act_as, answers_for, check_admin, check_may, fill_entry, record_caller
from ostiaryd.registry.flows.declared import check_declared, declared_scopes
from ostiaryd.registry.flows.expiry import act_on_each, expire_agent, expire_due, expire_key, list_expired
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import (
    active_agent,
    check_holder,
    classes_within,
    find_agent,
    find_owner,
    find_person,
    find_resource,
    find_team,
    has_agents,
    is_privileged,
    reading_holder,
)
from ostiaryd.registry.flows.holdings import add_holding, end_holdings, release_holdings
from ostiaryd.registry.flows.keys import add_key, revoke_key, rotate_key
from ostiaryd.registry.flows.leaving import list_leaving, resume_person, return_person, revoke_owner, suspend_person
from ostiaryd.registry.flows.owners import (
    active_person,
    add_member,
    create_person,
    create_team,
    remove_member,
    set_deputy,
    set_membership,
)
from ostiaryd.registry.flows.person_keys import add_person_key, is_revoked_key, revoke_person_key
from ostiaryd.registry.flows.queries import *
from ostiaryd.registry.flows.resources import (
    catalogue_of,
    create_resource,
    set_catalogue,
    set_classes,
    set_mode,
    set_resource_key,
)
from ostiaryd.registry.flows.restrictions import forget_restrictions, lift_restrictions, put_restriction
from ostiaryd.registry.flows.roles import (
    end_roles_of_source,
    grant_role,
    list_role_assignments,
    revoke_role,
    set_roles_of_source,
)
from ostiaryd.registry.flows.stops import check_none_stopped, check_person_not_stopped, lift_stop, stop
from ostiaryd.registry.flows.used_secrets import check_no_secret, forget_used_secrets, is_secret_known, know_secret

__all__ = [
    "MAX_LIFETIME_S",
    "AgentCounts",
    "act_as",
    "act_on_each",
    "active_agent",
    "active_person",
    "add_holding",
    "add_key",
    "add_member",
    "add_person_key",
    "answers_for",
    "bootstrap_admin",
    "catalogue_of",
    "check_admin",
    "check_declared",
    "check_holder",
    "check_may",
    "check_no_secret",
    "check_none_stopped",
    "check_person_not_stopped",
    "classes_within",
    "create_agent",
    "create_person",
    "create_resource",
    "create_team",
    "declared_scopes",
    "decommission_agent",
    "end_holdings",
    "end_roles_of_source",
    "expire_agent",
    "expire_due",
    "expire_key",
    "fill_entry",
    "find_agent",
    "find_owner",
    "find_person",
    "find_resource",
    "find_team",
    "forget_restrictions",
    "forget_used_secrets",
    "grant_role",
    "has_agents",
    "is_privileged",
    "is_revoked_key",
    "is_secret_known",
    "know_secret",
    "lift_restrictions",
    "lift_stop",
    "list_expired",
    "list_leaving",
    "list_role_assignments",
    "put_restriction",
    "queue_for_guards",
    "reading_holder",
    "record_caller",
    "release_holdings",
    "remove_member",
    "renew_tokens",
    "resume_person",
    "return_person",
    "revoke_agent",
    "revoke_key",
    "revoke_owner",
    "revoke_person_key",
    "revoke_role",
    "rotate_key",
    "set_agent_state",
    "set_catalogue",
    "set_classes",
    "set_depth",
    "set_deputy",
    "set_end",
    "set_keyless",
    "set_membership",
    "set_mode",
    "set_resource_key",
    "set_roles_of_source",
    "set_scopes",
    "set_segment",
    "set_speaks",
    "stop",
    "suspend_person",
    "transfer_agent",
    "undo_stop",
]
__all__ += queries.__all__

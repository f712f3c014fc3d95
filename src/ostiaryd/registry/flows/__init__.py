"""Operations on registered objects: one function per verb, each within the caller's act."""

from ostiaryd.registry.flows.agents import (
    MAX_LIFETIME_S,
    create_agent,
    renew_tokens,
    revoke_agent,
    set_agent_state,
    set_depth,
    set_end,
    set_scopes,
    set_segment,
    set_speaks,
    transfer_agent,
    undo_stop,
)
from ostiaryd.registry.flows.bootstrap import bootstrap_admin
from ostiaryd.registry.flows.callers import act_as, answers_for, check_admin, check_may, note, note_caller
from ostiaryd.registry.flows.declared import check_declared
from ostiaryd.registry.flows.expiry import act_on_each, expire_agent, expire_due, expire_key
from ostiaryd.registry.flows.feed import tell
from ostiaryd.registry.flows.find import (
    active_agent,
    classes_within,
    find_agent,
    find_owner,
    find_person,
    find_resource,
    find_team,
    has_agents,
    is_privileged,
    speakers,
)
from ostiaryd.registry.flows.holdings import end_holdings, hold
from ostiaryd.registry.flows.holds import forget_holds, lift_holds, put_hold
from ostiaryd.registry.flows.keys import add_key, is_known_key, revoke_key, rotate_key
from ostiaryd.registry.flows.leaving import leaving, return_person, revoke_owner
from ostiaryd.registry.flows.owners import add_member, create_person, create_team, remove_member, set_deputy
from ostiaryd.registry.flows.person_keys import add_person_key, is_revoked_key, revoke_person_key
from ostiaryd.registry.flows.queries import (
    get_agent,
    get_catalogue,
    get_catalogue_by_hash,
    get_holding,
    get_key,
    get_owner,
    get_person,
    get_public_url,
    get_resource,
    get_resource_by_uri,
    get_risk,
    get_risks,
    has_active_person_key,
    is_member,
    list_active_agents,
    list_active_person_keys,
    list_agent_exceptions,
    list_agents,
    list_agents_of_model,
    list_agents_of_owner,
    list_members,
    list_resources,
    list_restrictions,
    list_restrictions_of_agent,
    list_revoked_keys,
    list_riskiest_agents,
    list_risks,
    list_stops,
)
from ostiaryd.registry.flows.resources import (
    catalogue_of,
    create_resource,
    set_catalogue,
    set_classes,
    set_mode,
    set_resource_key,
)
from ostiaryd.registry.flows.stops import all_stops, check_none_stopped, lift_stop, stop
from ostiaryd.registry.store.agents import (
    raise_epochs,
)
from ostiaryd.registry.store.holdings import (
    end_all as end_all_holdings,
)
from ostiaryd.registry.store.holdings import (
    insert as insert_holding,
)
from ostiaryd.registry.store.holds import (
    take as take_call,
)
from ostiaryd.registry.store.risks import (
    forget as forget_risks,
)
from ostiaryd.registry.store.risks import (
    put as put_risk,
)
from ostiaryd.registry.store.stops import (
    await_person as require_person,
)
from ostiaryd.registry.store.stops import (
    has_answered as release_to_agent,
)

__all__ = [
    "MAX_LIFETIME_S",
    "act_as",
    "act_on_each",
    "active_agent",
    "add_key",
    "add_member",
    "add_person_key",
    "all_stops",
    "answers_for",
    "bootstrap_admin",
    "catalogue_of",
    "check_admin",
    "check_declared",
    "check_may",
    "check_none_stopped",
    "classes_within",
    "create_agent",
    "create_person",
    "create_resource",
    "create_team",
    "end_all_holdings",
    "end_holdings",
    "expire_agent",
    "expire_due",
    "expire_key",
    "find_agent",
    "find_owner",
    "find_person",
    "find_resource",
    "find_team",
    "forget_holds",
    "forget_risks",
    "get_agent",
    "get_catalogue",
    "get_catalogue_by_hash",
    "get_holding",
    "get_key",
    "get_owner",
    "get_person",
    "get_public_url",
    "get_resource",
    "get_resource_by_uri",
    "get_risk",
    "get_risks",
    "has_active_person_key",
    "has_agents",
    "hold",
    "insert_holding",
    "is_known_key",
    "is_member",
    "is_privileged",
    "is_revoked_key",
    "leaving",
    "lift_holds",
    "lift_stop",
    "list_active_agents",
    "list_active_person_keys",
    "list_agent_exceptions",
    "list_agents",
    "list_agents_of_model",
    "list_agents_of_owner",
    "list_members",
    "list_resources",
    "list_restrictions",
    "list_restrictions_of_agent",
    "list_revoked_keys",
    "list_riskiest_agents",
    "list_risks",
    "list_stops",
    "note",
    "note_caller",
    "put_hold",
    "put_risk",
    "raise_epochs",
    "release_to_agent",
    "remove_member",
    "renew_tokens",
    "require_person",
    "return_person",
    "revoke_agent",
    "revoke_key",
    "revoke_owner",
    "revoke_person_key",
    "rotate_key",
    "set_agent_state",
    "set_catalogue",
    "set_classes",
    "set_depth",
    "set_deputy",
    "set_end",
    "set_mode",
    "set_resource_key",
    "set_scopes",
    "set_segment",
    "set_speaks",
    "speakers",
    "stop",
    "take_call",
    "tell",
    "transfer_agent",
    "undo_stop",
]

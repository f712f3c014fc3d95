"""Functions with which other packages read the registry, and change it within their own acts.

Each is a function of the store, under a name that is unique in the package.

Other packages use the registry only through `ostiaryd.registry.flows`; import-linter checks this.
"""

from ostiaryd.registry.store.agents import (
    get_agent,
    list_active_agents,
    list_agent_exceptions,
    list_agents,
    list_agents_of_model,
    list_agents_of_owner,
    list_speakers,
    raise_epochs,
)
from ostiaryd.registry.store.holdings import end_all_holdings, get_holding, insert_holding
from ostiaryd.registry.store.keys import find_key_owner, get_key, list_revoked_keys
from ostiaryd.registry.store.owners import get_owner, get_person, is_member, list_members
from ostiaryd.registry.store.person_keys import has_active_person_key, list_active_person_keys
from ostiaryd.registry.store.resources import (
    find_resource_by_origin,
    get_catalogue,
    get_catalogue_by_hash,
    get_public_url,
    get_resource,
    get_resource_by_uri,
    get_trust_domain,
    list_resources,
)
from ostiaryd.registry.store.restrictions import count_call, list_restrictions, list_restrictions_of_agent
from ostiaryd.registry.store.risks import forget_risks, get_risk, get_risks, list_riskiest_agents, list_risks, put_risk
from ostiaryd.registry.store.roles import list_person_roles, list_roles, role_cursor
from ostiaryd.registry.store.stops import list_stops, release_agent, require_person
from ostiaryd.registry.store.used_secrets import list_secret_users

__all__ = [
    "count_call",
    "end_all_holdings",
    "find_key_owner",
    "find_resource_by_origin",
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
    "get_trust_domain",
    "has_active_person_key",
    "insert_holding",
    "is_member",
    "list_active_agents",
    "list_active_person_keys",
    "list_agent_exceptions",
    "list_agents",
    "list_agents_of_model",
    "list_agents_of_owner",
    "list_members",
    "list_person_roles",
    "list_resources",
    "list_restrictions",
    "list_restrictions_of_agent",
    "list_revoked_keys",
    "list_riskiest_agents",
    "list_risks",
    "list_roles",
    "list_secret_users",
    "list_speakers",
    "list_stops",
    "put_risk",
    "raise_epochs",
    "release_agent",
    "require_person",
    "role_cursor",
]

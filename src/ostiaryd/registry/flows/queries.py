"""Functions with which other packages read the registry, and change it within their own acts.

Each is a function of the store, under a name that is unique in the package.

Other packages use the registry only through `ostiaryd.registry.flows`; import-linter checks this.
"""

from ostiaryd.registry.store.agents import get as get_agent
from ostiaryd.registry.store.agents import list_active as list_active_agents
from ostiaryd.registry.store.agents import list_left_active as list_agent_exceptions
from ostiaryd.registry.store.agents import list_speakers, raise_epochs
from ostiaryd.registry.store.agents import of_model as list_agents_of_model
from ostiaryd.registry.store.agents import owned as list_agents_of_owner
from ostiaryd.registry.store.agents import page as list_agents
from ostiaryd.registry.store.holdings import end_all as end_all_holdings
from ostiaryd.registry.store.holdings import get as get_holding
from ostiaryd.registry.store.holdings import insert as insert_holding
from ostiaryd.registry.store.keys import find_owner as find_key_owner
from ostiaryd.registry.store.keys import get as get_key
from ostiaryd.registry.store.keys import list_revoked as list_revoked_keys
from ostiaryd.registry.store.owners import is_member
from ostiaryd.registry.store.owners import members as list_members
from ostiaryd.registry.store.owners import owner as get_owner
from ostiaryd.registry.store.owners import person as get_person
from ostiaryd.registry.store.person_keys import active as list_active_person_keys
from ostiaryd.registry.store.person_keys import any_active as has_active_person_key
from ostiaryd.registry.store.resources import by_uri as get_resource_by_uri
from ostiaryd.registry.store.resources import catalogue as get_catalogue
from ostiaryd.registry.store.resources import get as get_resource
from ostiaryd.registry.store.resources import kept_catalogue as get_catalogue_by_hash
from ostiaryd.registry.store.resources import only_at_origin as find_resource_by_origin
from ostiaryd.registry.store.resources import page as list_resources
from ostiaryd.registry.store.resources import public_url as get_public_url
from ostiaryd.registry.store.resources import trust_domain as get_trust_domain
from ostiaryd.registry.store.restrictions import count_call as take_call
from ostiaryd.registry.store.restrictions import in_force as list_restrictions
from ostiaryd.registry.store.restrictions import of_agent as list_restrictions_of_agent
from ostiaryd.registry.store.risks import forget as forget_risks
from ostiaryd.registry.store.risks import get as get_risk
from ostiaryd.registry.store.risks import put as put_risk
from ostiaryd.registry.store.risks import risks_of as get_risks
from ostiaryd.registry.store.risks import risks_since as list_risks
from ostiaryd.registry.store.risks import worst_agents as list_riskiest_agents
from ostiaryd.registry.store.roles import cursor as role_cursor
from ostiaryd.registry.store.roles import of_person as list_person_roles
from ostiaryd.registry.store.roles import page as list_roles
from ostiaryd.registry.store.stops import release_agent, require_person
from ostiaryd.registry.store.stops import stops as list_stops
from ostiaryd.registry.store.used_secrets import list_users as list_secret_users

__all__ = [
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
    "take_call",
]

"""Authentication of callers: one function for each kind of proof, and the memory that prevents replay."""

from ostiaryd.trust.flows.access import (
    Access,
    Request,
    live_caller,
    spend_at_once,
    spend_proof,
    survives,
    verify_access,
    verify_token,
)
from ostiaryd.trust.flows.ahead import Verifier, verify_ahead
from ostiaryd.trust.flows.bearers import (
    allow_bearer,
    allow_bearer_class,
    exempt,
    exempt_classes,
    exemptions,
    forbid_bearer,
    forbid_bearer_class,
    may_have_bearer,
)
from ostiaryd.trust.flows.client_secrets import check_secret, create_secret, revoke_secret, secret_holders, secrets_of
from ostiaryd.trust.flows.clients import Client, authenticate_client, check_client
from ostiaryd.trust.flows.clock import accept_clock, examine_clock, show_clock, watch_clock
from ostiaryd.trust.flows.documents import find_client_keys, resolve_client
from ostiaryd.trust.flows.joining import DEFAULT_LIFETIME_S, InvalidJoin, JoinToken, create_join_token, enrol
from ostiaryd.trust.flows.oauth_clients import (
    AuthenticatedClient,
    authenticate_oauth_client,
    check_usable,
    claimed_client_id,
    find_agent_client,
    find_oauth_client,
    get_oauth_client,
    note_client_use,
    set_agent_client,
)
from ostiaryd.trust.flows.peps import (
    DEFAULT_DAYS,
    DEFAULT_OVERLAP_H,
    NewPepKey,
    create_pep,
    examine_peps,
    find_pep,
    note_pep_use,
    revoke_pep,
    rotate_pep,
    show_peps,
    verify_pep,
)
from ostiaryd.trust.flows.proofs import Possession, check_possession, spend
from ostiaryd.trust.flows.pruning import prune
from ostiaryd.trust.flows.sessions import (
    act_as_person,
    begin_session,
    end_session,
    end_sessions,
    find_session,
    form_token,
    note_use,
    page_url,
    read_form,
    session_of,
)
from ostiaryd.trust.model.clients import BearerClass
from ostiaryd.trust.store import (
    exempt_at as list_exempt_agents,
)
from ostiaryd.trust.store import (
    exempt_classes as list_exempt_classes,
)
from ostiaryd.trust.store import (
    is_exempt,
)

__all__ = [
    "DEFAULT_DAYS",
    "DEFAULT_LIFETIME_S",
    "DEFAULT_OVERLAP_H",
    "Access",
    "AuthenticatedClient",
    "BearerClass",
    "Client",
    "InvalidJoin",
    "JoinToken",
    "NewPepKey",
    "Possession",
    "Request",
    "Verifier",
    "accept_clock",
    "act_as_person",
    "allow_bearer",
    "allow_bearer_class",
    "authenticate_client",
    "authenticate_oauth_client",
    "begin_session",
    "check_client",
    "check_possession",
    "check_secret",
    "check_usable",
    "claimed_client_id",
    "create_join_token",
    "create_pep",
    "create_secret",
    "end_session",
    "end_sessions",
    "enrol",
    "examine_clock",
    "examine_peps",
    "exempt",
    "exempt_classes",
    "exemptions",
    "find_agent_client",
    "find_client_keys",
    "find_oauth_client",
    "find_pep",
    "find_session",
    "forbid_bearer",
    "forbid_bearer_class",
    "form_token",
    "get_oauth_client",
    "is_exempt",
    "list_exempt_agents",
    "list_exempt_classes",
    "live_caller",
    "may_have_bearer",
    "note_client_use",
    "note_pep_use",
    "note_use",
    "page_url",
    "prune",
    "read_form",
    "resolve_client",
    "revoke_pep",
    "revoke_secret",
    "rotate_pep",
    "secret_holders",
    "secrets_of",
    "session_of",
    "set_agent_client",
    "show_clock",
    "show_peps",
    "spend",
    "spend_at_once",
    "spend_proof",
    "survives",
    "verify_access",
    "verify_ahead",
    "verify_pep",
    "verify_token",
    "watch_clock",
]

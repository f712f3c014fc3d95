"""Who is calling: one function for each way to prove it, and what is remembered so that no proof serves twice."""

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
from ostiaryd.trust.flows.bearers import allow_bearer, exempt, exemptions, forbid_bearer
from ostiaryd.trust.flows.client_secrets import check_secret, create_secret, revoke_secret, secret_holders, secrets_of
from ostiaryd.trust.flows.clients import Client, authenticate_client, check_client
from ostiaryd.trust.flows.clock import accept_clock, examine_clock, show_clock, watch_clock
from ostiaryd.trust.flows.joining import DEFAULT_LIFETIME_S, InvalidJoin, JoinToken, create_join_token, enrol
from ostiaryd.trust.flows.proofs import Possession, check_possession, spend
from ostiaryd.trust.flows.pruning import prune

__all__ = [
    "DEFAULT_LIFETIME_S",
    "Access",
    "Client",
    "InvalidJoin",
    "JoinToken",
    "Possession",
    "Request",
    "Verifier",
    "accept_clock",
    "allow_bearer",
    "authenticate_client",
    "check_client",
    "check_possession",
    "check_secret",
    "create_join_token",
    "create_secret",
    "enrol",
    "examine_clock",
    "exempt",
    "exemptions",
    "forbid_bearer",
    "live_caller",
    "prune",
    "revoke_secret",
    "secret_holders",
    "secrets_of",
    "show_clock",
    "spend",
    "spend_at_once",
    "spend_proof",
    "survives",
    "verify_access",
    "verify_ahead",
    "verify_token",
    "watch_clock",
]

"""Who is calling: one function for each way to prove it, and what is remembered so that no proof serves twice."""

from ostiaryd.trust.flows.access import Access, Request, live_caller, spend_access, verify_access, verify_token
from ostiaryd.trust.flows.bearers import is_bearer
from ostiaryd.trust.flows.clients import Client, authenticate_client, check_client
from ostiaryd.trust.flows.proofs import Possession, check_possession, spend

__all__ = [
    "Access",
    "Client",
    "Possession",
    "Request",
    "authenticate_client",
    "check_client",
    "check_possession",
    "is_bearer",
    "live_caller",
    "spend",
    "spend_access",
    "verify_access",
    "verify_token",
]

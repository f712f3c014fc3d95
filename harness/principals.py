"""Principals of decisions, without a server that issues their tokens."""

from __future__ import annotations

from typing import Any

from ostiary.authorization.claims import AccessClaims, Confirmation
from ostiary.decision.access import Principal


def make_principal(**claims: Any) -> Principal:
    """Return an agent with a task and a token that is bound to a key. `claims` are further claims, or replace some of
    these; `aud`, `exp` and `scope` are needed.
    """
    usual: dict[str, Any] = {
        "iss": "https://ostiary.example",
        "sub": "ag_1",
        "client_id": "ag_1",
        "iat": 0,
        "jti": "tok_1",
        "task": "tk_1",
        "owner": "pe_1",
        "segment": "default",
        "cnf": Confirmation(jkt="k"),
    }
    return Principal(AccessClaims(**usual | claims))

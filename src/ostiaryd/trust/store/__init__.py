"""Stored data of trust: one module per noun, SQL only."""

from ostiaryd.trust.store import (
    certificates,
    client_secrets,
    clients,
    exemptions,
    join_tokens,
    people,
    peps,
    proofs,
    providers,
)

__all__ = [
    "certificates",
    "client_secrets",
    "clients",
    "exemptions",
    "join_tokens",
    "people",
    "peps",
    "proofs",
    "providers",
]

"""Stored data of tokens: one module per noun, SQL only."""

from ostiaryd.tokens.store import (
    authorization,
    backchannel,
    consents,
    devices,
    logout,
)

__all__ = [
    "authorization",
    "backchannel",
    "consents",
    "devices",
    "logout",
]

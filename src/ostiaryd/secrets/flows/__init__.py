"""Operations on secrets: callers, tokens, and stored values."""

from ostiaryd.secrets.flows.callers import (
    TokenRefused,
    VaultCaller,
    VaultCredentials,
    authenticate,
    authorize,
    is_permitted,
)
from ostiaryd.secrets.flows.engine import MOUNTS, Operation, SecretEngine, engine_of, find_operation
from ostiaryd.secrets.flows.tokens import (
    Login,
    LoginRefused,
    forget_tokens,
    login_by_secret,
    login_by_token,
    renew_token,
    revoke_token,
)

__all__ = [
    "MOUNTS",
    "Login",
    "LoginRefused",
    "Operation",
    "SecretEngine",
    "TokenRefused",
    "VaultCaller",
    "VaultCredentials",
    "authenticate",
    "authorize",
    "engine_of",
    "find_operation",
    "forget_tokens",
    "is_permitted",
    "login_by_secret",
    "login_by_token",
    "renew_token",
    "revoke_token",
]

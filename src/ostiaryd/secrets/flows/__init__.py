"""Operations on secrets: callers, tokens, stored values, and the seal."""

from ostiaryd.secrets.flows.callers import (
    Sealed,
    TokenRefused,
    VaultCaller,
    VaultCredentials,
    authenticate,
    authorize,
    check_unsealed,
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
    "Sealed",
    "SecretEngine",
    "TokenRefused",
    "VaultCaller",
    "VaultCredentials",
    "authenticate",
    "authorize",
    "check_unsealed",
    "engine_of",
    "find_operation",
    "forget_tokens",
    "is_permitted",
    "login_by_secret",
    "login_by_token",
    "renew_token",
    "revoke_token",
]

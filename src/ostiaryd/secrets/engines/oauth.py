"""Access tokens of connected accounts.

creds/PROVIDER    GET, POST: an access token of the account of the person on whose behalf the task is, with a lease

`scopes`, a list in the body or a text with spaces in the query, requests a part of the scopes that the person consented
to.
"""

from __future__ import annotations

from functools import partial

from msgspec import Struct

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.model import check_name
from ostiaryd.secrets.flows import account_tokens
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.connected_account import check_scopes
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    split_path,
)

TYPE = "oauth"
DESCRIPTION = "access tokens of the accounts that persons connected"
OPTIONS: dict[str, str] | None = None


class _TokenBody(Struct):
    scopes: list[str] = []


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request for an access token of a connected account. Raises NothingStored for a path
    other than creds/PROVIDER, UnsupportedOperation for a method that the path does not support; Malformed if `scopes`
    has a wrong type, Invalid for an invalid provider name or an unknown query parameter.
    """
    kind, name = split_path(request.path)
    if kind != "creds" or not name:
        raise NothingStored("no handler for route", code="no_route")
    check_name(name, of="name of the provider")
    match request.method:
        case VaultMethod.READ:
            unknown = set(request.query) - {"scopes"}
            if unknown:
                raise Invalid(
                    f"the query parameter {min(unknown)[:64]!a} is unknown",
                    hint="the only supported parameter is `scopes`",
                )
            scopes = tuple(request.query.get("scopes", "").split())
        case VaultMethod.WRITE:
            scopes = tuple(request.read_body(_TokenBody).scopes)
        case _:
            raise UnsupportedOperation("unsupported operation")
    check_scopes(scopes)
    requested = frozenset(scopes)
    find = partial(account_tokens.find_scopes, name=name, requested=requested)
    return Operation(
        SecretAction.TOKEN, f"creds/{name}", "lease", partial(_issue, name=name, requested=requested), find, requested
    )


def _issue(act: Act, name: str, requested: frozenset[str]) -> Answer:
    begun = account_tokens.begin_token(act, name, requested)
    if isinstance(begun, account_tokens.IssueToken):
        return Answer(upstream=begun)
    return account_tokens.show_token(*begun, now=act.now)

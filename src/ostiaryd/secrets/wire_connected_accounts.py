"""Connected accounts in the admin API: the providers, and the accounts of all persons."""

from __future__ import annotations

from functools import partial
from typing import Annotated, TypedDict

import msgspec
from msgspec import Meta

from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page, reply_short_list
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, EmptyBody, PageBody, Query, Route
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import flows, store
from ostiaryd.secrets.flows import connected_accounts
from ostiaryd.secrets.model.connected_account import (
    PRESETS,
    AccountMethod,
    AccountPreset,
    AccountProvider,
    ConnectedAccount,
    ServerMetadata,
)
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.wire_account_tokens import callback_uri, fetch_metadata


class NewAccountProvider(msgspec.Struct, forbid_unknown_fields=True):
    """A provider at which persons can connect accounts, described by an issuer with metadata, by a preset, or by
    endpoints.

    Without `client_secret` and `authentication`, this server authenticates with a key that it publishes at /jwks.
    `revokes_single_tokens`: the revocation of an access token at the provider leaves the refresh token valid. `roles`:
    the roles that may connect accounts; none: every person.
    """

    name: str
    client_id: str
    client_secret: str = ""
    preset: Annotated[str, Meta(extra_json_schema={"enum": list(PRESETS)})] = ""
    label: str = ""
    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    authentication: AccountMethod | None = None
    scopes: tuple[str, ...] = ()
    revokes_single_tokens: bool = False
    roles: tuple[str, ...] = ()


class AccountProviderChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Changes of an account provider. A setting that is left out stays. `client_secret` replaces the client secret."""

    client_secret: str = ""
    scopes: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None


class AccountProviderBody(TypedDict):
    """An account provider. `redirect_uri`: the URI to register at the provider. `added_at`: seconds since the epoch."""

    name: str
    label: str
    preset: str
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    client_id: str
    authentication: str
    scopes: list[str]
    revokes_single_tokens: bool
    roles: list[str]
    redirect_uri: str
    added_at: int


class ConnectedAccountBody(TypedDict):
    """A connected account. `attempts`: the number of failed revocations; `error`: the error of the last one. Times are
    seconds since the epoch.

    `agents`: names of the agents that have an access token of the account now, at most 20.
    """

    account_id: str
    provider: str
    person: str
    scopes: list[str]
    state: str
    connected_at: int
    refreshed_at: int
    attempts: int
    error: str
    agents: list[str]


class AccountEnd(msgspec.Struct, forbid_unknown_fields=True):
    """A request to end a connected account. `forget`: delete the account even if the provider has not revoked its
    refresh token.
    """

    forget: bool = False


async def add_provider(call: Call) -> Reply:
    """Add a provider at which persons can connect accounts.

    If the request or its preset states an issuer, but not both endpoints, the server fetches the issuer's metadata.
    """
    new, world = call.json(NewAccountProvider), call.world
    flows.check_open(world.db.read())
    if (preset := PRESETS.get(new.preset)) is None:
        raise Invalid(
            "`preset` is unknown", hint=f"use one of {', '.join(filter(None, PRESETS))}, or leave `preset` out"
        )
    issuer = new.issuer or preset.issuer
    authorization = new.authorization_endpoint or preset.authorization_endpoint
    token = new.token_endpoint or preset.token_endpoint
    metadata = None
    if issuer and not (authorization and token):
        metadata = await _read_metadata(world, issuer)
    provider = _make_provider(world, new, preset, issuer, metadata)
    for url, of in (
        (provider.authorization_endpoint, "`authorization_endpoint`"),
        (provider.token_endpoint, "`token_endpoint`"),
        (provider.revocation_endpoint, "`revocation_endpoint`"),
    ):
        if url:
            check_named(url, of=of, private=world.config.private)
    add = partial(connected_accounts.add_provider, provider=provider, client_secret=new.client_secret)
    return reply(_show_provider(world, await act_as(call, "account.add_provider", add)), status=201)


async def _read_metadata(world: World, issuer: str) -> ServerMetadata:
    try:
        return await fetch_metadata(world, issuer)
    except Unavailable as error:
        raise Invalid(f"the provider cannot be used: {error.message}", hint=error.hint, code=error.code) from None


def _make_provider(
    world: World, new: NewAccountProvider, preset: AccountPreset, issuer: str, metadata: ServerMetadata | None
) -> AccountProvider:
    """Return a provider. Each setting comes from the request; if absent, from the preset; if absent there, from the
    metadata. Raises Invalid if a setting is missing, or two do not fit together.
    """
    authorization, token = new.authorization_endpoint, new.token_endpoint
    authorization = (
        authorization or preset.authorization_endpoint or (metadata and metadata.authorization_endpoint) or ""
    )
    token = token or preset.token_endpoint or (metadata and metadata.token_endpoint) or ""
    if not authorization or not token:
        raise Invalid(
            "state an issuer, a preset that has endpoints, or both endpoints", hint="state the issuer: --issuer URL"
        )
    default = preset.authentication if new.client_secret else "private_key_jwt"
    method = new.authentication or default
    needs_secret = method.startswith("client_secret")
    if needs_secret and not new.client_secret:
        raise Invalid(
            f"the authentication `{method}` needs a client secret",
            hint="send `client_secret`, or choose another `authentication`",
        )
    if new.client_secret and not needs_secret:
        raise Invalid(
            f"the authentication `{method}` cannot be combined with a client secret",
            hint="leave out `client_secret`, or choose another `authentication`",
        )
    algs = (metadata and metadata.token_endpoint_auth_signing_alg_values_supported) or ("ES256",)
    alg = next((alg for alg in ("ES256", "RS256", "EdDSA") if alg in algs), "RS256")
    return AccountProvider(
        name=new.name,
        label=new.label or preset.label or new.name,
        preset=new.preset,
        issuer=issuer,
        authorization_endpoint=authorization,
        token_endpoint=token,
        revocation_endpoint=new.revocation_endpoint or (metadata.revocation_endpoint if metadata else ""),
        states_issuer=metadata is not None and metadata.authorization_response_iss_parameter_supported,
        client_id=new.client_id,
        authentication=method,
        signing_alg=alg,
        scopes=tuple(dict.fromkeys((*new.scopes, *preset.scopes))),
        parameters=dict(preset.parameters),
        token_type=preset.token_type,
        separator=preset.separator,
        shares_tokens=preset.shares_tokens,
        revokes_each=new.revokes_single_tokens,
        roles=new.roles,
        added_at=world.now(),
    )


async def list_providers(call: Call) -> Reply:
    """List the account providers by name."""
    return await reply_short_list(
        call,
        "providers",
        connected_accounts.list_providers,
        lambda _, one: _show_provider(call.world, one),
        cursor=lambda one: one.name,
    )


async def show_provider(call: Call) -> Reply:
    """Show an account provider."""
    return reply(
        _show_provider(call.world, connected_accounts.find_provider(call.world.db.read(), call.params["name"]))
    )


async def change_provider(call: Call) -> Reply:
    """Change the client secret, the scopes or the roles of an account provider.

    A connected account loses the scopes that the provider no longer has.
    """
    changes = call.json(AccountProviderChanges)
    change = partial(
        connected_accounts.change_provider,
        name=call.params["name"],
        client_secret=changes.client_secret,
        scopes=changes.scopes,
        roles=changes.roles,
    )
    return reply(_show_provider(call.world, await act_as(call, "account.change_provider", change)))


async def remove_provider(call: Call) -> Reply:
    """Remove an account provider. All its connected accounts end, and their tokens are revoked at the provider."""
    await act_as(
        call, "account.remove_provider", lambda act: connected_accounts.remove_provider(act, call.params["name"])
    )
    return reply({})


async def list_accounts(call: Call) -> Reply:
    """List the connected accounts of all persons, or of one person."""
    person = call.query_one("person")
    id = None if person is None else registry.find_person(call.world.db.read(), person).person_id
    return await reply_page(
        call,
        "accounts",
        lambda reader, page: store.connected_accounts.page(reader, page, person=id),
        _show_account,
        cursor=lambda account: account.account_id,
    )


async def end_account(call: Call) -> Reply:
    """End a connected account. Its access tokens end now, and its refresh token is then revoked at the provider."""
    order = call.json(AccountEnd)
    end = partial(connected_accounts.end_account, account_id=call.params["account"], is_forgotten=order.forget)
    await act_as(call, "account.end", end)
    return reply({})


def _show_provider(world: World, provider: AccountProvider) -> AccountProviderBody:
    return {
        "name": provider.name,
        "label": provider.label,
        "preset": provider.preset,
        "issuer": provider.issuer,
        "authorization_endpoint": provider.authorization_endpoint,
        "token_endpoint": provider.token_endpoint,
        "revocation_endpoint": provider.revocation_endpoint,
        "client_id": provider.client_id,
        "authentication": provider.authentication,
        "scopes": list(provider.scopes),
        "revokes_single_tokens": provider.revokes_each,
        "roles": list(provider.roles),
        "redirect_uri": callback_uri(world, provider),
        "added_at": provider.added_at // SECOND,
    }


def _show_account(reader: Reader, account: ConnectedAccount) -> ConnectedAccountBody:
    return {
        "account_id": account.account_id,
        "provider": account.provider,
        "person": registry.find_person(reader, account.person).name,
        "scopes": sorted(account.scopes),
        "state": account.state.value,
        "connected_at": account.connected_at // SECOND,
        "refreshed_at": account.refreshed_at // SECOND,
        "attempts": account.attempts,
        "error": account.error,
        "agents": connected_accounts.list_using_agents(reader, account),
    }


_SEALED = (flows.Sealed("the secrets are sealed"),)
ROUTES = (
    Route(
        "POST",
        "/api/v1/account-providers",
        add_provider,
        ADMIN,
        body=NewAccountProvider,
        answers={201: AccountProviderBody},
        errors=_SEALED,
    ),
    Route(
        "GET",
        "/api/v1/account-providers",
        list_providers,
        READ,
        answers={200: PageBody("providers", AccountProviderBody)},
        query=PAGE,
    ),
    Route("GET", "/api/v1/account-providers/{name}", show_provider, READ, answers={200: AccountProviderBody}),
    Route(
        "PATCH",
        "/api/v1/account-providers/{name}",
        change_provider,
        ADMIN,
        body=AccountProviderChanges,
        answers={200: AccountProviderBody},
        errors=_SEALED,
    ),
    Route("DELETE", "/api/v1/account-providers/{name}", remove_provider, ADMIN, stops=True, answers={200: EmptyBody}),
    Route(
        "GET",
        "/api/v1/connected-accounts",
        list_accounts,
        READ,
        query=(*PAGE, Query("person", "Name or id of the person.")),
        errors=(NOT_FOUND,),
        answers={200: PageBody("accounts", ConnectedAccountBody)},
    ),
    Route(
        "POST",
        "/api/v1/connected-accounts/{account}/revoke",
        end_account,
        ADMIN,
        body=AccountEnd,
        stops=True,
        answers={200: EmptyBody},
    ),
)

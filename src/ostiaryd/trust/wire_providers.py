"""Login providers for administrators: add, change, show, remove, and link accounts to persons."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Route
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ground.outbound.jwks import fetch_keys
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.world import World
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import store
from ostiaryd.trust.flows import providers
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.providers import (
    PRESETS,
    ClientMethod,
    GroupRule,
    OidcSettings,
    Provider,
    SamlSettings,
    check_issuer,
)
from ostiaryd.trust.wire_federation import callback_uri
from ostiaryd.trust.wire_oidc_login import fetch_metadata
from ostiaryd.trust.wire_saml_login import entity_id_of, read_idp_metadata


class NewProvider(msgspec.Struct, forbid_unknown_fields=True):
    """A login provider to add.

    OpenID Connect: `name`, `issuer` and `client_id`; the other members have defaults, those of the `preset` if it is
    set (the preset `google` also needs `hd` in `require`). SAML 2.0: `name`, and in `saml_metadata` the XML document of
    the provider's metadata, instead of issuer, client and preset.

    `mfa` and `phishing_resistant`: values of `acr` and `amr` (SAML: of `AuthnContextClassRef`) that are accepted as two
    factors and as phishing resistant. `require`: claims (SAML: attributes) that an account must have, each with its
    value. `accounts`: at the first login of a person, `create` creates an account, and `refuse` refuses the login.
    """

    name: str
    issuer: str = ""
    client_id: str = ""
    client_secret: str = ""
    saml_metadata: str = ""
    preset: Annotated[str, Meta(extra_json_schema={"enum": list(PRESETS)})] = ""
    label: str = ""
    authentication: ClientMethod | None = None
    scopes: tuple[str, ...] | None = None
    userinfo: bool | None = None
    group_claim: str | None = None
    rules: tuple[GroupRule, ...] = ()
    require: dict[str, str] = {}
    accounts: Literal["create", "refuse"] = "create"
    mfa: tuple[str, ...] = ()
    phishing_resistant: tuple[str, ...] = ()


class ProviderChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a login provider to change. Members that are left out do not change."""

    client_secret: str = ""
    label: str | None = None
    group_claim: str | None = None
    rules: tuple[GroupRule, ...] | None = None
    accounts: Literal["create", "refuse"] | None = None
    mfa: tuple[str, ...] | None = None
    phishing_resistant: tuple[str, ...] | None = None


class ProviderBody(TypedDict):
    """A login provider. `redirect_uri` must be registered at the provider; a login begins at `login_url`."""

    provider_id: str
    name: str
    label: str
    protocol: str
    preset: str
    issuer: str
    client_id: str
    redirect_uri: str
    login_url: str
    accounts: str
    group_claim: str
    rules: list[GroupRule]
    require: dict[str, str]
    mfa: list[str]
    phishing_resistant: list[str]
    has_secret: bool
    created_at: int


class ProvidersBody(TypedDict):
    """The login providers by name."""

    providers: list[ProviderBody]


class AccountLink(TypedDict):
    """An account, by its subject at the provider, and the person to whom it is linked."""

    sub: str
    person: str


class NewLink(msgspec.Struct, forbid_unknown_fields=True):
    sub: str
    person: str


class OldLink(msgspec.Struct, forbid_unknown_fields=True):
    sub: str


async def add_provider(call: Call) -> Reply:
    """Let persons log in by an OpenID provider or a SAML identity provider.

    The discovery document and the keys of an OpenID provider are fetched during this request, so that a wrong issuer is
    refused.
    """
    new, world = call.json(NewProvider), call.world
    if new.saml_metadata:
        made = await _saml_provider(world, new)
        made = await act_as(call, "provider.add", lambda act: providers.add_provider(act, made, client_secret=""))
        return reply(render_provider(made, world.config), status=201)
    check_named(new.issuer, of="the issuer", private=world.config.private)
    check_issuer(new.preset, new.issuer)
    defaults = PRESETS[new.preset]
    method = new.authentication or ("client_secret_basic" if new.client_secret else "private_key_jwt")
    if method.startswith("client_secret") and not new.client_secret:
        raise Invalid(f"`{method}` needs a client secret", hint="give the secret: --client-secret-file FILE")
    if new.client_secret and not method.startswith("client_secret"):
        raise Invalid(f"`{method}` cannot be used with a client secret", hint="leave out the client secret")
    made = Provider(
        provider_id=new_id("lp", now=world.now(), random=world.random),
        name=new.name,
        label=new.label or defaults.label or new.name,
        preset=new.preset,
        issuer=new.issuer,
        settings=OidcSettings(
            client_id=new.client_id,
            authentication=method,
            scopes=defaults.scopes if new.scopes is None else new.scopes,
            reads_userinfo=defaults.reads_userinfo if new.userinfo is None else new.userinfo,
            required_claims=new.require,
            reauthenticate=defaults.reauthenticate,
        ),
        accounts=new.accounts,
        group_claim=defaults.group_claim if new.group_claim is None else new.group_claim,
        rules=new.rules,
        mfa=new.mfa,
        phishing_resistant=new.phishing_resistant,
        created_at=world.now(),
    )
    await _check_reachable(world, new.issuer)
    made = await act_as(
        call, "provider.add", lambda act: providers.add_provider(act, made, client_secret=new.client_secret)
    )
    return reply(render_provider(made, world.config), status=201)


async def _saml_provider(world: World, new: NewProvider) -> Provider:
    """Return the SAML provider that a metadata document describes. Raises Malformed or Invalid for a document that is
    not valid, or for other settings in the request.
    """
    if new.issuer or new.client_id or new.client_secret or new.preset:
        raise Invalid(
            "a SAML provider cannot have an issuer, client or preset",
            hint="send only `saml_metadata`, which contains all settings",
        )
    idp = await read_idp_metadata(world, new.saml_metadata)
    check_named(idp.sso_url, of="the single sign-on service", private=world.config.private)
    return Provider(
        provider_id=new_id("lp", now=world.now(), random=world.random),
        name=new.name,
        label=new.label or new.name,
        preset="",
        issuer=idp.entity_id,
        settings=SamlSettings(idp.sso_url, idp.certificates, new.require),
        accounts=new.accounts,
        group_claim="groups" if new.group_claim is None else new.group_claim,
        rules=new.rules,
        mfa=new.mfa,
        phishing_resistant=new.phishing_resistant,
        created_at=world.now(),
    )


async def list_providers(call: Call) -> Reply:
    """List the login providers."""
    every = store.providers.providers(call.world.db.read())
    return reply({"providers": [render_provider(one, call.world.config) for one in every]})


async def show_provider(call: Call) -> Reply:
    """Show a login provider."""
    provider = providers.find_provider(call.world.db.read(), call.params["name"])
    return reply(render_provider(provider, call.world.config))


async def change_provider(call: Call) -> Reply:
    """Change the settings of a login provider. Changed rules take effect for a person at the person's next login."""
    body = call.json(ProviderChanges)
    changes: dict[str, Any] = {
        name: value
        for name in ProviderChanges.__struct_fields__
        if name != "client_secret" and (value := getattr(body, name)) is not None
    }
    changed = await act_as(
        call,
        "provider.change",
        lambda act: providers.change_provider(act, call.params["name"], changes, client_secret=body.client_secret),
    )
    return reply(render_provider(changed, call.world.config))


async def remove_provider(call: Call) -> Reply:
    """Remove a login provider. Logins by it are refused, its sessions end, and the roles that its rules gave end.

    The links of its accounts are kept, and are used again if a provider with the same issuer is added.
    """
    await act_as(call, "provider.remove", lambda act: providers.remove_provider(act, call.params["name"]))
    return reply({})


async def list_accounts(call: Call) -> Reply:
    """List the accounts at a provider that are linked to persons."""
    provider = providers.find_provider(call.world.db.read(), call.params["name"])
    return await reply_page(
        call,
        "accounts",
        lambda reader, page: store.providers.links(reader, provider.issuer, page),
        lambda _, one: {"sub": one[0], "person": one[1]},
        cursor=lambda one: one[0],
    )


async def link_account(call: Call) -> Reply:
    """Link an account at a provider to a person."""
    body = call.json(NewLink)
    person = await act_as(
        call, "provider.link", lambda act: providers.link_account(act, call.params["name"], body.sub, body.person)
    )
    return reply({"sub": body.sub, "person": person.person_id})


async def unlink_account(call: Call) -> Reply:
    """Remove the link between an account at a provider and its person.

    The next login by the account creates another person, or is refused, as the provider's settings state.
    """
    body = call.json(OldLink)
    await act_as(call, "provider.unlink", lambda act: providers.unlink_account(act, call.params["name"], body.sub))
    return reply({})


async def _check_reachable(world: World, issuer: str) -> None:
    """Check that the discovery document and the keys of an issuer can be fetched and used. Raises Invalid otherwise."""
    try:
        metadata = await fetch_metadata(world, issuer)
        await fetch_keys(metadata.jwks_uri, private=world.config.private)
    except Unavailable as error:
        raise Invalid(
            f"the login provider cannot be used: {error.message}",
            hint=error.hint or "check that the issuer is exactly as the provider states it",
            code=error.code,
        ) from None


def render_provider(provider: Provider, config: Config) -> ProviderBody:
    """Return a provider as JSON, without its secret."""
    settings = provider.settings
    return {
        "provider_id": provider.provider_id,
        "name": provider.name,
        "label": provider.label,
        "protocol": provider.protocol,
        "preset": provider.preset,
        "issuer": provider.issuer,
        "client_id": settings.client_id if isinstance(settings, OidcSettings) else entity_id_of(config, provider),
        "redirect_uri": callback_uri(config, provider),
        "login_url": config.public_url + provider.login_path,
        "accounts": provider.accounts,
        "group_claim": provider.group_claim,
        "rules": list(provider.rules),
        "require": settings.required_claims,
        "mfa": list(provider.mfa),
        "phishing_resistant": list(provider.phishing_resistant),
        "has_secret": provider.sealed is not None,
        "created_at": provider.created_at // SECOND,
    }


ROUTES = (
    Route("POST", "/api/v1/login-providers", add_provider, ADMIN, body=NewProvider, answers={201: ProviderBody}),
    Route("GET", "/api/v1/login-providers", list_providers, READ, answers={200: ProvidersBody}),
    Route("GET", "/api/v1/login-providers/{name}", show_provider, READ, answers={200: ProviderBody}),
    Route(
        "PATCH",
        "/api/v1/login-providers/{name}",
        change_provider,
        ADMIN,
        body=ProviderChanges,
        answers={200: ProviderBody},
    ),
    Route("DELETE", "/api/v1/login-providers/{name}", remove_provider, ADMIN, stops=True, answers={200: EmptyBody}),
    Route(
        "GET",
        "/api/v1/login-providers/{name}/accounts",
        list_accounts,
        READ,
        query=PAGE,
        answers={200: PageBody("accounts", AccountLink)},
    ),
    Route(
        "POST",
        "/api/v1/login-providers/{name}/accounts",
        link_account,
        ADMIN,
        body=NewLink,
        answers={200: AccountLink},
    ),
    Route(
        "POST",
        "/api/v1/login-providers/{name}/accounts/unlink",
        unlink_account,
        ADMIN,
        body=OldLink,
        answers={200: EmptyBody},
    ),
)

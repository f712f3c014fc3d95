"""Destinations of secrets in the admin API, and the use of secrets by egress proxies under /feed/v1."""

from __future__ import annotations

from functools import partial
from typing import TypedDict

import msgspec

from ostiary.decision.feed import SCOPE
from ostiary.protocol.destination import Destination
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, EmptyBody, PageBody, Route
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import destinations
from ostiaryd.secrets.flows.account_tokens import IssueToken
from ostiaryd.secrets.flows.destinations import BackendSecret, SecretUse, UsableSecret
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.store.destinations import StoredDestination
from ostiaryd.secrets.wire_account_tokens import issue_access_token
from ostiaryd.secrets.wire_backends import read_value


class NewDestination(Destination, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A destination to create: its secret's path, the member (empty: the only member), and the scopes of an access
    token of a connected account (none: all scopes).
    """

    secret: str
    member: str = ""
    scopes: tuple[str, ...] = ()


class DestinationBody(TypedDict):
    """A destination with the path and the member of its secret. `created_at`: seconds since the epoch."""

    name: str
    origin: str
    place: str
    field: str
    template: str
    private: bool
    secret: str
    member: str
    scopes: list[str]
    created_at: int


class ProxyDestination(TypedDict):
    """A destination as an egress proxy receives it."""

    name: str
    origin: str
    place: str
    field: str
    template: str
    private: bool


class ProxyDestinations(TypedDict):
    """All destinations."""

    destinations: list[ProxyDestination]


class UsedSecret(TypedDict):
    """The value of a secret for one request, and its expiry in seconds since the epoch (0: none)."""

    secret: str
    expires_at: int


async def create_destination(call: Call) -> Reply:
    """Create the destination of a secret: the origin that receives the secret, and its place in the requests."""
    new = call.json(NewDestination)
    destination = Destination(**{name: getattr(new, name) for name in Destination.__struct_fields__})
    create = partial(
        destinations.create_destination,
        destination=destination,
        secret=new.secret,
        member=new.member,
        scopes=new.scopes,
    )
    stored = await act_as(call, "secret.create_destination", create)
    return reply(_show(stored), status=201)


async def list_destinations(call: Call) -> Reply:
    """List the destinations of secrets."""
    return await reply_page(
        call, "destinations", flows.list_destinations, _render, cursor=lambda one: one.destination.name
    )


async def delete_destination(call: Call) -> Reply:
    """Delete a destination: proxies put its secret into no further request."""
    delete = partial(destinations.delete_destination, name=call.params["name"])
    await act_as(call, "secret.delete_destination", delete)
    return reply({})


async def list_for_proxy(call: Call) -> Reply:
    """List the destinations for an egress proxy, without the paths of their secrets."""
    stored = flows.list_destinations(call.world.db.read(), Page(destinations.MOST, ""))
    return reply({"destinations": [msgspec.to_builtins(one.destination) for one in stored]}, headers=[NO_STORE])


async def use_secret(call: Call) -> Reply:
    """Return the secret of a destination to the egress proxy of an agent, for one request of the agent."""
    use, config, proxy = call.json(SecretUse), call.world.config, call.caller.id
    used = await act_with_answers(
        call.world,
        lambda again: act_as(
            call,
            "vault.inject",
            lambda act: destinations.use_secret(act, use, proxy=proxy, config=config),
            again=again,
        ),
    )
    secret = await _fetch(call, used)
    call.has_acted = False  # the proxy may have been stopped while another system answered
    if not destinations.is_known(call.world.db.read(), use, secret, keys=call.world.keys, now=call.world.now()):
        await act_as(call, "secret.note_use", lambda act: destinations.know(act, use, secret))
    return reply({"secret": secret.value, "expires_at": secret.expires_at // SECOND}, headers=[NO_STORE])


async def _fetch(call: Call, used: UsableSecret | IssueToken | BackendSecret) -> UsableSecret:
    """Return the value of a secret whose use the act permitted; fetch a token or a secret of a back end. If Refused is
    raised, a ledger entry records it.
    """
    match used:
        case IssueToken():
            return destinations.usable_token(await issue_access_token(call, used))
        case BackendSecret(read, member):
            return destinations.usable_member((await read_value(call, read)).data, member)
        case _:
            return used


def _render(_: Reader, stored: StoredDestination) -> DestinationBody:
    return _show(stored)


def _show(stored: StoredDestination) -> DestinationBody:
    one = stored.destination
    return {
        "name": one.name,
        "origin": one.origin,
        "place": one.place.value,
        "field": one.field,
        "template": one.template,
        "private": one.private,
        "secret": stored.secret,
        "member": stored.member,
        "scopes": sorted(stored.scopes),
        "created_at": stored.created_at // SECOND,
    }


_SEALED = flows.Sealed("the secrets are sealed")
ROUTES = (
    Route(
        "POST",
        "/api/v1/secrets/destinations",
        create_destination,
        ADMIN,
        body=NewDestination,
        grants=True,
        answers={201: DestinationBody},
    ),
    Route(
        "GET",
        "/api/v1/secrets/destinations",
        list_destinations,
        READ,
        query=PAGE,
        answers={200: PageBody("destinations", DestinationBody)},
    ),
    Route(
        "DELETE",
        "/api/v1/secrets/destinations/{name}",
        delete_destination,
        ADMIN,
        stops=True,
        answers={200: EmptyBody},
        errors=(NOT_FOUND,),
    ),
    Route("GET", "/feed/v1/destinations", list_for_proxy, SCOPE, answers={200: ProxyDestinations}),
    Route(
        "POST",
        "/feed/v1/use-secret",
        use_secret,
        SCOPE,
        body=SecretUse,
        answers={200: UsedSecret},
        errors=(_SEALED, NOT_FOUND),
    ),
)

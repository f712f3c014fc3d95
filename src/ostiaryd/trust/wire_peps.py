"""Static PEPs for administrators: API keys of AuthZEN gateways."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import PAGE, PageBody, Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import flows, store
from ostiaryd.trust.model import SECOND, Pep, PepKey


class NewPep(msgspec.Struct, forbid_unknown_fields=True):
    """A static PEP to register. `networks`: addresses or networks (CIDR) from which requests may come; `days`:
    lifetime of the API key in days.
    """

    name: str
    networks: list[str]
    days: int = flows.DEFAULT_DAYS


class PepKeyRotation(msgspec.Struct, forbid_unknown_fields=True):
    """A request for another API key. `overlap_h`: hours after which the older keys expire."""

    days: int = flows.DEFAULT_DAYS
    overlap_h: int = flows.DEFAULT_OVERLAP_H


class IssuedPepKey(TypedDict):
    """An API key of a static PEP; it is shown once."""

    pep_id: str
    name: str
    networks: list[str]
    key: str
    expires_at: int


class PepKeyBody(TypedDict):
    """An API key without its secret."""

    key_id: str
    created_at: int
    expires_at: int
    used_at: int | None


class PepBody(TypedDict):
    """A static policy enforcement point and its API keys."""

    pep_id: str
    name: str
    networks: list[str]
    created_at: int
    revoked_at: int | None
    keys: list[PepKeyBody]


async def create_pep(call: Call) -> Reply:
    """Register a static PEP, and return an API key for the AuthZEN endpoints.

    Only this response shows the key.
    """
    new = call.json(NewPep)
    made = await act_as(
        call, "pep.create", lambda act: flows.create_pep(act, name=new.name, networks=new.networks, days=new.days)
    )
    return _issued(made)


async def rotate_pep(call: Call) -> Reply:
    """Issue a new API key of a PEP. The older key expires after the overlap."""
    request = call.json(PepKeyRotation)
    made = await act_as(
        call,
        "pep.rotate",
        lambda act: flows.rotate_pep(act, call.params["name"], days=request.days, overlap_h=request.overlap_h),
    )
    return _issued(made)


async def revoke_pep(call: Call) -> Reply:
    """Revoke a PEP and its API keys. All servers of the database refuse them at once."""
    await act_as(call, "pep.revoke", lambda act: flows.revoke_pep(act, call.params["name"]))
    return await show_pep(call)


async def show_pep(call: Call) -> Reply:
    """Show a static PEP and its API keys without their secrets."""
    reader = call.world.db.read()
    peps = flows.find_pep(reader, call.params["name"])
    return reply(_show(peps, store.peps.pep_keys(reader, peps.pep_id)))


async def list_peps(call: Call) -> Reply:
    """List the static PEPs, including revoked PEPs."""
    return await reply_short_list(
        call,
        "peps",
        flows.show_peps,
        lambda _, one: _show(*one),
        cursor=_id,
    )


def _id(one: tuple[Pep, list[PepKey]]) -> str:
    return one[0].pep_id


def _issued(made: flows.NewPepKey) -> Reply:
    body: IssuedPepKey = {
        "pep_id": made.pep.pep_id,
        "name": made.pep.name,
        "networks": made.pep.networks.split(),
        "key": made.key,
        "expires_at": made.expires_at // SECOND,
    }
    return reply(body, status=201, headers=[NO_STORE])


def _show(one: Pep, keys: list[PepKey]) -> PepBody:
    return {
        "pep_id": one.pep_id,
        "name": one.name,
        "networks": one.networks.split(),
        "created_at": one.created_at // SECOND,
        "revoked_at": None if one.revoked_at is None else one.revoked_at // SECOND,
        "keys": [
            {
                "key_id": key.key_id,
                "created_at": key.created_at // SECOND,
                "expires_at": key.expires_at // SECOND,
                "used_at": None if key.used_at is None else key.used_at // SECOND,
            }
            for key in keys
        ],
    }


ROUTES = (
    Route("POST", "/api/v1/peps", create_pep, ADMIN, body=NewPep, answers={201: IssuedPepKey}),
    Route("GET", "/api/v1/peps", list_peps, READ, answers={200: PageBody("peps", PepBody)}, query=PAGE),
    Route("GET", "/api/v1/peps/{name}", show_pep, READ, answers={200: PepBody}),
    Route("POST", "/api/v1/peps/{name}/rotate", rotate_pep, ADMIN, body=PepKeyRotation, answers={201: IssuedPepKey}),
    Route("POST", "/api/v1/peps/{name}/revoke", revoke_pep, ADMIN, stops=True, answers={200: PepBody}),
)

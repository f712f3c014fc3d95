"""Rotation of stored values: the loop that calls the services of secrets, and rotations in the admin API.

`wire_leases` rotates the passwords of static roles.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TypedDict

import msgspec

from ostiary.protocol.errors import Conflict, Refused, Unavailable
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, EmptyBody, PageBody, Route
from ostiaryd.ground.outbound.fetch import check_named, deliver
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import rotations
from ostiaryd.secrets.flows.rotations import CLAIM_S
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.rotation import RotationConfig, check_config, render_call
from ostiaryd.secrets.store import rotations as store
from ostiaryd.secrets.store.rotations import Rotation

log = logging.getLogger("ostiary")
CALLS_AT_ONCE = 20
WITHIN_S = 10.0


class ServiceRefused(Unavailable):
    """The service of a rotated secret did not accept a call."""

    code = "service_refused"


# --- calls


async def rotate_due(world: World) -> None:
    """Send the calls that are due. If a call fails, the value stays in force."""
    now = world.now()
    if flows.read_status(world.db.read()).is_sealed:
        return
    due = await world.db.scan(lambda reader: store.due(reader, now=now, limit=CALLS_AT_ONCE))
    await asyncio.gather(*(_try(world, path) for path in due))


async def _try(world: World, path: str) -> None:
    until = world.now() + CLAIM_S * SECOND
    if not await world.writer.submit(lambda tx: store.claim(tx, path, until=until)):
        return
    try:
        await _make_call(world, path)
    except Refused as refusal:
        log.warning("the secret %s was not rotated: %s", path, refusal.message)


async def _make_call(world: World, path: str) -> None:
    """Send a due call to its service, and record the result. Raises Refused."""
    await act(world, "rotation.begin", partial(rotations.begin_call, path=path))
    owed = rotations.owed_call(world.db.read(), path, keys=world.keys)
    body, headers = render_call(owed.kind, owed.data, id=owed.id, now=world.now(), key=owed.key)
    private, ca_file = world.config.private, world.config.ca_file
    try:
        status, _ = await deliver(owed.url, body, headers=headers, within_s=WITHIN_S, private=private, ca_file=ca_file)
        if not 200 <= status < 300:
            raise ServiceRefused(f"the service answers {status}")
        await act(world, "rotation.end", partial(rotations.end_call, path=path, call=owed))
    except Refused as refusal:
        await act(world, "rotation.fail", partial(rotations.fail_call, path=path, why=refusal.message))
        raise


# --- the admin API


class NewRotation(msgspec.Struct, forbid_unknown_fields=True):
    """`member`: the member that gets new values. `url`: the service that accepts them. `period`, `grace`: seconds."""

    path: str
    member: str
    url: str
    period: int
    grace: int = 0


class RotationPath(msgspec.Struct, forbid_unknown_fields=True):
    """The path of a secret with a rotation."""

    path: str


class RotationBody(TypedDict):
    """A rotation. `next_at`: the time of the next call. `retire_at`: the end of the present grace. Times in seconds.

    `attempts`: number of failed calls. `error`: the error of the last one.
    """

    path: str
    member: str
    url: str
    period: int
    grace: int
    last_at: int | None
    next_at: int
    retire_at: int | None
    attempts: int
    error: str


class NewRotationBody(RotationBody):
    """A rotation with its signing key. Only this answer contains the signing key."""

    signing_key: str


async def put_rotation(call: Call) -> Reply:
    """Configure the rotation of a member of a secret: a schedule, and the service that accepts new values.

    Only this answer contains the signing key of the calls (Standard Webhooks).
    """
    body, world = call.json(NewRotation), call.world
    config = RotationConfig(member=body.member, url=body.url, period=body.period, grace=body.grace)
    check_config(body.path, config)
    check_named(body.url, of="`url`", private=world.config.private)
    key = await act_as(call, "rotation.put", partial(rotations.put_rotation, path=body.path, config=config))
    shown: NewRotationBody = {**_show(rotations.find_rotation(world.db.read(), body.path)), "signing_key": key}
    return reply(shown, status=201, headers=[NO_STORE])


async def list_rotations(call: Call) -> Reply:
    """List the rotations of secrets, with their last and next times."""

    def read(reader: Reader, page: Page) -> list[Rotation]:
        return store.page(reader, after=page.after, limit=page.limit)

    return await reply_page(
        call, "rotations", read, lambda _, rotation: _show(rotation), cursor=lambda rotation: rotation.path
    )


async def rotate_secret(call: Call) -> Reply:
    """Rotate a secret now. If the service does not accept the new value, the present one stays in force."""
    path, world = call.json(RotationPath).path, call.world
    await act_as(call, "rotation.request", partial(rotations.request_rotation, path=path))
    until = world.now() + CLAIM_S * SECOND
    if not await world.writer.submit(lambda tx: store.claim(tx, path, until=until)):
        raise Conflict("the secret is being rotated", hint="ostiary secret rotation list")
    await _make_call(world, path)
    return reply(_show(rotations.find_rotation(world.db.read(), path)))


async def delete_rotation(call: Call) -> Reply:
    """Remove the rotation of a secret; the secret stays."""
    await act_as(call, "rotation.delete", partial(rotations.delete_rotation, path=call.json(RotationPath).path))
    return reply({})


def _show(rotation: Rotation) -> RotationBody:
    config = rotation.config
    return {
        "path": rotation.path,
        "member": config.member,
        "url": config.url,
        "period": config.period,
        "grace": config.grace,
        "last_at": None if rotation.rotated_at is None else rotation.rotated_at // SECOND,
        "next_at": rotation.due_at // SECOND,
        "retire_at": None if rotation.retire_at is None else rotation.retire_at // SECOND,
        "attempts": rotation.attempts,
        "error": rotation.error,
    }


_SEALED = flows.Sealed("the secrets are sealed")
ROUTES = (
    Route(
        "POST",
        "/api/v1/secrets/rotations",
        put_rotation,
        ADMIN,
        body=NewRotation,
        answers={201: NewRotationBody},
        errors=(_SEALED, NothingStored("no value is stored at this path", code="not_found")),
    ),
    Route(
        "GET",
        "/api/v1/secrets/rotations",
        list_rotations,
        READ,
        answers={200: PageBody("rotations", RotationBody)},
        query=PAGE,
    ),
    Route(
        "POST",
        "/api/v1/secrets/rotations/delete",
        delete_rotation,
        ADMIN,
        body=RotationPath,
        answers={200: EmptyBody},
        errors=(NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/v1/secrets/rotate",
        rotate_secret,
        ADMIN,
        body=RotationPath,
        answers={200: RotationBody},
        errors=(_SEALED, NOT_FOUND, ServiceRefused("the service answers 500")),
    ),
)

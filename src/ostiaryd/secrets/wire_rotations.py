"""Rotation of stored values and transit keys: loops, calls of the services of secrets, and rotations in the admin API.

The service of a secret is a URL, a command of the configuration, or the registration of an OAuth client at its
provider. `wire_leases` rotates the passwords of static roles.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TypedDict

import msgspec

from ostiary.protocol.errors import Conflict, Invalid, Refused
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, EmptyBody, PageBody, Route
from ostiaryd.ground.outbound.fetch import check_named, deliver, send_request
from ostiaryd.ground.process.commands import run_command
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import flows, store
from ostiaryd.secrets.flows import rotations, transit
from ostiaryd.secrets.flows.key_generation import KeyGenerator, KeyNeeded
from ostiaryd.secrets.flows.rotations import CLAIM_S, RotationCall
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.rotation import (
    MAX_REGISTRATION,
    RETIRE,
    RotationConfig,
    ServiceRefused,
    check_config,
    find_changes,
    find_token,
    parse_output,
    parse_registration,
    render_call,
    render_input,
    render_update,
)
from ostiaryd.secrets.store.rotations import Rotation

log = logging.getLogger("ostiary")
DUE_AT_ONCE, CALLS_AT_ONCE = 20, 8
WITHIN_S = 10.0


# --- calls


async def rotate_due(world: World) -> None:
    """Send the calls that are due to the services of rotated secrets, at most `DUE_AT_ONCE`; none while the secrets are
    sealed. If a call fails, the value of the secret stays.
    """
    now = world.now()
    if (await world.db.scan(flows.read_status)).is_sealed:
        return
    due = await world.db.scan(lambda reader: store.rotations.due(reader, now=now, limit=DUE_AT_ONCE))
    await asyncio.gather(*(_try(world, path) for path in due))


async def rotate_due_keys(world: World) -> None:
    """Rotate at most `DUE_AT_ONCE` transit keys whose automatic rotation is due; none while the secrets are sealed. If
    a rotation fails, the present version of the key stays the latest.
    """
    if (await world.db.scan(flows.read_status)).is_sealed:
        return
    due = await world.db.scan(lambda reader: store.transit.due(reader, now=world.now(), limit=DUE_AT_ONCE))
    for name in due:
        try:
            await _rotate_key(world, name)
        except Refused as refusal:  # the key was deleted or rotated meanwhile, or the secrets were sealed
            log.info("the transit key %s was not rotated: %s", name, refusal.message)


async def _rotate_key(world: World, name: str) -> None:
    try:
        try:
            await act(world, "rotation.end", partial(transit.rotate_due_key, name=name))
        except KeyNeeded as need:
            key = await world.get_singleton(KeyGenerator).generate(need.key_type, need.agent)
            await act(world, "rotation.end", partial(transit.rotate_due_key, name=name, generated=key))
    except Invalid as refusal:
        log.warning("the transit key %s was not rotated: %s", name, refusal.message)
        await act(world, "rotation.fail", partial(transit.postpone_rotation, name=name, why=refusal.message))


class CallPlaces(asyncio.Semaphore):
    """A semaphore that limits the calls to services of rotated secrets at the same time. `running`: the paths of the
    secrets whose calls are running or waiting.
    """

    def __init__(self, _: object) -> None:
        super().__init__(CALLS_AT_ONCE)
        self.running: set[str] = set()


async def _try(world: World, path: str) -> None:
    try:
        await send_due_call(world, path)
    except Refused as refusal:
        log.warning("the secret %s was not rotated: %s", path, refusal.message)


async def send_due_call(world: World, path: str) -> bool:
    """Send the call to the service of the secret at `path` if the call is due and no process is sending it already;
    return whether it was sent. Raises Refused if the service does not accept the call.
    """
    places = world.get_singleton(CallPlaces)
    if path in places.running:  # a request to rotate now also makes a call due that is running
        return False
    places.running.add(path)
    try:
        async with places:
            until = world.now() + CLAIM_S * SECOND
            is_only = world.db.is_sqlite  # with one server, a claim belongs to an earlier process of this server
            if not await world.writer.submit(lambda tx: store.rotations.claim(tx, path, until=until, is_only=is_only)):
                return False
            await _send(world, path)
            return True
    finally:
        places.running.remove(path)


async def _send(world: World, path: str) -> None:
    """Send a due call to its service, and record the result. Raises Refused if the service does not accept the call."""
    try:
        call = await act(world, "rotation.begin", partial(rotations.begin_call, path=path))
        if call is None:
            return
        if call.config.registration:
            await _update_registration(world, path, call)
            return
        is_old_valid = await (_run_command if call.config.command else _post)(world, call)
        end = partial(rotations.end_call, path=path, call=call, is_old_valid=is_old_valid)
        await act(world, "rotation.end", end)
    except Refused as refusal:
        await act(world, "rotation.fail", partial(rotations.fail_call, path=path, why=refusal.message))
        raise


async def _post(world: World, call: RotationCall) -> bool:
    """Send a signed call to the URL of a service; return True, since the old value stays valid until the second call.
    Raises ServiceRefused if the service answers with an error, Unavailable if it cannot be reached.
    """
    body, headers = render_call(call.kind, call.data, id=call.id, now=world.now(), key=call.key)
    private, ca_file = world.config.private, world.config.ca_file
    status, _ = await deliver(
        call.config.url, body, headers=headers, within_s=WITHIN_S, private=private, ca_file=ca_file
    )
    if not 200 <= status < 300:
        raise ServiceRefused(f"the service answers {status}")
    return True


async def _run_command(world: World, call: RotationCall) -> bool:
    """Run the command of a rotation; return whether the old value still works. Raises Invalid for an unknown command,
    CommandFailed if the command cannot run, ServiceRefused if the command reports a failure.
    """
    command = rotations.find_command(world.config.rotation_commands, call.config.command)
    result = await run_command(
        command.run,
        render_input(call.kind, call.data, id=call.id, current=call.current),
        within_s=command.seconds,
        readable=command.readable,
        secret_folder=str(world.config.folder),
        is_confined=not command.unconfined,
    )
    hidden = (*call.current.values(), call.data.get("value"))
    is_old_valid = parse_output(result.status, result.output, hidden=hidden)
    if is_old_valid and call.kind == RETIRE:
        raise ServiceRefused("the command reports that the old value still works")
    return is_old_valid


async def _update_registration(world: World, path: str, call: RotationCall) -> None:
    """Read and update the registration of an OAuth client, and store each changed member (RFC 7592 section 2). Raises
    Refused if the provider does not accept the update.

    The registration is read first, because it contains the client secret of an earlier update whose response was lost.
    """
    body, current = b"", call.current
    for method in ("GET", "PUT"):
        answer = await send_request(
            method,
            call.config.registration,
            body=body,
            headers={
                "authorization": f"Bearer {find_token(current)}",
                "accept": "application/json",
                **({"content-type": "application/json"} if body else {}),
            },
            within_s=WITHIN_S,
            max_bytes=MAX_REGISTRATION,
            private=world.config.private,
            ca_file=world.config.ca_file,
        )
        registration = parse_registration(answer.status, answer.body, current=call.current)
        changes = find_changes(registration, current, call.config.member)
        is_rotated = call.config.member in changes
        if changes:
            keep = partial(rotations.store_answer, path=path, call=call, members=changes)
            await act(world, "rotation.end" if is_rotated else "rotation.store", keep)
        if is_rotated:
            return
        body, current = render_update(registration), {**current, **changes}
    raise ServiceRefused("the provider did not change the client secret when the registration was updated")


# --- the admin API


class NewRotation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The rotation of one member of a secret. `period`, `grace`: seconds. State exactly one service: `url` gets signed
    calls, `command` names a command of the server's configuration, `registration` is the URL of the registration of an
    OAuth client (RFC 7592).
    """

    path: str
    member: str
    url: str = ""
    command: str = ""
    registration: str = ""
    period: int
    grace: int = 0


class RotationPath(msgspec.Struct, forbid_unknown_fields=True):
    """The path of a secret that has a rotation."""

    path: str


class RotationBody(TypedDict):
    """A rotation. `next_at`: the time of the next call, `null` for a rotation that an agent has cancelled. `retire_at`:
    the end of the present grace period, `null` outside a grace period. Times are seconds since the epoch.

    `attempts`: the number of failed calls; `error`: the error of the last one.
    """

    path: str
    member: str
    url: str
    command: str
    registration: str
    period: int
    grace: int
    last_at: int | None
    next_at: int | None
    retire_at: int | None
    attempts: int
    error: str


class NewRotationBody(RotationBody):
    """A new rotation with its signing key. Only this response contains the signing key."""

    signing_key: str


async def put_rotation(call: Call) -> Reply:
    """Configure the rotation of one member of a secret: the schedule, and the service that accepts new values.

    Only this response contains the key that signs the calls (Standard Webhooks).
    """
    body, world = call.json(NewRotation), call.world
    config = RotationConfig(
        member=body.member,
        url=body.url,
        command=body.command,
        registration=body.registration,
        period=body.period,
        grace=body.grace,
    )
    check_config(body.path, config)
    if config.command:
        rotations.find_command(world.config.rotation_commands, config.command)
    else:
        name = "url" if config.url else "registration"
        check_named(getattr(config, name), of=f"`{name}`", private=world.config.private)
    key = await act_as(call, "rotation.put", partial(rotations.put_rotation, path=body.path, config=config))
    shown: NewRotationBody = {**_show(rotations.find_rotation(world.db.read(), body.path)), "signing_key": key}
    return reply(shown, status=201, headers=[NO_STORE])


async def list_rotations(call: Call) -> Reply:
    """List the rotations of secrets, with the times of their last and next calls."""

    def read(reader: Reader, page: Page) -> list[Rotation]:
        return store.rotations.page(reader, after=page.after, limit=page.limit)

    return await reply_page(
        call, "rotations", read, lambda _, rotation: _show(rotation), cursor=lambda rotation: rotation.path
    )


async def rotate_secret(call: Call) -> Reply:
    """Rotate a secret now. If the service does not accept the new value, the present value stays."""
    path, world = call.json(RotationPath).path, call.world
    await act_as(call, "rotation.request", partial(rotations.request_rotation, path=path))
    if not await send_due_call(world, path):
        raise Conflict("a rotation of the secret is in progress", hint="see `ostiary secret rotation list`")
    return reply(_show(rotations.find_rotation(world.db.read(), path)))


async def delete_rotation(call: Call) -> Reply:
    """Remove the rotation of a secret. The secret stays."""
    await act_as(call, "rotation.delete", partial(rotations.delete_rotation, path=call.json(RotationPath).path))
    return reply({})


def _show(rotation: Rotation) -> RotationBody:
    config = rotation.config
    return {
        "path": rotation.path,
        "member": config.member,
        "url": config.url,
        "command": config.command,
        "registration": config.registration,
        "period": config.period,
        "grace": config.grace,
        "last_at": None if rotation.rotated_at is None else rotation.rotated_at // SECOND,
        "next_at": None if rotation.is_cancelled else rotation.due_at // SECOND,
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

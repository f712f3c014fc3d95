"""Secrets for administrators: stored values, and the seal.

A path begins with its mount, as in policies and entries: `secret/app/db`. The path is in the body of a request, except
in requests for lists.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypedDict

import msgspec

from ostiary.authorization.assurance import KEY
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model.roles import RouteFacts
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import operators
from ostiaryd.secrets.model.keyvalue import LastSecretUse, UseFilter
from ostiaryd.secrets.model.request import SECOND, NothingStored, check_path, split_path
from ostiaryd.secrets.model.sealing import decode_key
from ostiaryd.secrets.wire_backends import forget_values

DAY = 86_400 * SECOND
MAX_DAYS = 3650
UNSEAL = RouteFacts("POST", "/api/v1/secrets/unseal", ADMIN, False, False)


class NewSecretValue(msgspec.Struct, forbid_unknown_fields=True):
    """A value to store. `cas`: the number that the current version must have; 0: the secret must be new; left out: any
    number.
    """

    path: str
    data: dict[str, Any]
    cas: int | None = None


class SecretReading(msgspec.Struct, forbid_unknown_fields=True):
    """A request to read a value. `version`: the number of the version; 0: the current version."""

    path: str
    version: int = 0


class SecretDeletion(msgspec.Struct, forbid_unknown_fields=True):
    """A request to delete. `versions`: `current` deletes the current version, which can be restored (in the mount `kv`,
    the secret is deleted permanently); `all` permanently deletes the secret with all versions.
    """

    path: str
    versions: Literal["current", "all"] = "current"


class CanaryMark(msgspec.Struct, forbid_unknown_fields=True):
    """A request to set or remove the canary mark of a secret. `is_canary`: whether agents that read the secret are
    quarantined.
    """

    path: str
    is_canary: bool = True


class SealOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A request to seal. `unseal_public_key`: the public part of the unseal key (X25519, base64url); if it is left out,
    the server seals for the unseal key of the previous seal.
    """

    unseal_public_key: str | None = None


class UnsealOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A request to unseal. `unseal_key`: the unseal key (X25519, base64url)."""

    unseal_key: str


class SecretVersionBody(TypedDict):
    """A version of a secret, without its value. `created_at`: seconds since the epoch."""

    path: str
    version: int
    created_at: int


class SecretValueBody(SecretVersionBody):
    """A version of a secret with its value."""

    data: dict[str, Any]


class SecretNamesBody(TypedDict):
    """The names in a folder; names of folders end with a slash."""

    folder: str
    names: list[str]


class SecretUseBody(TypedDict):
    """The last read and change of a secret. `rotated_at`: the time at which the current version was stored. `read_by`:
    the agent or person that last read a value, `null` if no value was ever read. Times are seconds since the epoch.
    """

    path: str
    version: int
    rotated_at: int
    read_at: int | None
    read_by: str | None
    is_canary: bool


class WrappingKeyBody(TypedDict):
    """A wrapping key. `active`: the key encrypts new values; `retired`: values of the key are being encrypted again
    under a newer key. `created_at`: seconds since the epoch.
    """

    number: int
    state: str
    created_at: int


class SealBody(TypedDict):
    """The state of the seal. `unseal_key`: the fingerprint of the unseal key; `null` if there is no unseal key.
    `sealed_at`: seconds since the epoch; `null` if the secrets are not sealed.
    """

    sealed: bool
    sealed_at: int | None
    unseal_key: str | None
    wrapping_keys: list[WrappingKeyBody]


async def put_secret(call: Call) -> Reply:
    """Store a value as a new version of a secret."""
    new = call.json(NewSecretValue)
    stored = await act_as(call, "vault.write", lambda act: operators.put_secret(act, new.path, new.data, cas=new.cas))
    return reply(_show_version(new.path, stored), status=201, headers=[NO_STORE])


async def get_secret(call: Call) -> Reply:
    """Return the value of a secret."""
    reading = call.json(SecretReading)
    stored = await act_as(call, "vault.read", lambda act: operators.get_secret(act, reading.path, reading.version))
    assert stored.value is not None  # a deleted version is refused
    body = {**_show_version(reading.path, stored), "data": msgspec.Raw(stored.value)}
    return reply(body, headers=[NO_STORE])


async def list_secrets(call: Call) -> Reply:
    """List the names in a folder of secrets."""
    folder = call.query_one("folder") or "secret/"
    body: SecretNamesBody = {"folder": folder, "names": operators.list_names(call.world.db.read(), folder)}
    return reply(body)


async def delete_secret(call: Call) -> Reply:
    """Delete the current version of a secret, or the secret with all its versions."""
    order = call.json(SecretDeletion)
    has_all = order.versions == "all"
    await act_as(call, "vault.delete", lambda act: operators.delete_secret(act, order.path, with_versions=has_all))
    return Reply(204, headers=[NO_STORE])


async def mark_canary(call: Call) -> Reply:
    """Mark a secret as a canary, or as an ordinary secret: an agent that reads a canary is quarantined at once."""
    mark = call.json(CanaryMark)
    flow = partial(operators.mark_canary, path=mark.path, is_canary=mark.is_canary)
    await act_as(call, "vault.mark", flow)
    return Reply(204, headers=[NO_STORE])


async def list_uses(call: Call) -> Reply:
    """List the secrets below a folder with their last reads and changes."""
    mount, rest = split_path(check_path(call.query_one("folder") or "secret/"))
    unread = call.query_one("never_read")
    if unread not in (None, "true", "false"):
        raise Invalid("`never_read` must be true or false")
    where = UseFilter(
        mount=mount,
        folder=rest if not rest or rest.endswith("/") else f"{rest}/",
        is_unread=unread == "true",
        reader=_find_reader(call, call.query_one("read_by")),
        rotated_before=call.world.now() + 1 - _parse_days(call.query_one("not_rotated_for")) * DAY,
    )
    return await reply_page(
        call, "secrets", partial(_read_uses, where), show_use, cursor=lambda one: one.path, headers=[NO_STORE]
    )


def _read_uses(where: UseFilter, reader: Reader, page: Page) -> list[LastSecretUse]:
    return operators.list_uses(reader, where, page)


def _find_reader(call: Call, name: str | None) -> str:
    """Return the id of the agent or person with this name; an empty text if `name` is None. Raises NotFound if there is
    none.
    """
    if name is None:
        return ""
    agent = registry.get_agent(call.world.db.read(), name)
    return registry.find_person(call.world.db.read(), name).person_id if agent is None else agent.agent_id


def _parse_days(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:5]) <= MAX_DAYS and len(text) <= 4):
        raise Invalid(f"`not_rotated_for` must be 1 to {MAX_DAYS} days")
    return int(text)


def show_use(reader: Reader, use: LastSecretUse) -> SecretUseBody:
    """Return the JSON of the last version of a secret, the times of the last read and the last change, and the agent or
    person that read the secret: the name, or the id if the agent or person does not exist any more. The JSON does not
    say who changed the secret.
    """
    agent = None if use.reader is None else registry.get_agent(reader, use.reader)
    person = None if use.reader is None else registry.get_person(reader, use.reader)
    holder = agent or person
    return {
        "path": f"{use.mount}/{use.path}",
        "version": use.version,
        "rotated_at": use.rotated_at // SECOND,
        "read_at": None if use.read_at is None else use.read_at // SECOND,
        "read_by": use.reader if holder is None else holder.name,
        "is_canary": use.is_canary,
    }


async def show_seal(call: Call) -> Reply:
    """Show whether the secrets are sealed, and list the wrapping keys."""
    return reply(_show_seal(flows.read_status(call.world.db.read())))


async def seal_secrets(call: Call) -> Reply:
    """Seal the secrets: no value can be read or written until an unseal with the unseal key.

    The server then has no key that decrypts the values. All functions that need no stored secret continue. A person
    whose roles permit sealing but not unsealing can seal only for the unseal key of the previous seal.
    """
    order, caller, world = call.json(SealOrder), call.caller, call.world
    may_choose = caller.kind != "person" or bool(
        policy.list_operations(world.db.read(), caller, [UNSEAL], now=world.now(), acr=caller.acr or KEY)
    )
    text = order.unseal_public_key
    public = None if text is None else decode_key(text, field="unseal_public_key")
    status = await act_as(call, "vault.seal", lambda act: flows.seal_secrets(act, public, may_choose=may_choose))
    forget_values(world)
    return reply(_show_seal(status))


async def unseal_secrets(call: Call) -> Reply:
    """Unseal the secrets with the unseal key."""
    unverified_key = decode_key(call.json(UnsealOrder).unseal_key, field="unseal_key")
    return reply(_show_seal(await act_as(call, "vault.unseal", lambda act: flows.unseal_secrets(act, unverified_key))))


async def rotate_keys(call: Call) -> Reply:
    """Create a new wrapping key. Afterwards, each value is encrypted again with a new data key, while requests run."""
    return reply(_show_seal(await act_as(call, "vault.rotate", flows.rotate_keys)), status=201)


def _show_version(path: str, stored: operators.StoredSecret) -> SecretVersionBody:
    return {"path": path, "version": stored.version.version, "created_at": stored.version.created_at // SECOND}


def _show_seal(status: flows.SealStatus) -> SealBody:
    return {
        "sealed": status.is_sealed,
        "sealed_at": None if status.sealed_at is None else status.sealed_at // SECOND,
        "unseal_key": status.unseal_key,
        "wrapping_keys": [
            {
                "number": key.number,
                "state": "active" if key.is_active else "retired",
                "created_at": key.created_at // SECOND,
            }
            for key in status.keys
        ],
    }


_SEALED = flows.Sealed("the secrets are sealed")
_ERRORS = (_SEALED, NothingStored("no value is stored at this path", code="not_found"))
ROUTES = (
    Route(
        "GET",
        "/api/v1/secrets",
        list_secrets,
        READ,
        query=(Query("folder", "The folder, with its mount: `secret/app/`. `secret/` by default."),),
        answers={200: SecretNamesBody},
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/api/v1/secrets/put",
        put_secret,
        ADMIN,
        body=NewSecretValue,
        answers={201: SecretVersionBody},
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/api/v1/secrets/get",
        get_secret,
        ADMIN,
        body=SecretReading,
        answers={200: SecretValueBody},
        errors=_ERRORS,
    ),
    Route(
        "POST", "/api/v1/secrets/delete", delete_secret, ADMIN, body=SecretDeletion, answers={204: None}, errors=_ERRORS
    ),
    Route(
        "POST", "/api/v1/secrets/canary", mark_canary, ADMIN, body=CanaryMark, answers={204: None}, errors=_ERRORS[1:]
    ),
    Route(
        "GET",
        "/api/v1/secrets/uses",
        list_uses,
        READ,
        query=(
            *PAGE,
            Query("folder", "The folder, with its mount: `secret/app/`. `secret/` by default."),
            Query("never_read", "`true` lists secrets whose value was never read.", Literal["true", "false"]),
            Query("read_by", "The name of the agent or person that read the value last."),
            Query("not_rotated_for", "The number of days for which the value has not changed, 1 to 3650."),
        ),
        answers={200: PageBody("secrets", SecretUseBody)},
        errors=(NOT_FOUND,),
    ),
    Route("GET", "/api/v1/secrets/seal", show_seal, READ, answers={200: SealBody}),
    Route("POST", "/api/v1/secrets/seal", seal_secrets, ADMIN, body=SealOrder, answers={200: SealBody}, stops=True),
    Route(
        "POST", "/api/v1/secrets/unseal", unseal_secrets, ADMIN, body=UnsealOrder, answers={200: SealBody}, grants=True
    ),
    Route("POST", "/api/v1/secrets/rotate-keys", rotate_keys, ADMIN, answers={201: SealBody}, errors=(_SEALED,)),
)

"""Reading from back ends, their configuration in the admin API, and a cache of values in memory.

The transaction of a request decides and records the read. Afterwards, the server reads the value from the back end or
from the cache, whose size is limited. The cache is emptied when the secrets are sealed, and for a back end that is
replaced.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, NoReturn, TypedDict, TypeVar

import msgspec

from ostiary.protocol.errors import Refused
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import NOT_FOUND, EmptyBody, Route
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import flows, store
from ostiaryd.secrets.backends.aws import AwsBackend
from ostiaryd.secrets.backends.environment import EnvironmentBackend
from ostiaryd.secrets.backends.folders import FilesBackend, KubernetesBackend
from ostiaryd.secrets.backends.remote import Remote
from ostiaryd.secrets.backends.vault import VaultBackend
from ostiaryd.secrets.flows import backends
from ostiaryd.secrets.model.backend import (
    BACKEND_MOUNT,
    Backend,
    BackendConfig,
    BackendFailed,
    BackendKind,
    BackendValue,
    check_address,
    check_config,
    check_credentials,
    check_name,
)
from ostiaryd.secrets.model.request import SECOND, Answer, NothingStored
from ostiaryd.secrets.model.upstream import ListBackend, ReadBackend
from ostiaryd.secrets.store.backends import StoredBackend

T = TypeVar("T")
MAX_CACHED, MAX_CACHED_BYTES = 1000, 4 << 20
AT_ONCE = 16
"""Maximum number of requests to one back end at the same time; further requests wait."""
WITHIN_S = 10.0
"""Maximum seconds of a request to a back end, including the wait for other requests."""


# --- values


class _Cached(NamedTuple):
    value: BackendValue
    size: int
    ends_at: float


class BackendReader:
    """The cached values of back ends, and the limit on concurrent requests to each. Used only on the event loop."""

    def __init__(self, _: World) -> None:
        self._values: OrderedDict[tuple[str, int, str], _Cached] = OrderedDict()
        self._bytes = 0
        self._rooms: dict[str, asyncio.Semaphore] = {}

    def find(self, stored: StoredBackend, path: str) -> BackendValue | None:
        """Return the cached value of a path; None if no value was read within the last `cache_s` seconds."""
        key = (stored.name, stored.updated_at, path)
        cached = self._values.get(key)
        if cached is not None and cached.ends_at <= asyncio.get_running_loop().time():
            self._drop(key)
            return None
        return None if cached is None else cached.value

    def cache_value(self, stored: StoredBackend, path: str, value: BackendValue) -> None:
        """Store a value in the cache for `cache_s` seconds. If the cache is full, the oldest values are removed."""
        if not stored.config.cache_s:
            return
        key, size = (stored.name, stored.updated_at, path), len(value.json)
        self._drop(key)
        self._values[key] = _Cached(value, size, asyncio.get_running_loop().time() + stored.config.cache_s)
        self._bytes += size
        while len(self._values) > MAX_CACHED or self._bytes > MAX_CACHED_BYTES:
            self._drop(next(iter(self._values)))

    def clear(self) -> None:
        """Remove all values from the cache."""
        self._values.clear()
        self._bytes = 0

    def forget_old(self) -> None:
        """Remove the values that are older than `cache_s` from the cache."""
        now = asyncio.get_running_loop().time()
        for key in [key for key, cached in self._values.items() if cached.ends_at <= now]:
            self._drop(key)

    def _drop(self, key: tuple[str, int, str]) -> None:
        if (cached := self._values.pop(key, None)) is not None:
            self._bytes -= cached.size

    async def ask(self, name: str, request: Callable[[], Awaitable[T]]) -> T:
        """Call `request` when fewer than `AT_ONCE` requests to the back end are running; return its result. Raises
        BackendFailed after `WITHIN_S` seconds.
        """
        room = self._rooms.setdefault(name, asyncio.Semaphore(AT_ONCE))
        try:
            async with asyncio.timeout(WITHIN_S), room:
                return await request()
        except TimeoutError:
            raise BackendFailed(f"the back end took longer than {WITHIN_S:g} s") from None


def forget_values(world: World) -> None:
    """Remove all values of back ends from this process's cache, because the secrets were sealed or a synchronisation
    may have changed values.
    """
    world.get_singleton(BackendReader).clear()


async def forget_sealed(world: World) -> None:
    """Remove the values of back ends that are older than `cache_s` from the cache; remove all values if the secrets are
    sealed, by this server or another server of the database.
    """
    reader = world.get_singleton(BackendReader)
    if (await world.db.scan(flows.read_status)).is_sealed:
        reader.clear()
    reader.forget_old()


async def answer_from_backend(call: Call, upstream: ReadBackend | ListBackend) -> Answer:
    """Read or list the secrets of a back end after the transaction that permitted the request, and return the response
    of the Vault API. Raises NothingStored for an empty folder, and another Refused if the back end fails or the caller
    was stopped; a ledger entry records the refusal.
    """
    if isinstance(upstream, ListBackend):
        names = await list_names(call, upstream)
        if not names:
            raise NothingStored("the folder is empty")
        return Answer(data={"keys": names})
    value = await read_value(call, upstream)
    metadata = {
        "created_time": "",
        "custom_metadata": None,
        "deletion_time": "",
        "destroyed": False,
        "version": value.version,
    }
    return Answer(data={"data": value.data, "metadata": metadata})


async def read_value(call: Call, upstream: ReadBackend) -> BackendValue:
    """Return the value at a path of a back end, from the cache or the back end. An earlier transaction must have
    permitted the read. Raises BackendFailed if the back end fails or was replaced meanwhile; NothingStored if there is
    no such back end, or the path has no value; TokenRefused if the caller was stopped meanwhile; Sealed if the secrets
    are sealed; Conflict if the stored credentials cannot be decrypted; Forbidden if the configuration does not name the
    address of the back end any more.
    """
    world = call.world
    reader, stored = world.get_singleton(BackendReader), backends.find_backend(world.db.read(), upstream.name)
    value = reader.find(stored, upstream.path)
    if value is None:
        try:
            backend = open_backend(world, stored)
            value = await reader.ask(stored.name, lambda: backend.read(upstream.path))
            backends.check_still(world.db.read(), stored, upstream.holding, now=world.now())
        except Refused as refusal:
            await _fail(call, f"{BACKEND_MOUNT}/{upstream.name}/{upstream.path}", refusal)
        reader.cache_value(stored, upstream.path, value)
    return value


async def list_names(call: Call, upstream: ListBackend) -> list[str]:
    """Return the names in a folder of a back end; an empty list if there are none. An earlier transaction must have
    permitted the list. Raises BackendFailed if the back end fails or was replaced meanwhile; NothingStored if there is
    no such back end; TokenRefused if the caller was stopped meanwhile; Sealed if the secrets are sealed; Conflict if
    the stored credentials cannot be decrypted; Forbidden if the configuration does not name the address of the back end
    any more.
    """
    world = call.world
    stored = backends.find_backend(world.db.read(), upstream.name)
    try:
        backend = open_backend(world, stored)
        names = await world.get_singleton(BackendReader).ask(stored.name, lambda: backend.list_names(upstream.folder))
        backends.check_still(world.db.read(), stored, upstream.holding, now=world.now())
    except Refused as refusal:
        await _fail(call, f"{BACKEND_MOUNT}/{upstream.name}/{upstream.folder}", refusal)
    return names


async def _fail(call: Call, path: str, refusal: Refused) -> NoReturn:
    """Write a ledger entry for a request that failed after its transaction. Always raises `refusal`."""

    def refuse(act: Act) -> NoReturn:
        act.entry.object = path[:200]
        raise refusal

    await act(call.world, "backend.fetch", refuse, request=call.request_id, network=call.network)
    raise AssertionError("the act raises")


def open_backend(world: World, stored: StoredBackend) -> Backend:
    """Return the client of a back end, if the configuration still names its address. Raises Forbidden if it does not,
    Sealed while the secrets are sealed, and Conflict if the stored credentials cannot be decrypted.
    """
    config = stored.config
    check_address(config.address, permitted=world.config.secret_backends.split())
    credentials = backends.open_credentials(world.db.read(), stored, keys=world.keys)
    match config.kind:
        case BackendKind.VAULT_V2 | BackendKind.VAULT_V1:
            return VaultBackend(config, credentials, Remote(config.address, world.config.ca_file))
        case BackendKind.AWS:
            remote = Remote(config.address, world.config.ca_file)
            return AwsBackend(config, credentials, remote, world.now, world.random)
        case BackendKind.KUBERNETES:
            return KubernetesBackend(config, world.config.folder)
        case BackendKind.FILES:
            return FilesBackend(config, world.config.folder)
        case BackendKind.ENVIRONMENT:
            return EnvironmentBackend(config)


# --- the admin API


class NewBackend(msgspec.Struct, forbid_unknown_fields=True):
    """A back end to configure. `credentials`: `token` for a Vault; `access_key_id` and `secret_access_key` for AWS.

    `mount`: the mount at the Vault. `region`: the AWS region. `cache_s`: seconds for which a value stays in the memory
    cache.
    """

    name: str
    kind: BackendKind
    address: str
    mount: str = ""
    region: str = ""
    cache_s: int = 30
    credentials: dict[str, str] = {}

    def __repr__(self) -> str:
        """Return only the kind: the credentials are secret."""
        return f"NewBackend({self.kind})"


class BackendBody(TypedDict):
    """A back end without its credentials. Times in seconds."""

    name: str
    kind: str
    address: str
    mount: str
    region: str
    cache_s: int
    updated_at: int


class BackendsBody(TypedDict):
    """The back ends."""

    backends: list[BackendBody]


async def put_backend(call: Call) -> Reply:
    """Configure an existing store of secrets as a back end, or replace its configuration.

    Agents read the secrets of the store at `backend/NAME/PATH`. The setting `secret_backends` must name the address.
    """
    body = call.json(NewBackend)
    config = BackendConfig(
        kind=body.kind, address=body.address, mount=body.mount, region=body.region, cache_s=body.cache_s
    )

    def put(act: Act) -> StoredBackend:
        act.entry.object = f"{BACKEND_MOUNT}/{body.name[:64]}"
        check_name(body.name)
        check_config(config, permitted=call.world.config.secret_backends.split())
        return backends.put_backend(act, body.name, config, check_credentials(body.kind, body.credentials))

    return reply(_show(await act_as(call, "backend.put", put)), status=201, headers=[NO_STORE])


async def list_backends(call: Call) -> Reply:
    """List the back ends."""
    return reply({"backends": [_show(one) for one in store.backends.get_all(call.world.db.read())]})


async def delete_backend(call: Call) -> Reply:
    """Remove a back end. Its secrets stay at the back end."""
    await act_as(call, "backend.delete", partial(backends.delete_backend, name=call.params["name"]))
    return reply({})


def _show(stored: StoredBackend) -> BackendBody:
    config = stored.config
    return {
        "name": stored.name,
        "kind": config.kind.value,
        "address": config.address,
        "mount": config.mount,
        "region": config.region,
        "cache_s": config.cache_s,
        "updated_at": stored.updated_at // SECOND,
    }


ROUTES = (
    Route(
        "POST",
        "/api/v1/secrets/backends",
        put_backend,
        ADMIN,
        body=NewBackend,
        answers={201: BackendBody},
        errors=(flows.Sealed("the secrets are sealed"),),
    ),
    Route("GET", "/api/v1/secrets/backends", list_backends, READ, answers={200: BackendsBody}),
    Route(
        "DELETE",
        "/api/v1/secrets/backends/{name}",
        delete_backend,
        ADMIN,
        answers={200: EmptyBody},
        errors=(NOT_FOUND,),
    ),
)

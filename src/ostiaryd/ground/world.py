"""The world: the object with everything that a flow needs: configuration, clock, random numbers, database, keys,
writer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec

from ostiary.protocol.errors import Conflict, NotFound, Unavailable
from ostiaryd.ground.config import Config, check_public_url
from ostiaryd.ground.crypto.hsm import open_hsm
from ostiaryd.ground.crypto.keyring import Keyring, load_root_key, old_root_key
from ostiaryd.ground.database import Database, Tx, sql, start
from ostiaryd.ground.database.migrate import migrate
from ostiaryd.ground.database.pin import Pin, read_pin
from ostiaryd.ground.database.reserve import FileReserve, Reserve
from ostiaryd.ground.database.server_keys import create_keys, load_keys, reseal
from ostiaryd.ground.database.server_time import open_clock, save_course
from ostiaryd.ground.database.writer import Writer
from ostiaryd.ground.process.clock import Boot, Clock, boot_id, wall_clock

T = TypeVar("T")
log = logging.getLogger("ostiary")

_GET = sql("select value from setting where name = :name")
_PUT = sql("insert into setting (name, value) values (:name, :value)")
_ANY_KEY = sql("select count(*) from server_key")
_ANY_HISTORY = sql("select id from log_history where ended_at is null")
_BEGIN_HISTORY = sql("insert into log_history (id, began_at) values (:id, :now)")


@dataclass(frozen=True, slots=True)
class World:
    """The objects that the flows of a server need, for one data folder. `now` is server time, `random` returns random
    bytes, `pin` has the head of the ledger that the server stores outside of the database.
    """

    config: Config
    now: Clock
    random: Callable[[int], bytes]
    db: Database
    keys: Keyring
    writer: Writer
    pin: Pin
    _singletons: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def get_singleton(self, make: Callable[[World], T]) -> T:
        """Return the object that `make` creates at the first call, which a package keeps in memory for this world. Call
        this on the event loop.
        """
        if make not in self._singletons:
            self._singletons[make] = make(self)
        kept: T = self._singletons[make]
        return kept

    async def close_singletons(self) -> None:
        """Close the objects that `get_singleton` has kept and that have a method `close`. This also works without a
        database.
        """
        for kept in self._singletons.values():
            if (close := getattr(kept, "close", None)) is not None:
                try:
                    await close()
                except Unavailable as error:
                    log.warning("%s could not write at the end of the server: %s", type(kept).__name__, error.message)


def _reserve_of_postgres(db: Database) -> Reserve:
    # imported only here: psycopg is installed by the extra `postgres`
    from ostiaryd.ground.database.postgres_reserve import PostgresReserve

    return PostgresReserve(db)


@asynccontextmanager
async def open_world(
    config: Config,
    *,
    now: Callable[[], int] = wall_clock,
    boot: Boot | None = None,
    random: Callable[[int], bytes] = os.urandom,
    create: bool = True,
) -> AsyncIterator[World]:
    """Open, in this order, database, schema, root key, clock, fixed settings, keys and writer, and yield the world.
    Close everything at the end.

    If `config` leaves out the trust domain or the public URL, the values of the first start are used; different values
    are refused. `now` is the wall clock; if it is not the system's clock, it also serves as boot clock unless `boot` is
    given. Raises Conflict if the data folder was used before and its database or root key is missing. Without `create`,
    a server may use the folder at the same time; NotFound is raised if the folder was neither used before nor restored.
    """
    if boot is None:
        boot = Boot(id=boot_id()) if now is wall_clock else Boot(now, "given")
    is_used = start.was_in_use(config.folder)
    if not (is_used or create or start.was_restored(config.folder)):
        raise NotFound(
            f"no server has used the data folder {config.folder}",
            hint="set --data-dir to the data folder of the server",
        )
    config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = Database(config.database_url, timeout_s=config.database_timeout_ms / 1000, is_shared=not create)
    # first, because on a full disk the following steps need the freed space
    reserve: Reserve = FileReserve(config.folder) if db.is_sqlite else _reserve_of_postgres(db)
    try:
        if is_used or not create:
            start.check_file(db)
        migrate(db, now=now(), create=create and not is_used)
        start.check_identity(db.read(), read_pin(config.folder))
        root = load_root_key(config.folder, random=random, create=not start.has_keys(db.read()))
        hsm = open_hsm(config.hsm_module, config.hsm_token, config.hsm_pin_file)
        keys = Keyring(root, hsm=hsm)
        pin = Pin(config.folder)
        clock = open_clock(db.read(), wall=now, boot=boot)
        writer = Writer(
            db,
            now=clock,
            random=random,
            keys=keys,
            reserve=reserve,
            longest_wait_s=config.queue_wait_ms / 1000,
            pin=pin,
        )
        try:
            config = await writer.submit(lambda tx: _first_start(tx, config, root_keys=lambda: create_keys(tx, root)))
            if (old := old_root_key()) is not None:
                await writer.submit(lambda tx: reseal(tx, old=old, new=root))
            await writer.submit(lambda tx: save_course(tx, boot.id, clock.course))
            load_keys(keys, db.read())
            db.check_after_loss(partial(load_keys, keys))
            db.watch()
            world = World(config, clock, random, db, keys, writer, pin)
            try:
                yield world
            finally:
                await world.close_singletons()
        finally:
            await writer.close()
            pin.close()
            if hsm is not None:
                hsm.close()
    finally:
        db.close()


def _first_start(tx: Tx, config: Config, *, root_keys: Callable[[], None]) -> Config:
    """Store the settings that the first start fixes, if they are not stored yet; return the configuration with the
    fixed values.
    """
    row = tx.one(_ANY_KEY)
    if row is not None and row[0] == 0:
        root_keys()
    if tx.one(_ANY_HISTORY) is None:
        tx.send(_BEGIN_HISTORY, id=tx.random(16).hex(), now=tx.now)
    is_first = tx.one(_GET, name="public_url") is None
    fixed = {
        name: _fix(tx, name, value, default)
        for name, value, default in (
            ("trust_domain", config.trust_domain, "localhost"),
            ("public_url", config.public_url, config.own_url),
        )
    }
    if is_first:  # the default is the listen address
        check_public_url(fixed["public_url"])
    assertions = _default_assertions(tx, is_first=is_first)
    return msgspec.structs.replace(config, **fixed, client_assertions=config.client_assertions or assertions)


def _default_assertions(tx: Tx, *, is_first: bool) -> str:
    """Return the default of the setting `client_assertions`, as the first start stored it: `strict` if that start was
    older than the setting.
    """
    if (row := tx.one(_GET, name="client_assertions")) is not None:
        return str(row[0])
    default = "compatible" if is_first else "strict"
    tx.send(_PUT, name="client_assertions", value=default)
    return default


def _fix(tx: Tx, name: str, configured: str, default: str) -> str:
    row = tx.one(_GET, name=name)
    if row is None:
        tx.send(_PUT, name=name, value=configured or default)
        return configured or default
    value: str = row[0]
    if configured and configured != value:
        raise Conflict(
            f"`{name}` was fixed to `{value}` at the first start and cannot be changed to `{configured}`",
            hint="tokens and identities contain the value; to change it, start a new server with a new data folder",
        )
    return value

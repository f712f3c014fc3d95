"""Back ends and their encrypted credentials."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.backend import BackendConfig
from ostiaryd.secrets.model.sealing import Envelope

_COLUMNS = "name, config, wrapped_key, sealed, updated_at"
_GET = sql(f"select {_COLUMNS} from secret_backend where name = :name", steady=True)
_ALL = sql(f"select {_COLUMNS} from secret_backend order by name")
_PUT = sql(
    f"""insert into secret_backend ({_COLUMNS}) values (:name, :config, :wrapped_key, :sealed, :now)
        on conflict (name) do update set config = excluded.config, wrapped_key = excluded.wrapped_key,
         sealed = excluded.sealed, updated_at = excluded.updated_at"""
)
_DELETE = sql("delete from secret_backend where name = :name")
_decode_config = json_decoder(BackendConfig)


class StoredBackend(NamedTuple):
    """A back end with its encrypted credentials. `updated_at`: the time of its last replacement, in microseconds."""

    name: str
    config: BackendConfig
    credentials: Envelope
    updated_at: int


def get(reader: Reader, name: str) -> StoredBackend | None:
    """Return the back end `name`; None if there is none."""
    return reader.one_as(_GET, _backend, name=name)


def get_all(reader: Reader) -> list[StoredBackend]:
    """Return all back ends, sorted by name."""
    return [_backend(row) for row in reader.all(_ALL)]


def put(tx: Tx, name: str, config: BackendConfig, credentials: Envelope) -> None:
    """Insert or replace a back end."""
    tx.run(_PUT, name=name, config=msgspec.json.encode(config).decode(), now=tx.now, **credentials._asdict())


def delete(tx: Tx, name: str) -> bool:
    """Delete a back end. Return False if there is none."""
    return tx.run(_DELETE, name=name) == 1


def _backend(row: Row) -> StoredBackend:
    name, config, wrapped_key, sealed, updated_at = row
    return StoredBackend(name, _decode_config(config), Envelope(bytes(wrapped_key), bytes(sealed)), updated_at)

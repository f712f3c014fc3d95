"""The tables of the server's access to AWS, with its encrypted secret key, and of roles."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.aws_account import AwsRole, AwsRoot
from ostiaryd.secrets.model.sealing import Envelope

ROOT, PENDING = "root", "pending"
"""Names of the rows: the access in use, and the access with the new key of a rotation, which is not in use yet."""
_ROOT = sql("select config, wrapped_key, sealed from aws_root where name = :name", steady=True)
_PUT_ROOT = sql(
    """insert into aws_root (name, config, wrapped_key, sealed, updated_at)
       values (:name, :config, :wrapped_key, :sealed, :now)
       on conflict (name) do update set config = excluded.config, wrapped_key = excluded.wrapped_key,
        sealed = excluded.sealed, updated_at = excluded.updated_at"""
)
_REPLACE_ROOT = sql("update aws_root set config = :config where name = :name and config = :present")
_DELETE_ROOT = sql("delete from aws_root where name = :name")
_ROLE = sql("select role from aws_role where name = :name", steady=True)
_PUT_ROLE = sql(
    """insert into aws_role (name, role, updated_at) values (:name, :role, :now)
       on conflict (name) do update set role = excluded.role, updated_at = excluded.updated_at"""
)
_DELETE_ROLE = sql("delete from aws_role where name = :name")
_ROLES = sql("select name from aws_role order by name limit :limit")
_decode_root, _decode_role = map(json_decoder, (AwsRoot, AwsRole))


class StoredRoot(NamedTuple):
    """The server's access to AWS, with its encrypted secret key."""

    config: AwsRoot
    secret_key: Envelope


def root(reader: Reader, name: str = ROOT) -> StoredRoot | None:
    """Return the server's access to AWS in the row `name`: `ROOT` is in use, `PENDING` has the new key of a rotation.
    None if there is none.
    """
    return reader.one_as(_ROOT, _stored, name=name)


def put_root(tx: Tx, config: AwsRoot, secret_key: Envelope, name: str = ROOT) -> None:
    """Insert or replace the server's access to AWS in the row `name`: `ROOT` is in use, `PENDING` has the new key of a
    rotation.
    """
    tx.run(_PUT_ROOT, name=name, config=_text(config), now=tx.now, **secret_key._asdict())


def replace_root(tx: Tx, present: AwsRoot, config: AwsRoot) -> bool:
    """Replace the server's access to AWS by `config`, but keep its secret key. Return False without a change if the
    stored access is not `present` any more.
    """
    return tx.run(_REPLACE_ROOT, name=ROOT, present=_text(present), config=_text(config)) == 1


def delete_pending(tx: Tx) -> None:
    """Delete the row `PENDING`, which has the new key of a rotation. The keys at AWS stay as they are."""
    tx.run(_DELETE_ROOT, name=PENDING)


def role(reader: Reader, name: str) -> AwsRole | None:
    """Return the AWS role `name`; None if there is none."""
    return reader.one_as(_ROLE, lambda row: _decode_role(row[0]), name=name)


def put_role(tx: Tx, name: str, role: AwsRole) -> None:
    """Insert or replace a role."""
    tx.run(_PUT_ROLE, name=name, role=_text(role), now=tx.now)


def delete_role(tx: Tx, name: str) -> None:
    """Delete a role. Its leases stay."""
    tx.run(_DELETE_ROLE, name=name)


def roles(reader: Reader, *, limit: int) -> list[str]:
    """Return the names of at most `limit` AWS roles."""
    return [str(name) for (name,) in reader.all(_ROLES, limit=limit)]


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _stored(row: Row) -> StoredRoot:
    config, wrapped_key, sealed = row
    return StoredRoot(_decode_root(config), Envelope(bytes(wrapped_key), bytes(sealed)))

"""The tables of wrapping keys and of the seal, and the list of the tables whose values are encrypted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ostiaryd.ground.database import Reader, Row, Sql, Tx, sql
from ostiaryd.secrets.model.sealing import Envelope, Place

_KEYS = sql("select number, state, sealed, created_at from secret_wrapping_key order by number", steady=True)
_KEY = sql(
    """select number, state, sealed, created_at from secret_wrapping_key
       where number = :number and not exists (select 1 from secret_seal where sealed_at is not null)""",
    steady=True,
)
_INSERT_KEY = sql(
    """insert into secret_wrapping_key (number, state, sealed, created_at)
       values (:number, 'active', :sealed, :now)"""
)
_RETIRE = sql("update secret_wrapping_key set state = 'retired' where state = 'active'")
_CLOSE = sql("update secret_wrapping_key set sealed = :sealed where number = :number")
_FORGET = sql("delete from secret_wrapping_key where number = :number and state = 'retired'")
_SEAL = sql("select public_key, sealed_at from secret_seal where id = 1", steady=True)
_SET_SEAL = sql(
    """insert into secret_seal (id, public_key, sealed_at) values (1, :public_key, :sealed_at)
       on conflict (id) do update set public_key = excluded.public_key, sealed_at = excluded.sealed_at"""
)


class StoredKey(NamedTuple):
    """A wrapping key in encrypted form. `created_at`: microseconds since the epoch."""

    number: int
    is_active: bool
    sealed: bytes
    created_at: int


class Seal(NamedTuple):
    """The public part of the unseal key, and the time (microseconds) since which the secrets are sealed; None if they
    are not sealed.
    """

    public_key: bytes
    sealed_at: int | None


class EnvelopeTable(NamedTuple):
    """A table with encrypted values (envelopes). `page` is the statement that reads the rows after a row; `update`
    replaces the envelope of a row; `place` returns the place of a row (mount, path and version), for which alone its
    envelope can be decrypted.

    `first` is a key before all rows. The columns of `page` are the key columns, then `wrapped_key` and `sealed`.
    """

    keys: tuple[str, ...]
    page: Sql
    update: Sql
    first: tuple[str | int | bytes, ...]
    place: Callable[[Row], Place]

    def envelopes(self, tx: Tx, after: tuple[object, ...], *, limit: int) -> list[tuple[Row, Envelope]]:
        """Return (key of the row, envelope) of at most `limit` rows after the row with the key `after`."""
        rows = tx.all(self.page, limit=limit, **dict(zip(self.keys, after, strict=True)))
        return [(row[:-2], Envelope(bytes(row[-2]), bytes(row[-1]))) for row in rows]

    def replace(self, tx: Tx, key: Row, envelope: Envelope) -> None:
        """Replace the encrypted value (envelope) of the row with this key."""
        shown = dict(zip(self.keys, key, strict=True))
        tx.run(self.update, wrapped_key=envelope.wrapped_key, sealed=envelope.sealed, **shown)


def _password_table(page: Sql, update: Sql, folder: str) -> EnvelopeTable:
    """Return the description of a table of passwords of the database engine. The passwords have places below `folder`
    of that mount.
    """
    return EnvelopeTable(("name",), page, update, ("",), lambda row: ("database", f"{folder}/{row[0]}", 1))


ENVELOPE_TABLES = (
    EnvelopeTable(
        ("mount", "path", "version"),
        sql(
            """select mount, path, version, wrapped_key, sealed from secret_version
               where (mount, path, version) > (:mount, :path, :version) and sealed is not null
               order by mount, path, version limit :limit"""
        ),
        sql(
            """update secret_version set wrapped_key = :wrapped_key, sealed = :sealed
               where mount = :mount and path = :path and version = :version"""
        ),
        ("", b"", 0),
        lambda row: (row[0], bytes(row[1]).decode(), row[2]),
    ),
    EnvelopeTable(
        ("name", "version"),
        sql(
            """select name, version, wrapped_key, sealed from transit_key_version
               where (name, version) > (:name, :version) order by name, version limit :limit"""
        ),
        sql(
            """update transit_key_version set wrapped_key = :wrapped_key, sealed = :sealed
               where name = :name and version = :version"""
        ),
        ("", 0),
        lambda row: ("transit", row[0], row[1]),
    ),
    EnvelopeTable(
        ("issuer_id",),
        sql(
            """select issuer_id, wrapped_key, sealed from pki_issuer
               where issuer_id > :issuer_id and sealed is not null order by issuer_id limit :limit"""
        ),
        sql("update pki_issuer set wrapped_key = :wrapped_key, sealed = :sealed where issuer_id = :issuer_id"),
        ("",),
        lambda row: ("pki", row[0], 1),
    ),
    EnvelopeTable(
        ("digest",),
        sql(
            """select digest, wrapped_key, sealed from wrapped_answer where digest > :digest
               order by digest limit :limit"""
        ),
        sql("update wrapped_answer set wrapped_key = :wrapped_key, sealed = :sealed where digest = :digest"),
        (b"",),
        lambda row: ("sys/wrapping", bytes(row[0]).hex(), 1),
    ),
    EnvelopeTable(
        ("holding", "path"),
        sql(
            """select holding, path, wrapped_key, sealed from cubbyhole_value where (holding, path) > (:holding, :path)
               order by holding, path limit :limit"""
        ),
        sql(
            """update cubbyhole_value set wrapped_key = :wrapped_key, sealed = :sealed
               where holding = :holding and path = :path"""
        ),
        ("", b""),
        lambda row: ("cubbyhole", f"{row[0]}/{bytes(row[1]).decode()}", 1),
    ),
    _password_table(
        sql(
            """select name, pending_key, pending from secret_database where name > :name and pending is not null
               order by name limit :limit"""
        ),
        sql("update secret_database set pending_key = :wrapped_key, pending = :sealed where name = :name"),
        "config",
    ),
    _password_table(
        sql("""select name, wrapped_key, sealed from secret_database where name > :name order by name limit :limit"""),
        sql("update secret_database set wrapped_key = :wrapped_key, sealed = :sealed where name = :name"),
        "config",
    ),
    _password_table(
        sql(
            """select name, pending_key, pending from static_role where name > :name and pending is not null
               order by name limit :limit"""
        ),
        sql("update static_role set pending_key = :wrapped_key, pending = :sealed where name = :name"),
        "static-roles",
    ),
    _password_table(
        sql(
            """select name, wrapped_key, sealed from static_role where name > :name and sealed is not null
               order by name limit :limit"""
        ),
        sql("update static_role set wrapped_key = :wrapped_key, sealed = :sealed where name = :name"),
        "static-roles",
    ),
    EnvelopeTable(
        ("name",),
        sql("select name, wrapped_key, sealed from aws_root where name > :name order by name limit :limit"),
        sql("update aws_root set wrapped_key = :wrapped_key, sealed = :sealed where name = :name"),
        ("",),
        lambda row: ("aws", f"config/{row[0]}", 1),
    ),
    EnvelopeTable(
        ("id",),
        sql("select id, wrapped_key, sealed from access_key where id > :id order by id limit :limit"),
        sql("update access_key set wrapped_key = :wrapped_key, sealed = :sealed where id = :id"),
        ("",),
        lambda row: ("aws", row[0], 1),
    ),
    EnvelopeTable(
        ("name",),
        sql(
            """select name, wrapped_key, sealed from account_provider where name > :name and sealed is not null
               order by name limit :limit"""
        ),
        sql("update account_provider set wrapped_key = :wrapped_key, sealed = :sealed where name = :name"),
        ("",),
        lambda row: ("oauth", f"config/{row[0]}", 1),
    ),
    EnvelopeTable(
        ("account_id",),
        sql(
            """select account_id, wrapped_key, sealed from connected_account where account_id > :account_id
               order by account_id limit :limit"""
        ),
        sql(
            """update connected_account set wrapped_key = :wrapped_key, sealed = :sealed
               where account_id = :account_id"""
        ),
        ("",),
        lambda row: ("oauth", f"refresh/{row[0]}", 1),
    ),
    EnvelopeTable(
        ("account_id",),
        sql(
            """select account_id, token_key, token from connected_account where account_id > :account_id
               order by account_id limit :limit"""
        ),
        sql("update connected_account set token_key = :wrapped_key, token = :sealed where account_id = :account_id"),
        ("",),
        lambda row: ("oauth", f"shared/{row[0]}", 1),
    ),
    EnvelopeTable(
        ("lease_id",),
        sql(
            """select lease_id, wrapped_key, sealed from account_token
               where lease_id > :lease_id and sealed is not null order by lease_id limit :limit"""
        ),
        sql("update account_token set wrapped_key = :wrapped_key, sealed = :sealed where lease_id = :lease_id"),
        ("",),
        lambda row: ("oauth", row[0], 1),
    ),
    EnvelopeTable(
        ("name",),
        sql("select name, wrapped_key, sealed from secret_backend where name > :name order by name limit :limit"),
        sql("update secret_backend set wrapped_key = :wrapped_key, sealed = :sealed where name = :name"),
        ("",),
        lambda row: ("backend", row[0], 1),
    ),
    EnvelopeTable(
        ("path",),
        sql("select path, wrapped_key, sealed from secret_rotation where path > :path order by path limit :limit"),
        sql("update secret_rotation set wrapped_key = :wrapped_key, sealed = :sealed where path = :path"),
        ("",),
        lambda row: ("rotation", row[0], 1),
    ),
    EnvelopeTable(
        ("path",),
        sql(
            """select path, pending_key, pending from secret_rotation where path > :path and pending is not null
               order by path limit :limit"""
        ),
        sql("update secret_rotation set pending_key = :wrapped_key, pending = :sealed where path = :path"),
        ("",),
        lambda row: ("rotation-value", row[0], 1),
    ),
)
"""All tables with encrypted values. A value in another table would be lost when its wrapping key is deleted. Pending
passwords are listed before present passwords, because a rotation that ends during a renewal of the keys moves a pending
password to the present one.
"""


def keys(reader: Reader) -> list[StoredKey]:
    """Return the wrapping keys, the oldest first."""
    return [_stored_key(row) for row in reader.all(_KEYS)]


def find_open_key(reader: Reader, number: int) -> StoredKey | None:
    """Return the wrapping key with this number, encrypted under the root key; None if there is none, and while the
    secrets are sealed.
    """
    return reader.one_as(_KEY, _stored_key, number=number)


def _stored_key(row: Row) -> StoredKey:
    number, state, sealed, created = row
    return StoredKey(number, state == "active", bytes(sealed), created)


def insert_key(tx: Tx, number: int, sealed: bytes) -> None:
    """Insert a wrapping key for all new values, and mark the previous key as retired."""
    tx.run(_RETIRE)
    tx.run(_INSERT_KEY, number=number, sealed=sealed, now=tx.now)


def replace_sealed_key(tx: Tx, number: int, sealed: bytes) -> None:
    """Store another encrypted form of a wrapping key: encrypted for the unseal key while the secrets are sealed, and
    under the root key otherwise.
    """
    tx.run(_CLOSE, number=number, sealed=sealed)


def forget_key(tx: Tx, number: int) -> int:
    """Delete a retired wrapping key. Return 0 if there is none."""
    return tx.run(_FORGET, number=number)


def seal(reader: Reader) -> Seal | None:
    """Return the seal; None if no unseal key was ever set."""
    row = reader.one(_SEAL)
    return None if row is None else Seal(bytes(row[0]), row[1])


def set_seal(tx: Tx, changed: Seal) -> None:
    """Store the state of the seal."""
    tx.run(_SET_SEAL, public_key=changed.public_key, sealed_at=changed.sealed_at)

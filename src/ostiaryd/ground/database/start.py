"""Checks at the start of a server, before it creates anything.

A data folder that was used before must not be continued with an empty database, or with the database of another server.
"""

from __future__ import annotations

import json
from pathlib import Path

from ostiary.protocol.errors import Conflict
from ostiary.protocol.jose import unb64u
from ostiaryd.ground.database import Database, Reader, sql
from ostiaryd.ground.database.pin import Head, read_pin

_LEDGER_KEY = sql("select public_jwk from server_key where use_ = 'ledger' and state = 'active'")
_ANY_SETTING = sql("select count(*) from setting")
_RESTORE = (
    "if the server uses another database, set --database; otherwise restore the database from a backup "
    "and start again; for a new server, use another, empty --data-dir"
)


def was_in_use(folder: Path) -> bool:
    """Return whether a server has used this data folder: the ledger has a pin, or the server was ready at
    least once.
    """
    return read_pin(folder) is not None or (folder / "server.json").exists()


def was_restored(folder: Path) -> bool:
    """Return whether the data folder contains the database, the root key or `admin.json`. In a folder that no server
    has used, an operator has restored these files from a backup.
    """
    return any((folder / name).exists() for name in ("ostiary.db", "root.key", "admin.json"))


def check_file(db: Database) -> None:
    """Check that the SQLite database exists and is not empty. Do nothing for PostgreSQL. Call it for a data folder that
    was used before. Raises Conflict if the check fails.
    """
    if db.is_sqlite and not (db.path.is_file() and db.path.stat().st_size):
        state = "empty" if db.path.is_file() else "missing"
        raise Conflict(f"the database {db.path} is {state}, but this data folder was already used", hint=_RESTORE)


def has_keys(reader: Reader) -> bool:
    """Return whether the database contains the keys of a server. Raises Conflict if it has settings, but no ledger
    key.
    """
    has_ledger_key = reader.one(_LEDGER_KEY) is not None
    (settings,) = reader.one(_ANY_SETTING) or (0,)
    if settings and not has_ledger_key:
        raise Conflict("the database has lost the key of its ledger", hint=_RESTORE)
    return has_ledger_key


def check_identity(reader: Reader, pinned: Head | None) -> None:
    """Check that the database contains the ledger of the pin in this data folder. Do nothing if nothing was pinned yet
    (None). Raises Conflict if the check fails.
    """
    if pinned is None:
        return
    row = reader.one(_LEDGER_KEY)
    if row is None:
        raise Conflict(
            f"the database has no ledger, but the ledger of this data folder has {pinned.size} entries",
            hint=_RESTORE,
        )
    if unb64u(json.loads(row[0])["x"]) != pinned.key:
        raise Conflict(
            "the ledger in the database belongs to another server than this data folder",
            hint="check the database URL, or use the data folder that belongs to this database",
        )

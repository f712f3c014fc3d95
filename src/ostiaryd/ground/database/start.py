"""Checks of a start before it creates anything.

A data folder that was in use never continues with an empty database, or with the database of another server.
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
    "if the server uses another database, name it with --database; otherwise restore the database from a backup and "
    "start again; to begin anew, use another, empty --data-dir"
)


def was_in_use(folder: Path) -> bool:
    """Return whether a server has run with this data folder: its ledger has a pin, or the server once was ready."""
    return read_pin(folder) is not None or (folder / "server.json").exists()


def check_file(db: Database) -> None:
    """Check that the SQLite database of a used folder exists. Raises Conflict."""
    if db.is_sqlite and not (db.path.is_file() and db.path.stat().st_size):
        state = "empty" if db.path.is_file() else "missing"
        raise Conflict(f"the database {db.path} is {state}, although this data folder was in use", hint=_RESTORE)


def has_keys(reader: Reader) -> bool:
    """Return whether the database has the keys of a server. Raises Conflict if only the keys are missing."""
    has_ledger_key = reader.one(_LEDGER_KEY) is not None
    (settings,) = reader.one(_ANY_SETTING) or (0,)
    if settings and not has_ledger_key:
        raise Conflict("the database has lost the key of its ledger", hint=_RESTORE)
    return has_ledger_key


def check_identity(reader: Reader, pinned: Head | None) -> None:
    """Check that the database has the ledger that the pin of this data folder names. Raises Conflict."""
    if pinned is None:
        return
    row = reader.one(_LEDGER_KEY)
    if row is None:
        raise Conflict(
            f"the database has no ledger, although the one of this data folder has {pinned.size} entries",
            hint=_RESTORE,
        )
    if unb64u(json.loads(row[0])["x"]) != pinned.key:
        raise Conflict(
            "the database has the ledger of another server than this data folder",
            hint="check the database URL, or use the data folder that belongs to this database",
        )

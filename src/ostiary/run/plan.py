"""The plan of a proxy: a JSON file (mode 0600) from the process that starts the proxy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid

MAX_BYTES = 64 << 10


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a proxy. `spool` is the folder of the records that the guard has not reported yet."""

    server: str
    """the name of the server in the agent's configuration"""
    agent: str
    """the file of the agent's credential"""
    guard: str
    """the file of the guard's credential, which belongs to the resource of the server"""
    uri: str
    """the identifier of the server's resource"""
    spool: str
    mode: str
    """the file with the last mode"""
    url: str
    """the address of the Ostiary server"""
    task: str | None = None
    """the id of the declared task; None for the standing task"""
    events: str | None = None
    """the path of the socket of `ostiary run`"""


def read_plan(path: Path) -> Plan:
    """Read the plan of a proxy. Raises Invalid."""
    try:
        with path.open("rb") as file:
            return json_decoder(Plan)(file.read(MAX_BYTES))
    except OSError as error:
        raise Invalid(f"cannot read the plan {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not a plan of `ostiary run`: {error}", hint="`ostiary run` writes them") from None

"""The plan of a proxy: a JSON file (mode 0600) from the process that starts the proxy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid

MAX_BYTES = 64 << 10


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings with which `ostiary run` starts a proxy. `spool`: the folder of the records that the guard has not
    reported yet.
    """

    server: str
    """the name of the server in the agent's configuration"""
    agent: str
    """the path of the file with the agent's credential"""
    guard: str
    """the file of the guard's credential, which belongs to the resource of the server"""
    uri: str
    """the resource identifier (URI) of the server"""
    spool: str
    mode: str
    """the path of the file with the mode (`watch` or `enforce`) that the guard knew last"""
    url: str
    """the address of the Ostiary server"""
    task: str | None = None
    """the id of the declared task; None for the standing task"""
    events: str | None = None
    """the path of the socket on which `ostiary run` receives events; None outside of a run"""


def read_plan(path: Path) -> Plan:
    """Return the plan that `ostiary run` wrote for a proxy into a file. Raises Invalid for a file that cannot be read
    or is not a plan.
    """
    try:
        with path.open("rb") as file:
            return json_decoder(Plan)(file.read(MAX_BYTES))
    except OSError as error:
        raise Invalid(f"cannot read the plan {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise Invalid(
            f"{path} is not a plan of `ostiary run`: {error}", hint="name a file that `ostiary run` has written"
        ) from None

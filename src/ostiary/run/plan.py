"""The plan of a proxy: one JSON file (0600) from the process that starts it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid

MAX_BYTES = 64 << 10


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths of files, where none says otherwise."""

    server: str
    """the name of the server in the agent's configuration"""
    agent: str
    """the agent's credential"""
    guard: str
    """the credential of the guard: of the resource that the server is"""
    uri: str
    """the resource's identifier"""
    spool: str
    mode: str
    """the file with the last mode"""
    url: str
    """address of the control plane"""
    task: str | None = None
    """id of the declared task; without, the standing task"""
    events: str | None = None
    """the socket of `ostiary run`"""


def read_plan(path: Path) -> Plan:
    """Read the plan of a run. Raises Invalid."""
    try:
        with path.open("rb") as file:
            return json_decoder(Plan)(file.read(MAX_BYTES))
    except OSError as error:
        raise Invalid(f"cannot read the plan {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not a plan of `ostiary run`: {error}", hint="`ostiary run` writes them") from None

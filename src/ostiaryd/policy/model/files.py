"""The source of a policy set: a folder of text files. The digest of all files is the hash that names the set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ostiary.authorization.cedar.values import Entity, Uid, entity
from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid

POLICIES, SCHEMA, ENTITIES, TESTS = ".cedar", ".cedarschema", ".entities.json", ".test.toml"
REGO, DATA, OPA = ".rego", ".data.json", ".opa.toml"
SAFEGUARDS = ".safeguards.toml"
KINDS = (POLICIES, SCHEMA, ENTITIES, REGO, DATA, OPA, SAFEGUARDS, TESTS)
MAX_FILES = 200
MAX_BYTES = 4 << 20
_encode = msgspec.json.Encoder().encode
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def check_files(files: Mapping[str, str]) -> None:
    """Check the files of a policy set, before they are parsed: number, names, kinds and total size. Raises Invalid for
    files that are not allowed.
    """
    if not 0 < len(files) <= MAX_FILES:
        raise Invalid(f"a policy set has 1 to {MAX_FILES} files, not {len(files)}")
    for name in files:
        if len(name) > 200 or not _NAME.fullmatch(name):
            hint = "at most 200 of the characters A-Z, a-z, 0-9, `_`, `-`, `.` and `/`; no part begins with a dot"
            raise Invalid(f"{name[:200]!a} is not a file name that a policy set may have", hint=hint)
        if not name.endswith(KINDS):
            raise Invalid(f"the name of the file {name} must end with one of {', '.join(KINDS)}")
    if (size := sum(map(len, files.values()))) > MAX_BYTES:
        raise Invalid(f"the files have {size} characters together", hint=f"use at most {MAX_BYTES} characters")


def of_kind(files: Mapping[str, str], suffix: str) -> list[tuple[str, str]]:
    """Return (name, text) of each file whose name ends with `suffix`, sorted by name."""
    return sorted((name, text) for name, text in files.items() if name.endswith(suffix))


def digest(files: Mapping[str, str]) -> str:
    """Return the hash of a set: the SHA-256, in base64url, of the canonical JSON of its files. Raises Malformed for
    text that is not valid Unicode.
    """
    return canonical.digest(dict(files))


def encode_files(files: Mapping[str, str]) -> str:
    """Return the files of a set as the text that the database stores."""
    return canonical.encode(dict(files)).decode()


def decode_files(text: str) -> dict[str, str]:
    """Return the files of a set from the text that the database stores."""
    value = canonical.parse(text, max_bytes=4 * MAX_BYTES)
    assert isinstance(value, dict)
    return value


def encode_actions(actions: Mapping[Uid, Entity]) -> str:
    """Return the actions of a policy set as a JSON text; each action has the names of all action groups that contain
    it.
    """
    return _encode([(uid, sorted(action.lineage - {uid}, key=str)) for uid, action in actions.items()]).decode()


def decode_actions(text: str) -> dict[Uid, Entity]:
    """Return the actions of a policy set, by their ids, from the result of `encode_actions`."""
    rows = json_decoder(list[tuple[Uid, list[Uid]]])(text)
    return {uid: entity(uid, ancestors=groups) for uid, groups in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The summary of a stored set. `created_at`: microseconds since the epoch. `created_by`: the id of the person or
    agent that put the set.
    """

    hash: str
    policies: int
    """number of policies of the set, in any language, without the safeguards and roles of the server"""
    safeguards: int
    """number of safeguards of the server that are part of the set"""
    tests: int
    created_at: int
    created_by: str


class PolicyDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="policy"):
    """The message that tells guards that another policy set is active."""

    hash: str

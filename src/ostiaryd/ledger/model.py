"""What an entry says: who did what, when, why, and how it ended."""

from __future__ import annotations

from typing import Any

import msgspec

MESSAGE_LIMIT = 500
"""Characters kept of a reason's message, so that an entry stays below the 65,535 bytes of a tile bundle."""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str = ""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the enforcement point saw of the outcome."""

    status: str = ""
    bytes: int | None = None
    records: int | None = None
    data_class: str = ""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One act. A flow fills it while it learns more; what it never learned is left out of the encoding.

    `at` is microseconds since the epoch. `outcome` is `ok` (done), `allow` or `deny` (a decision), `refused` (nothing
    was changed) or `error` (we failed; nothing was changed). Arguments appear as a digest, or redacted by rule.
    """

    at: int
    action: str
    outcome: str = "ok"
    agent: str | None = None
    owner: str | None = None
    person: str | None = None
    actors: list[str] = []
    task: str | None = None
    resource: str | None = None
    tool: str | None = None
    object: str | None = None
    token: str | None = None
    key: str | None = None
    digest: str | None = None
    arguments: dict[str, Any] | None = None
    reasons: list[Reason] = []
    policy: str | None = None
    policies: list[str] = []
    result: Result | None = None
    request: str | None = None
    reporter: str | None = None
    detail: dict[str, Any] | None = None


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    return _ENCODER.encode(entry)


def decode_entry(body: bytes) -> Entry:
    return _DECODER.decode(body)


def reason(code: str, message: str = "") -> Reason:
    return Reason(code, message[:MESSAGE_LIMIT])

"""The content of an entry: agent, action, time, reason and outcome."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from ostiary.authorization.classes import is_class
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.jose import b64u
from ostiary.protocol.tiles import MAX_ENTRY_BYTES
from ostiaryd.ground.process.ids import standing_agent

MESSAGE_LIMIT = 500
"""Characters kept of a reason's message, so that an entry stays below the 65,535 bytes of a tile bundle."""

_CREDENTIAL = re.compile(r"(hvs\.|ostcs_|ostiary_pep_|eyJ)[A-Za-z0-9_.-]{8,}")
"""Vault tokens, client secrets, API keys of static PEPs, and JWTs: the prefix of each, and the rest."""
_CLAIMED = ("agent", "task", "resource", "tool", "object", "token", "request")
"""Members of an entry that a caller may name before anything is proved."""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str = ""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a call, as the enforcement point reports it."""

    status: str = ""
    bytes: int | None = None
    records: int | None = None
    data_class: str = ""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An act. A flow fills the entry as it learns more; empty members are left out of the encoding.

    `at` is microseconds since the epoch. `outcome` is `ok` (done), `allow` or `deny` (a decision), `refused` (nothing
    was changed) or `error` (the server failed; nothing was changed). Arguments appear as a digest, or redacted by rule.
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
    data_classes: list[str] = []
    """data classes that the tool handles; `result` names the classes that the call touched"""
    object: str | None = None
    token: str | None = None
    key: str | None = None
    network: str | None = None
    """network of origin, never the address"""
    digest: str | None = None
    arguments: dict[str, Any] | None = None
    reasons: list[Reason] = []
    policy: str | None = None
    policies: list[str] = []
    result: Result | None = None
    request: str | None = None
    reporter: str | None = None
    detail: dict[str, Any] | None = None
    rows: dict[str, str] = {}
    """guarded rows that the act wrote, with their digests at the end of its batch (`ground.database.guarded`)"""
    facts: str | None = None
    """digest of the decided request"""
    kept_facts: bytes | None = None
    """evidence, on its way to a table of its own; it is not encoded here, and is deleted after its retention"""

    evidence: str | None = None
    """the DPoP proof of the call that it reports, on its way to a table of its own; not encoded, kept for minutes"""

    @property
    def is_refused(self) -> bool:
        """Return whether nothing was changed."""
        return self.outcome in ("refused", "error")

    def redact_credentials(self) -> None:
        """Cut credentials of this server out of members that a refused caller may have filled with anything."""
        for name in _CLAIMED:
            setattr(self, name, _redact(getattr(self, name)))
        self.reasons = [Reason(one.code, _redact(one.message)) for one in self.reasons]
        self.detail = _redact(self.detail)

    def keep(self, facts: bytes) -> None:
        """Let these facts stand beside the entry, which has their digest alone."""
        self.facts, self.kept_facts = b64u(sha256(facts).digest()), facts

    def leave(self) -> None:
        """Keep no facts after all."""
        self.facts = self.kept_facts = None


MAX_ROWS = 100
"""Rows in one entry, of some 120 bytes each at most."""
WORD_LIMIT = 256
_WORDS = tuple(name for name in Entry.__struct_fields__ if Entry.__annotations__[name] in ("str", "str | None"))
_ENCODER = msgspec.json.Encoder(order="deterministic")
_decode = json_decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes that are hashed. An entry over 65,535 bytes keeps agent, action and outcome, and the digest of
    the whole.

    The function is total on purpose: an entry that cannot be encoded would fail all acts of its batch.
    """
    entry.kept_facts = entry.evidence = None
    body = _ENCODER.encode(entry)
    if len(body) <= MAX_ENTRY_BYTES:
        return body
    kept = {name: value[:WORD_LIMIT] for name in _WORDS if isinstance(value := getattr(entry, name), str)}
    cut = {"bytes": len(body), "sha256": b64u(sha256(body).digest())}
    reasons = [Reason(r.code[:WORD_LIMIT], r.message[:MESSAGE_LIMIT]) for r in entry.reasons[:8]]
    return _ENCODER.encode(Entry(at=entry.at, **kept, reasons=reasons, rows=entry.rows, detail={"cut": cut}))  # type: ignore[arg-type]


def spread_rows(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with at most `MAX_ROWS` rows each; further rows follow in entries of their own."""
    spread = []
    for entry in entries:
        names = list(entry.rows)
        spread.append(entry)
        for start in range(MAX_ROWS, len(names), MAX_ROWS):
            chunk = {name: entry.rows[name] for name in names[start : start + MAX_ROWS]}
            spread.append(Entry(at=entry.at, action="state.rows", request=entry.request, rows=chunk))
        if len(names) > MAX_ROWS:
            entry.rows = {name: entry.rows[name] for name in names[:MAX_ROWS]}
    return spread


def classes_of(entry: Entry) -> set[str]:
    """The data classes by which the entry is found; a guard's class with a malformed name is left out."""
    reported = entry.data_classes if entry.result is None else [*entry.data_classes, entry.result.data_class]
    return set(filter(is_class, reported))


def is_standing(entry: Entry) -> bool:
    """Return whether the task is the standing task of its agent, which needs no index of its own."""
    return entry.task is not None and entry.agent == standing_agent(entry.task)


def decode_entry(body: bytes) -> Entry:
    """Return the entry that `body` encodes."""
    return _decode(body)


def reason(code: str, message: str = "") -> Reason:
    """Return a reason; the message is cut at `MESSAGE_LIMIT` characters."""
    return Reason(code, message[:MESSAGE_LIMIT])


USES = ("token.issue", "token.exchange", "tool.call", "tool.undecided", "decide", "decide.batch", "task.start")
"""Actions that an agent itself takes. Findings and administration name an agent too, and are not uses of it."""


def _redact(value: Any) -> Any:
    match value:
        case str():
            return _CREDENTIAL.sub(r"\1...", value)
        case list():
            return [_redact(one) for one in value]
        case dict():
            return {_redact(name): _redact(one) for name, one in value.items()}
        case _:
            return value

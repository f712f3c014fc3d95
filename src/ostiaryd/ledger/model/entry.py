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
"""The forms of credentials (Vault tokens, client secrets, API keys of static PEPs, JWTs), each with its prefix."""
_AGENT = re.compile(r"ag_[0-9a-z-]{1,64}")
_CLAIMED = ("agent", "task", "resource", "tool", "object", "token", "request")
"""Members of an entry that a caller fills before anything is proved."""


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
    """The entry of an act. A flow fills it step by step; empty members are left out of the encoding.

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
    """network of the caller's address; the address itself is never kept"""
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
    """guarded rows that the act wrote; their digests are added at the end of the batch (`ground.database.guarded`)"""
    facts: str | None = None
    """digest of the decided request"""
    kept_facts: bytes | None = None
    """evidence, which is stored in a table of its own until its retention ends, and is not encoded here"""

    evidence: str | None = None
    """the DPoP proof of the reported call, which is stored in a table of its own for minutes, and is not
    encoded here
    """

    @property
    def is_refused(self) -> bool:
        """Return whether the act changed nothing."""
        return self.outcome in ("refused", "error")

    def redact_credentials(self) -> None:
        """Remove credentials of this server from the members that a refused caller fills, whatever the caller
        put there.
        """
        for name in _CLAIMED:
            setattr(self, name, _redact(getattr(self, name)))
        self.reasons = [Reason(one.code, _redact(one.message)) for one in self.reasons]
        self.detail = _redact(self.detail)

    def keep(self, facts: bytes) -> None:
        """Store these facts beside the entry, which contains only their digest."""
        self.facts, self.kept_facts = b64u(sha256(facts).digest()), facts

    def leave(self) -> None:
        """Store no facts beside the entry."""
        self.facts = self.kept_facts = None


MAX_ROWS = 100
"""Maximum number of rows in one entry; a row has at most about 120 bytes."""
WORD_LIMIT = 256
_WORDS = tuple(name for name in Entry.__struct_fields__ if Entry.__annotations__[name] in ("str", "str | None"))
_ENCODER = msgspec.json.Encoder(order="deterministic")
_decode = json_decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes that are hashed. An entry over 65,535 bytes keeps agent, action and outcome, and the digest of
    the whole.

    The function never fails, since one entry that cannot be encoded would fail all acts of its batch.
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
    """Split entries so that each has at most `MAX_ROWS` rows; further rows follow in additional entries."""
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
    """Return the data classes under which the entry is indexed. A malformed name, which a guard may report, is
    left out.
    """
    reported = entry.data_classes if entry.result is None else [*entry.data_classes, entry.result.data_class]
    return set(filter(is_class, reported))


def subject_of(entry: Entry) -> str | None:
    """Return the id of the agent that an act of another party concerns, directly or by an object such as an incident;
    None without one.
    """
    for named in (entry.object, (entry.detail or {}).get("about")):
        if isinstance(named, str) and _AGENT.fullmatch(named):
            return None if named == entry.agent else named
    return None


def is_standing(entry: Entry) -> bool:
    """Return whether the task is the standing task of its agent, under which entries are not indexed."""
    return entry.task is not None and entry.agent == standing_agent(entry.task)


def decode_entry(body: bytes) -> Entry:
    """Return the entry that `body` encodes."""
    return _decode(body)


def reason(code: str, message: str = "") -> Reason:
    """Return a reason; the message is cut at `MESSAGE_LIMIT` characters."""
    return Reason(code, message[:MESSAGE_LIMIT])


USES = ("token.issue", "token.exchange", "tool.call", "tool.undecided", "decide", "decide.batch", "task.start")
"""Actions that an agent itself takes. Findings and acts of administrators name an agent too, but are not its
own acts.
"""


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

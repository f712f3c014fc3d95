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
"""Maximum number of characters of a reason's message in an entry; an entry must fit in 65,535 bytes (C2SP tlog-tiles).
"""

_CREDENTIAL = re.compile(r"(hvs\.|ostcs_|ostiary_pep_|eyJ)[A-Za-z0-9_.-]{8,}")
"""Pattern of the credentials that this server issues (Vault tokens, client secrets, API keys of static PEPs, JWTs); the
group is the prefix.
"""
_AGENT = re.compile(r"ag_[0-9a-z-]{1,64}")
CLAIMED = ("agent", "task", "resource", "tool", "object", "token", "request")
"""Members of an entry whose text a refused caller, who may be unauthenticated, can choose. `redact_credentials`
searches them for credentials; the entry of an unauthenticated caller has only their beginning (`RefusalSampler`).
"""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str = ""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a call as the enforcement point reports it: the status, the size of the result in bytes and in
    records, and its data class.
    """

    status: str = ""
    bytes: int | None = None
    records: int | None = None
    data_class: str = ""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The ledger entry of an act. A flow fills the members step by step; the encoding leaves out empty members.

    `at` is microseconds since the epoch. `outcome` is `ok` (done), `allow` or `deny` (a decision), `refused` (nothing
    was changed) or `error` (the server failed; nothing was changed). The arguments of a call appear as a digest, or as
    the redaction rules leave them.
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
    """data classes of the tool according to the catalogue; `result` names the data class that the call touched"""
    object: str | None = None
    token: str | None = None
    key: str | None = None
    network: str | None = None
    """network of the caller's address; the ledger never stores the address itself"""
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
    """names of the guarded rows that the act wrote; `append` adds the digest of each row at the end of the batch
    (`ground.database.guarded`)
    """
    facts: str | None = None
    """digest of `kept_facts`; None if no facts are stored beside the entry"""
    kept_facts: bytes | None = None
    """the decided request, with the facts that the decision used; stored in the table `fact` until its retention ends,
    and not part of the encoded entry
    """

    evidence: str | None = None
    """the DPoP proof of the reported call; stored in the table `evidence` for minutes, and not part of the encoded
    entry
    """

    @property
    def is_refused(self) -> bool:
        """Return whether the act changed nothing, because it was refused or the server failed."""
        return self.outcome in ("refused", "error")

    def redact_credentials(self) -> None:
        """Replace each credential of this server by its prefix, in the members that a refused caller can fill."""
        for name in CLAIMED:
            setattr(self, name, _redact(getattr(self, name)))
        self.reasons = [Reason(one.code, _redact(one.message)) for one in self.reasons]
        self.detail = _redact(self.detail)

    def attach_facts(self, facts: bytes) -> None:
        """Set `facts` to be stored beside the entry; the entry itself contains only their digest."""
        self.facts, self.kept_facts = b64u(sha256(facts).digest()), facts

    def remove_facts(self) -> None:
        """Remove the facts from the entry, so that neither the facts nor their digest are stored."""
        self.facts = self.kept_facts = None


MAX_ROWS = 100
"""Maximum number of rows in one entry; one row takes at most about 120 bytes."""
WORD_LIMIT = 256
_WORDS = tuple(name for name in Entry.__struct_fields__ if Entry.__annotations__[name] in ("str", "str | None"))
_ENCODER = msgspec.json.Encoder(order="deterministic")
_decode = json_decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """Return the JSON bytes of the entry, which are hashed. An entry over 65,535 bytes is cut: the first
    characters of its texts, up to 8 reasons and its rows remain, with the size and the digest of the full encoding.

    A long entry is cut and not refused, because one entry that cannot be encoded would fail all acts of its batch.
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
    """Split each entry that names more than `MAX_ROWS` changed database rows: additional entries (`state.rows`) name
    the further rows.
    """
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
    """Return the data classes under which the entry is indexed: those of the tool and of the result. Malformed names,
    which a guard may report, are left out.
    """
    reported = entry.data_classes if entry.result is None else [*entry.data_classes, entry.result.data_class]
    return set(filter(is_class, reported))


def subjects_of(entry: Entry) -> tuple[str, ...]:
    """Return the id of the agent that this entry of another party is about: the entry's object, or the member `about`
    of its detail. Return nothing if the entry is about no agent, or about the agent that acted.
    """
    for named in (entry.object, (entry.detail or {}).get("about")):
        if isinstance(named, str) and _AGENT.fullmatch(named):
            return () if named == entry.agent else (named,)
    return ()


def is_standing(entry: Entry) -> bool:
    """Return whether the entry's task is the standing task of the entry's agent. Standing tasks are not in the search
    index of tasks.
    """
    return entry.task is not None and entry.agent == standing_agent(entry.task)


def decode_entry(body: bytes) -> Entry:
    """Return the entry that `body` encodes."""
    return _decode(body)


def reason(code: str, message: str = "") -> Reason:
    """Return a reason whose message is cut after `MESSAGE_LIMIT` characters."""
    return Reason(code, message[:MESSAGE_LIMIT])


USES = (
    *("token.issue", "token.exchange", "token.code", "token.refresh", "token.device", "token.backchannel"),
    *("tool.call", "tool.undecided", "decide", "decide.batch", "task.start"),
    *("vault.login", "vault.read", "vault.use", "vault.inject"),
)
"""Actions that an agent itself takes: tokens, calls, decisions, tasks, and secrets. Entries of findings and of acts by
administrators also name an agent.
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

"""Checks of the content of each entry: form, time, action, outcome, identifiers.

A ledger whose tree is correct may still contain an entry with content that no server writes, because of a defect, or
because another party has the signing key. Times are compared with earlier times, so entries are checked in the order of
the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from ostiary.protocol.decoding import json_decoder

EARLIEST = 1_704_067_200_000_000
"""2024-01-01, in microseconds since the epoch; no server wrote an entry earlier."""
MAX_SKEW = 300_000_000
"""Maximum time in microseconds by which the clock of the server may be ahead of the auditor's clock."""
FAMILIES = {
    "account": "accounts that people connected at other providers: connection, refresh, access tokens, revocation",
    "acme": "accounts, orders and challenges of ACME clients",
    "agent": "life cycle, scopes, daily budget and restrictions of an agent",
    "anchor": "a trust anchor of client certificates",
    "api": "a read or a change through the server's own API",
    "approval": "an approval request, its answer, expiry and use",
    "authority": "the certificate authority: creation, rotation, revocation, import",
    "authorization": "authorization requests: pushed, consented, granted, denied",
    "backend": "existing stores of secrets: configuration, failed reads, synchronisation",
    "bearer": "a bearer exemption of an agent",
    "budget": "slices of budgets at guards",
    "bundle": "the trust bundle of the trust domain",
    "cert": "a certificate: issue, renewal, revocation, and a warning before its end",
    "client": "OAuth clients: registration, discovery, invitation, approval, stop, expiry, refused TLS handshakes",
    "clock": "steps of the wall clock, and their confirmation",
    "consent": "a consent of a person to a client",
    "database": "a damaged database, and a full disk",
    "decide": "a batch of AuthZEN evaluations",
    "device": "device authorization requests",
    "disk": "a full disk",
    "elevation": "eligible scopes, and elevations",
    "entry": "an entry",
    "federation": "a federated trust domain, its bundle, and the agents that trust it",
    "feed": "batches of records from guards, and test messages to them",
    "history": "a lost part of the ledger's history, and the recovery",
    "incident": "alerts, and incidents with their steps",
    "issuer": "an issuer of security events",
    "join": "a join token, with which a pending agent registers its first key",
    "key": "a key of an agent or a guard",
    "keys": "the signing keys of the server",
    "kill": "the kill switch",
    "lease": "leases of accounts at databases and AWS: issue, renewal, removal, rotation",
    "ledger": "the ledger",
    "limits": "limits of callers",
    "logout": "back-channel logout of clients",
    "memory": "the memory of a task",
    "network": "the networks of a caller",
    "owner": "the removal of an owner of agents",
    "pep": "an AuthZEN gateway (PEP) and its API keys",
    "person": "a person, the person's logins, keys and sessions",
    "policy": "policy sets, requests of guards for verdicts, and what-if",
    "provider": "login providers, and the accounts linked to them",
    "push": "messages to the browsers of people",
    "recovery": "the recovery of a database",
    "refusals": "a summary of refused requests",
    "report": "missing or refused records of a guard",
    "resource": "a resource, its catalogue, data classes, key and mode",
    "respond": "the limits of automatic responses",
    "resume": "a resumed agent",
    "role": "roles of people and teams",
    "rotation": "rotation of stored secrets: schedule, calls of services, failures",
    "search": "a search of AuthZEN: subjects, resources or actions",
    "secret": "client secrets, access keys, destinations of secrets, and secrets found in arguments of calls",
    "server": "the first start of a server, and checks by `doctor`",
    "session": "the close of a browser session that has ended: its grants end, and its clients are notified",
    "signal": "received security events",
    "spool": "the spool of a guard",
    "state": "comparison of the database with the ledger",
    "storage": "the storage of the server",
    "stream": "streams of security events to receivers",
    "svid": "a JWT-SVID of an agent",
    "task": "a task: start, renewal, freeze, end, its holders, and the results that guards observed",
    "team": "a team and its members",
    "telemetry": "telemetry of agents",
    "test": "a test event",
    "threats": "threat lists",
    "token": "tokens: issue, refresh, codes, exchange, introspection, revocation, backchannel requests",
    "tool": "a decided call, its result, and a call that could not be decided",
    "userinfo": "claims about a person, for a client",
    "vault": "secrets and keys at the Vault API: login, reading, writing, use, and the seal",
    "watch": "findings, verdicts of people about findings, and restarts of the detectors",
    "webhook": "webhooks and their deliveries",
    "workload": "the workloads of an agent, and refused calls of the Workload API",
}
"""The first word of each action that a server writes, such as `token` in `token.issue`, with the subject of its actions
for the page of events.
"""
_ACTION = re.compile(r"[a-z]+(?:[._][a-z0-9]+)*")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_ROW = re.compile(r"[a-z_]+ \S.*", re.DOTALL)
_ROW_DIGEST = re.compile(r"(?:[A-Za-z0-9_-]{16}(?:\.[0-9]{0,19})?)?")
_IDS = {
    "person": re.compile(r"pe_[0-9a-f]{32}"),
    "reporter": re.compile(r"(?:ag|pp|rs)_[0-9a-f]{32}"),
    "key": _THUMBPRINT,
    "facts": _THUMBPRINT,
}
"""Members that only the server fills, from verified facts."""


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    message: str = ""


class ResultSchema(msgspec.Struct, forbid_unknown_fields=True):
    """The members of `result` in an entry."""

    status: str = ""
    bytes: int | None = None
    records: int | None = None
    data_class: str = ""


class Schema(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The members of an entry (docs/reference/http.md, `GET /api/v1/audit`)."""

    at: int
    action: str
    outcome: Literal["ok", "allow", "deny", "refused", "error"] = "ok"
    agent: str | None = None
    owner: str | None = None
    person: str | None = None
    actors: list[str] = []
    task: str | None = None
    resource: str | None = None
    tool: str | None = None
    data_classes: list[str] = []
    object: str | None = None
    token: str | None = None
    key: str | None = None
    network: str | None = None
    digest: str | None = None
    arguments: dict[str, Any] | None = None
    reasons: list[_Reason] = []
    policy: str | None = None
    policies: list[str] = []
    result: ResultSchema | None = None
    request: str | None = None
    reporter: str | None = None
    detail: dict[str, Any] | None = None
    rows: dict[str, str] = {}
    facts: str | None = None


_decode = json_decoder(Schema)


class EntryCheck:
    """The check of the entries of one log, in the order of the log. `now` is the auditor's clock, in microseconds since
    the epoch.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._latest = 0
        self._latest_index = 0

    def check(self, index: int, body: bytes) -> str:
        """Return the errors of the entry number `index` in words; an empty text if there are none. `body`: the bytes of
        the entry.
        """
        try:
            entry = _decode(body)
        except msgspec.DecodeError as error:
            return f"the text is not a ledger entry: {error}"
        return "; ".join((*self._wrong_times(index, entry.at), *_wrong_members(entry)))

    def _wrong_times(self, index: int, at: int) -> Iterator[str]:
        if at < EARLIEST:
            yield f"the time {at} is before 2024"
        elif at > self._now + MAX_SKEW:
            yield f"the time {at} is in the future"
        if at < self._latest:
            yield f"the time is {self._latest - at} microseconds before the time of entry {self._latest_index}"
        else:
            self._latest, self._latest_index = at, index


def _wrong_members(entry: Schema) -> Iterator[str]:
    if not _ACTION.fullmatch(entry.action) or re.split("[._]", entry.action)[0] not in FAMILIES:
        yield f"the action {entry.action[:64]!a} is unknown"
    for name, form in _IDS.items():
        value = getattr(entry, name)
        if value is not None and not form.fullmatch(value):
            yield f"the {name} {value[:64]!a} is malformed"
    for name, digest in entry.rows.items():
        if not _ROW.fullmatch(name) or not _ROW_DIGEST.fullmatch(digest):
            yield f"the row {name[:64]!a} is malformed"

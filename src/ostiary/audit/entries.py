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
FAMILIES = frozenset(
    {
        "account",
        "acme",
        "agent",
        "anchor",
        "api",
        "approval",
        "authority",
        "authorization",
        "backend",
        "bearer",
        "budget",
        "cert",
        "bundle",
        "client",
        "clock",
        "consent",
        "database",
        "decide",
        "device",
        "disk",
        "elevation",
        "entry",
        "federation",
        "feed",
        "history",
        "incident",
        "issuer",
        "join",
        "key",
        "keys",
        "kill",
        "lease",
        "ledger",
        "limits",
        "logout",
        "memory",
        "network",
        "owner",
        "pep",
        "person",
        "policy",
        "provider",
        "push",
        "recovery",
        "refusals",
        "report",
        "resource",
        "respond",
        "resume",
        "role",
        "rotation",
        "search",
        "secret",
        "server",
        "session",
        "signal",
        "spool",
        "state",
        "storage",
        "stream",
        "svid",
        "task",
        "team",
        "telemetry",
        "test",
        "threats",
        "token",
        "tool",
        "userinfo",
        "vault",
        "watch",
        "webhook",
        "workload",
    },
)
"""First parts of the names of actions that a server writes, such as `token` in `token.issue`."""
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


class _Result(msgspec.Struct, forbid_unknown_fields=True):
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
    result: _Result | None = None
    request: str | None = None
    reporter: str | None = None
    detail: dict[str, Any] | None = None
    rows: dict[str, str] = {}
    facts: str | None = None


_decode = json_decoder(Schema)


class EntryCheck:
    """Check of entries in the order of the log. `now` is the auditor's clock, in microseconds since the epoch."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._latest = 0
        self._latest_index = 0

    def check(self, index: int, body: bytes) -> str:
        """Return the errors of the entry number `index` in words; an empty text if there are none. `body`: its
        bytes.
        """
        try:
            entry = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
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

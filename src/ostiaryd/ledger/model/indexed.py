"""The values by which searches find an entry, computed from the entry, and their comparison with the stored values."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.protocol.merkle import leaf_hash
from ostiaryd.ledger.model.entry import WORD_LIMIT, Entry, decode_entry, is_standing

_WORDS = ("agent", "task", "person", "resource")


class Indexed(NamedTuple):
    """A stored entry with the values by which searches find it."""

    number: int
    body: bytes
    leaf: bytes
    at: int
    action: str
    outcome: str
    agent: str | None
    task: str | None
    person: str | None
    resource: str | None


def indexed_words(entry: Entry) -> list[str | None]:
    """Return the indexed values (agent, task, person, resource) of an entry, without NUL: PostgreSQL text cannot hold
    NUL, so NUL would fail the batch.

    An act that starts or ends a task runs under the agent's standing task. The entry of such an act is indexed by the
    task that was started or ended.
    """
    task = "" if is_standing(entry) else entry.task
    if not task and entry.object is not None and entry.object.startswith("tk_"):
        task = entry.object
    words = (entry.agent, task, entry.person, entry.resource)
    return [word.replace("\0", "\ufffd") if word and "\0" in word else word for word in words]


def read_entry(body: bytes) -> Entry | None:
    """Return the entry that `body` encodes; None if the bytes encode no entry."""
    try:
        return decode_entry(body)
    except msgspec.DecodeError:
        return None


def is_cut(entry: Entry) -> bool:
    """Return whether a stored entry was too long, so that `encode_entry` cut it: its texts are shortened, its detail is
    left out, and its rows remain.
    """
    return "cut" in (entry.detail or {})


def differing_columns(row: Indexed, entry: Entry | None, *, latest: int) -> list[str]:
    """Return the names of the columns that differ from the bytes of the entry. `latest` is the highest time of the
    entries before.

    The words of an entry that was cut are compared as far as they remain.
    """
    if entry is None:
        return ["body"]
    words = [row.agent, row.task, row.person, row.resource]
    if is_cut(entry):
        words = [word and word[:WORD_LIMIT] for word in words]
    expected: dict[str, tuple[object, object]] = {
        "leaf": (row.leaf, leaf_hash(row.body)),
        "at": (row.at, max(latest, entry.at)),
        "action": (row.action, entry.action),
        "outcome": (row.outcome, entry.outcome),
    }
    expected |= {name: pair for name, *pair in zip(_WORDS, words, indexed_words(entry), strict=True)}  # type: ignore[misc]
    return [name for name, (stored, of_entry) in expected.items() if stored != of_entry]

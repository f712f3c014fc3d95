"""The report of an audit: each damage by kind and place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ostiary.protocol.checkpoint import Checkpoint


class Kind(StrEnum):
    """The kinds of damage that an audit of an export reports, such as a missing file."""

    MISSING = "missing"  # a file that the checkpoint needs is missing
    MALFORMED = "malformed"  # a file violates its format
    OVERSIZE = "oversize"  # a file is larger than its format allows; it was not read
    SYMLINK = "symlink"  # a link or a special file in place of a plain file; it was not followed
    BEYOND = "beyond"  # a file that no tree of this size has: the log was cut, or the file was added
    SIGNATURE = "signature"  # a checkpoint that the log did not sign
    ROOT = "root"  # the entries and tiles do not lead to the signed root
    TILE = "tile"  # a tile with other hashes than the tree
    ALTERED = "altered"  # an entry differs from the logged entry
    DROPPED = "dropped"  # a logged entry is missing
    INSERTED = "inserted"  # an entry that was never logged
    ENTRY = "entry"  # a logged entry with content that no server writes: form, time, action, identifiers
    REORDERED = "reordered"  # a logged entry in another place
    ROLLBACK = "rollback"  # the log is shorter than an earlier checkpoint
    FORK = "fork"  # the log has another history than an earlier checkpoint


@dataclass(frozen=True, slots=True)
class Finding:
    """A defect: of entries (`count` from `index` on), or of a file (`path` under the folder)."""

    kind: Kind
    message: str
    index: int | None = None
    path: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an audit. `checkpoint`: the checkpoint in the export, which is proved only if `ok` is true; None
    if it cannot be read.
    """

    checkpoint: Checkpoint | None
    findings: tuple[Finding, ...]
    key_given: bool
    earlier: Checkpoint | None
    complete: bool
    """False when the audit stopped at its limit of findings"""
    wrong_count: int = 0
    """number of entries with content that no server writes; it also counts entries beyond the limit of findings"""

    @property
    def ok(self) -> bool:
        """Return whether the audit is complete and has no finding."""
        return self.complete and not self.findings and self.checkpoint is not None

    @property
    def wrong_entries(self) -> tuple[int, int] | None:
        """Return (index of the first entry with content that no server writes, number of such entries); None if there
        is no such entry.
        """
        wrong = [finding for finding in self.findings if finding.kind is Kind.ENTRY and finding.index is not None]
        return (wrong[0].index or 0, self.wrong_count) if wrong else None

    @property
    def trust(self) -> str:
        """Return, in words, which key the verdict of the audit trusts: the key of the caller, or the
        key in the export.
        """
        if self.key_given:
            return "the verdict trusts the key of `--key`"
        return (
            "the verdict trusts the key in the export, which the author of a forged export can forge too: "
            "give the key that you received apart from it: --key KEY"
        )

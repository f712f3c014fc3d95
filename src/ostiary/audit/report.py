"""What an audit found: each damage by kind and place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ostiary.protocol.checkpoint import Checkpoint


class Kind(StrEnum):
    MISSING = "missing"  # a file that the checkpoint calls for is not there
    MALFORMED = "malformed"  # a file is not what its format says
    OVERSIZE = "oversize"  # a file is larger than its format allows; it was not read
    SYMLINK = "symlink"  # a link or a special file stands where a plain file belongs; it was not followed
    BEYOND = "beyond"  # a file that no tree of this size has: the log was cut back, or the file was slipped in
    SIGNATURE = "signature"  # a checkpoint that the log did not sign
    ROOT = "root"  # the entries and tiles do not lead to the root that was signed
    TILE = "tile"  # a tile whose hashes are not those of the tree
    ALTERED = "altered"  # an entry is not the one that was logged
    DROPPED = "dropped"  # an entry that was logged is gone
    INSERTED = "inserted"  # an entry that was never logged
    ENTRY = "entry"  # an entry that is in the log and says what no server writes: form, time, action, identifiers
    REORDERED = "reordered"  # an entry that was logged stands in another place
    ROLLBACK = "rollback"  # the log is shorter than it once was
    FORK = "fork"  # the log's past is not what it once was


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage: of entries (`count` from `index` on), or of a file (`path` under the folder)."""

    kind: Kind
    message: str
    index: int | None = None
    path: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """`checkpoint` is what the export claims, None if it could not even be read; it is proven only if `ok`."""

    checkpoint: Checkpoint | None
    findings: tuple[Finding, ...]
    key_given: bool
    seen: Checkpoint | None
    complete: bool
    """False when the audit stopped at its limit of findings"""
    wrong_count: int = 0
    """entries that say what no server writes; also those beyond the limit of findings"""

    @property
    def ok(self) -> bool:
        return self.complete and not self.findings and self.checkpoint is not None

    @property
    def wrong_entries(self) -> tuple[int, int] | None:
        """(the first, how many) of the entries that say what no server writes; None if there are none."""
        found = [finding for finding in self.findings if finding.kind is Kind.ENTRY and finding.index is not None]
        return (found[0].index or 0, self.wrong_count) if found else None

    @property
    def trust(self) -> str:
        """What a verdict of `ok` rests on."""
        if self.key_given:
            return "trusts the key that was given"
        return "trusts the key that came with the export: whoever made the export could have made the key"

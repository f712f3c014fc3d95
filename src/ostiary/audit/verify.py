"""The audit of an export: the tree is computed from the entries, and each damage is reported.

 1. Read the checkpoint, and verify its signature.
 2. Compute the tree from the entries, compare it with the tiles, and settle it by the signed root (`settle`).
 3. Align the entries with the settled hashes, to report altered, dropped, inserted and moved entries (`align`).
 4. Compare the root of the tree at the size of an earlier checkpoint with the root in that checkpoint.
 5. Report files that no tree of this size has. (Partial tiles of smaller sizes may stay; they are not read.)
 6. If nothing was found, read each entry, and report wrong ids, times and forms (`entries`).

If there is no finding, the root that was computed from the entries alone equals the signed root, and all tiles agree
with it. If entries and all tiles were altered consistently, the audit can only report that the root differs from the
signed root. Memory is bounded by two tiles of each row, one bundle, and the hashes that `align` stores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ostiary import ambient
from ostiary.audit.evidence import MAX_FINDINGS, Enough, Evidence, parse_keys
from ostiary.audit.folder import LINK, walk
from ostiary.audit.report import Finding, Kind, Report
from ostiary.audit.settle import Settlement
from ostiary.protocol.checkpoint import Checkpoint
from ostiary.protocol.errors import Malformed
from ostiary.protocol.tiles import Tile, parse_path, tile_width

Progress = Callable[[int, int], None]
"""A callback that is called with (number of audited entries, number of all entries)."""


def verify_folder(
    folder: Path,
    *,
    key: str | None = None,
    earlier_note: bytes | None = None,
    now: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Audit the export under `folder`.

    `key`: the trusted vkey of the ledger, or several, one in each line; without it, the audit trusts the key in the
    export, and the report says so. `earlier_note`: the signed note of an earlier checkpoint. `now`: the auditor's
    clock, in microseconds since the epoch; without it, the clock of this machine. Raises Malformed for a malformed
    `key`. Each error in the export or in `earlier_note` becomes a finding in the returned report.
    """
    evidence = Evidence(folder, now=ambient.now() if now is None else now)
    keys = evidence.keys() if key is None else parse_keys(key)
    checkpoint = evidence.checkpoint(keys)
    earlier = None if earlier_note is None else evidence.open(earlier_note, keys, path="the earlier checkpoint")
    complete, damage = True, []
    if checkpoint is not None:
        tree = Settlement(evidence, checkpoint.size, remembered=earlier.size if earlier else 0)
        try:
            tree.settle(checkpoint.root, progress)
            _check_earlier(evidence, tree, earlier)
            _check_surplus(evidence, checkpoint.size)
        except Enough:
            complete = False
        # A dropped or inserted entry changes the length of its bundle: one finding is enough.
        damage = tree.alignment.findings() or evidence.miscounted
    # The content of an entry counts only if the entry was logged: anything else is reported as damage.
    wrong = [] if damage or evidence.findings else evidence.wrong_entries
    findings = [*damage, *evidence.findings, *wrong]
    return Report(
        checkpoint=checkpoint,
        findings=tuple(findings[:MAX_FINDINGS]),
        key_given=key is not None,
        earlier=earlier,
        complete=complete and len(findings) <= MAX_FINDINGS,
        wrong_count=evidence.wrong_count if wrong else 0,
    )


def _check_earlier(evidence: Evidence, tree: Settlement, earlier: Checkpoint | None) -> None:
    if earlier is None:
        return
    if earlier.size > tree.size:
        message = f"the log has {tree.size} entries, and the earlier checkpoint has {earlier.size}"
        evidence.report(Finding(Kind.ROLLBACK, message, path="checkpoint"))
    elif tree.remembered_root() not in (None, earlier.root):
        message = f"the first {earlier.size} entries differ from the earlier checkpoint"
        evidence.report(Finding(Kind.FORK, message, path="checkpoint"))


def _check_surplus(evidence: Evidence, size: int) -> None:
    for path, plain in walk(evidence.folder):
        if not plain:
            evidence.report(Finding(Kind.SYMLINK, LINK, path=path))
        elif path not in ("key", "checkpoint") and not _belongs(path, size):
            evidence.report(Finding(Kind.BEYOND, f"the export of a log of {size} entries has no such file", path=path))


def _belongs(path: str, size: int) -> bool:
    """Return whether the export of a ledger of `size` entries has a file with this path, or had it when the ledger was
    smaller.
    """
    try:
        file = parse_path(path)
    except Malformed:
        return False
    return file.width <= tile_width(file.level if isinstance(file, Tile) else 0, file.index, size)

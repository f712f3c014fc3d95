"""The audit of an export: everything is computed anew from the entries, and each damage is named.

 1. The checkpoint is read and its signature verified.
 2. The tree is computed from the entries, compared with the tiles, and settled by the signed root (`settle`).
 3. The entries are laid beside the settled hashes: which were altered, dropped, inserted, moved (`align`)?
 4. The tree at the size of a checkpoint that was seen earlier must have its root.
 5. Files that no tree of this size has are named. (Partial tiles of smaller sizes may stay; they are not read.)

Without a finding, the signed root was computed from the entries alone and all tiles agree with it. A tree that was
altered throughout, up to the signed root, agrees with itself and not with the root: that is all that can be said then.
Memory is bounded by two tiles of each row, one bundle, and what `align` keeps.
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
"""Hears (entries done, entries in all)."""


def verify_folder(
    folder: Path,
    *,
    key: str | None = None,
    seen: bytes | None = None,
    now: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Audit the export under `folder`.

    `key`: the log's vkey (or several, one a line) that is trusted; without it, the key in the export is, and the report
    says so. `seen`: the signed note of a checkpoint seen earlier. `now`: the auditor's clock, in microseconds since the
    epoch; the one of this machine if it is not given. Raises Malformed for a `key` that is none; whatever
    is wrong with the export, or with `seen`, is a finding.
    """
    evidence = Evidence(folder, now=ambient.now() if now is None else now)
    keys = evidence.keys() if key is None else parse_keys(key)
    checkpoint = evidence.checkpoint(keys)
    earlier = None if seen is None else evidence.open(seen, keys, path="the checkpoint seen earlier")
    complete, damage = True, []
    if checkpoint is not None:
        tree = Settlement(evidence, checkpoint.size, remembered=earlier.size if earlier else 0)
        try:
            tree.settle(checkpoint.root, progress)
            _check_earlier(evidence, tree, earlier)
            _check_surplus(evidence, checkpoint.size)
        except Enough:
            complete = False
        # A bundle of the wrong length is what a dropped or inserted entry looks like from outside: said once is enough.
        damage = tree.alignment.findings() or evidence.miscounted
    # What an entry says counts if the entry is the one that was logged: all else is named as damage.
    wrong = [] if damage or evidence.findings else evidence.wrong_entries
    findings = [*damage, *evidence.findings, *wrong]
    return Report(
        checkpoint=checkpoint,
        findings=tuple(findings[:MAX_FINDINGS]),
        key_given=key is not None,
        seen=earlier,
        complete=complete and len(findings) <= MAX_FINDINGS,
        wrong_count=evidence.wrong_count if wrong else 0,
    )


def _check_earlier(evidence: Evidence, tree: Settlement, earlier: Checkpoint | None) -> None:
    if earlier is None:
        return
    if earlier.size > tree.size:
        message = f"the log has {tree.size} entries, and once had {earlier.size}"
        evidence.report(Finding(Kind.ROLLBACK, message, path="checkpoint"))
    elif tree.remembered_root() not in (None, earlier.root):
        message = f"the first {earlier.size} entries are not those that the log once had"
        evidence.report(Finding(Kind.FORK, message, path="checkpoint"))


def _check_surplus(evidence: Evidence, size: int) -> None:
    for path, plain in walk(evidence.folder):
        if not plain:
            evidence.report(Finding(Kind.SYMLINK, LINK, path=path))
        elif path not in ("key", "checkpoint") and not _belongs(path, size):
            evidence.report(Finding(Kind.BEYOND, f"the export of a log of {size} entries has no such file", path=path))


def _belongs(path: str, size: int) -> bool:
    """Return whether a log of `size` entries has, or had when it was smaller, this file."""
    try:
        file = parse_path(path)
    except Malformed:
        return False
    return file.width <= tile_width(file.level if isinstance(file, Tile) else 0, file.index, size)

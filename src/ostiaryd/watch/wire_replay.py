"""`ostiary watch replay`: runs the detectors over exported entries, without a server and without changes.

Without a server some facts are unknown: the peers and the models of agents, and the catalogues of tools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ostiary.protocol.checkpoint import parse_checkpoint
from ostiary.protocol.errors import Invalid, Malformed, Unavailable
from ostiary.protocol.note import MAX_NOTE_BYTES, parse_note
from ostiary.protocol.tiles import MAX_ENTRY_BYTES, bundles_of, parse_bundle
from ostiaryd.watch.model import INSTALL, FindingJudgement, Reading, ToolSeen, can_detect

ROUND = 2048
MAX_BUNDLE = 256 * (MAX_ENTRY_BYTES + 2)


def replay(file: Path, /, *, narrow_budget: int = 5, session: Annotated[Any, Parameter(parse=False)] = None) -> None:
    """Run the detectors over recorded entries, and print their findings.

    Args:
        file: Folder of `ostiary audit export`, or file with the JSON of an entry in each line.
        narrow_budget: Tasks in 10,000 in which statistical detectors may restrict an agent by mistake.
    """
    if not can_detect():
        raise Unavailable("numpy is not installed; the detectors need numpy", hint=INSTALL)
    from ostiaryd.watch.model.detector import detectors
    from ostiaryd.watch.model.watcher import Watcher

    reading = Reading(tool_of=lambda uri, tool: ToolSeen(), model_of=lambda agent: "")
    watcher = Watcher(detectors(), budget=narrow_budget / 10_000, peers_of=lambda agent: "")
    findings, events = [], 0
    entries = enumerate(_entries(file))
    while part := list(islice(entries, ROUND)):
        read = [one for number, body in part if (one := reading.read(number, body)) is not None]
        events += sum(not isinstance(one, FindingJudgement) for one in read)
        findings += watcher.take(read)
    if reading.failed:
        raise Malformed(f"{file}: {reading.failed}")
    value = {
        "events": events,
        "agents": len(watcher.memory),
        "findings": [
            {
                "entry": one.number,
                "at": one.at // 1_000_000,
                "detector": one.detector,
                "agent": one.agent or None,
                "points": one.points,
                "may_narrow": one.may_narrow,
                "says": one.says,
            }
            for one in findings
        ],
        "by_detector": dict(Counter(one.detector for one in findings)),
    }
    session.show(value, _print)


def _entries(path: Path) -> Iterator[bytes]:
    """Yield the entries of an exported ledger, which is a folder of ledger files or a file of lines. Raises Invalid if
    the path cannot be read, Malformed if an entry is malformed.
    """
    try:
        yield from _entries_of_folder(path) if path.is_dir() else _entries_of_file(path)
    except OSError as error:
        hint = "name a folder of ledger files: ostiary audit export DIR"
        raise Invalid(f"cannot read {path}: {error.strerror}", hint=hint, code="usage") from None


def _entries_of_folder(folder: Path) -> Iterator[bytes]:
    note = (folder / "checkpoint").read_bytes()[: MAX_NOTE_BYTES + 1]
    for bundle in bundles_of(parse_checkpoint(parse_note(note).text).size):
        with (folder / bundle.path).open("rb") as data:
            yield from parse_bundle(data.read(MAX_BUNDLE), bundle.width)


def _entries_of_file(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        while line := lines.readline(MAX_ENTRY_BYTES + 2):
            if len(line) > MAX_ENTRY_BYTES + 1:
                raise Malformed(f"{file}: a line is longer than an entry may be")
            if line.strip():
                yield line


def _print(value: dict[str, Any]) -> None:
    print(f"{value['events']} events of {value['agents']} agents")
    for one in value["findings"]:
        text = f"{one['detector']} ({one['points']}): {one['says']} ({one['agent'] or 'no agent'})"
        print(f"entry {one['entry']}: {_plain(text)}")
    print(", ".join(f"{count} {name}" for name, count in value["by_detector"].items()) or "no findings")


def _plain(text: str) -> str:
    """Return the text with control characters and invisible characters escaped: third parties choose
    names in entries.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

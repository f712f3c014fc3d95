"""`python -m benchmarks.contain.recordings DIR`: unpack the recorded runs of the source distribution in that folder.

Of each model those without an attack and those under attacks that are texts to obey:
`DIR/runs/<model>/<suite>/<task>/<attack>/*.json`. Of most models there is only `important_instructions`.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ATTACKS = ("none", "important_instructions", "direct", "ignore_previous", "injecagent", "tool_knowledge")


def wanted(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members to unpack, without the folder that the archive has around all."""
    for member in archive:
        _, *inner = PurePosixPath(member.name).parts
        if member.isfile() and len(inner) == 6 and inner[0] == "runs" and inner[4] in ATTACKS:
            yield member.replace(name="/".join(inner))


def main(folder: Path) -> None:
    [source] = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        for member in wanted(archive):
            archive.extract(member, folder, filter="data")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

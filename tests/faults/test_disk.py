"""A full disk, against a real server on a small file system of its own, in a mount namespace."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.request import urlopen

import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.server import COMMAND, Server, running
from ostiary.agent import Agent
from ostiary.protocol.errors import Refused
from tests.faults.tally import Tally

MOUNT = 'echo $$ > "$0.pid" && mount -t tmpfs -o size=24m,mode=0700 tmpfs "$0" && exec "$@"'
NAMESPACES = (("unshare", "-Urm"), ("unshare", "-m"))


@cache
def namespace() -> tuple[str, ...]:
    """The command that gives a process mounts of its own, here: with user namespaces, or as root."""
    for command in NAMESPACES:
        if shutil.which(command[0]) and subprocess.run([*command, "true"], check=False).returncode == 0:
            return command
    return ()


class Disk:
    """A server whose data folder is a file system of 24 MiB."""

    def __init__(self, live_server: ServerFixture, folder: Path) -> None:
        self.live_server, self.folder = live_server, folder

    def fill(self) -> None:
        """Leave nothing."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def clear(self) -> None:
        (self.folder / "filler").unlink()

    def entries(self) -> int:
        """How many entries the ledger has."""
        with urlopen(f"{self.live_server.server.url}/ledger/v1/checkpoint") as answer:
            return int(answer.read().splitlines()[1])

    def status(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """The status of an answer to the administrator, and its code where it is a refusal."""
        admin, url = self.live_server.admin, self.live_server.server.url
        answer = admin.request(method, f"{url}/api/v1{path}", resource=f"{admin.issuer}/api/v1", json=body)
        return answer.status_code, str(answer.json().get("error", "")) if answer.status_code >= 400 else ""


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    if not namespace():
        pytest.skip("no mount namespace for this user: tests/ground/test_reserve.py has the same without a disk")
    command: tuple[str | Path, ...] = (*namespace(), "sh", "-c", MOUNT, folder, COMMAND)
    with running(folder, command=command) as server:
        seen = Path(f"/proc/{Path(f'{folder}.pid').read_text().strip()}/root{folder}")
        scratch = folder.with_suffix(".copy")
        scratch.mkdir()
        with ServerFixture(Server(server.url, seen), scratch) as live_server:
            yield Disk(live_server, seen)


def test_on_a_full_disk_stops_and_reading_work_and_all_else_is_503(tmp_path: Path, rounds: int, tally: Tally) -> None:
    broken = tried = 0
    for number in range(rounds):
        with small_disk(tmp_path / f"disk{number}") as disk:
            live_server = disk.live_server
            agents = [live_server.agent("files:read") for _ in range(5)]
            names = [name for name, _ in agents]
            disk.fill()
            answers = [disk.status("POST", "/persons", {"name": f"full-{made}"}) for made in range(60)]
            assert answers[-1] == (503, "disk_full")
            disk.fill()  # what the reserve has freed is taken by another program
            before = disk.entries()
            answers += [disk.status("POST", "/persons", {"name": f"fuller-{made}"}) for made in range(30)]
            with Agent.from_credential(agents[0][1], url=live_server.server.url) as agent, pytest.raises(Refused):
                agent.token(resource="https://x.example")
            assert disk.entries() == before, "while the disk is full, refused acts leave nothing"
            stops = [
                disk.status("POST", "/revoke", {"kind": "agent", "id": names[0]}),
                disk.status("POST", f"/agents/{names[1]}/suspend", {"why": "full"}),
                disk.status("POST", f"/agents/{names[2]}/quarantine", {"why": "full"}),
                disk.status("POST", "/kill", {"what": "agent", "name": names[3], "why": "full"}),
                disk.status("GET", "/incidents"),
                disk.status("GET", "/agents"),
            ]
            live_server.server.ostiary("revoke", "agent", names[4])  # with a token that it asks for now
            tried += len(answers) + len(stops)
            broken += sum(answer not in ((201, ""), (503, "disk_full")) for answer in answers)
            broken += sum(status >= 300 for status, _ in stops)
            assert not broken, (set(answers), stops)
            disk.clear()
            eventually(lambda: disk.status("POST", "/persons", {"name": "room"})[0] == 201)
            live_server.server.ostiary("audit", "verify")
    tally("on a full disk stops and reading work, and all else is 503", broken=broken, of=tried)

"""A full disk of a real server, or of its PostgreSQL: a small file system of its own, in a mount namespace."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.postgres_cluster import fill_disk, has_mounts
from harness.postgres_cluster import small_disk as postgresql_on_small_disk
from harness.prepared import PreparedServer
from harness.server import COMMAND, Server, running
from ostiary.agent import Agent
from ostiary.protocol.errors import Refused, Unavailable
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
    """A server whose database is on a small file system: `fill` leaves nothing of it, and `clear` ends that."""

    def __init__(self, live_server: ServerFixture, fill: Callable[[], None], clear: Callable[[], None]) -> None:
        self.live_server, self.fill, self.clear = live_server, fill, clear

    def entries(self) -> int:
        """How many entries the ledger has."""
        with urlopen(f"{self.live_server.server.url}/ledger/v1/checkpoint") as answer:
            return int(answer.read().splitlines()[1])

    def alarms(self) -> int:
        """The number of entries that say that the disk is full."""
        return len(self.live_server.api("GET", "/audit", action="database.full")["entries"])

    def status(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """The status of an answer to the administrator, and its code where it is a refusal."""
        admin, url = self.live_server.admin, self.live_server.server.url
        answer = admin.request(method, f"{url}/api/v1{path}", resource=f"{admin.issuer}/api/v1", json=body)
        return answer.status_code, str(answer.json().get("error", "")) if answer.status_code >= 400 else ""

    def status_of_stop(self, name: str) -> int:
        """The status of the answer to a suspension; 503 if there is no token for it."""
        try:
            return self.status("POST", f"/agents/{name}/suspend", {"why": "full"})[0]
        except Unavailable:
            return 503


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    if not namespace():
        pytest.skip("no mount namespace for this user: tests/ground/test_reserve.py has the same without a disk")
    command: tuple[str | Path, ...] = (*namespace(), "sh", "-c", MOUNT, folder, COMMAND)
    with running(folder, command=command) as server:
        seen = Path(f"/proc/{Path(f'{folder}.pid').read_text().strip()}/root{folder}")
        scratch = folder.with_suffix(".copy")
        scratch.mkdir()
        filler = seen / "filler"
        with ServerFixture(Server(server.url, seen), scratch) as live_server:
            yield Disk(live_server, partial(fill_disk, filler), filler.unlink)


def _need_mounts() -> None:
    """Only root may mount the small disk. `tests/ground/test_reserve.py` tests the reserve without one."""
    if not has_mounts():
        pytest.skip("PostgreSQL on a small disk needs root and mounts")


@contextmanager
def small_disk_of_postgresql(folder: Path) -> Iterator[Disk]:
    """The data folder of the server has another disk."""
    _need_mounts()
    scratch = folder.with_suffix(".copy")
    scratch.mkdir()
    with (
        postgresql_on_small_disk(mib=320) as postgresql,
        PreparedServer(folder, "--database", postgresql.url) as server,
        ServerFixture(server, scratch) as live_server,
    ):
        yield Disk(live_server, postgresql.fill, postgresql.clear)


@pytest.mark.parametrize("place", [small_disk, small_disk_of_postgresql])
def test_a_full_disk_allows_stops_and_reads_and_refuses_other_requests_with_503(
    tmp_path: Path, rounds: int, tally: Tally, place: Callable[[Path], AbstractContextManager[Disk]]
) -> None:
    broken = tried = 0
    for number in range(rounds):
        with place(tmp_path / f"disk{number}") as disk:
            live_server = disk.live_server
            agents = [live_server.agent("files:read") for _ in range(5)]
            names = [name for name, _ in agents]
            disk.fill()
            answers = [disk.status("POST", "/persons", {"name": f"full-{made}"}) for made in range(60)]
            assert answers[-1] == (503, "disk_full")
            disk.fill()  # what the reserve has freed is taken by another program
            eventually(lambda: disk.alarms() == 1)
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
    tally(f"on a full disk stops and reading work, and all else is 503 ({place.__name__})", broken=broken, of=tried)


def write_log_until_crash(url: str) -> None:
    """Write nothing but write-ahead log, as another program, until PostgreSQL crashes because its log has no space."""
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as other:
        while True:
            other.execute("select pg_logical_emit_message(false, 'test', repeat('x', 1000000))")


@pytest.mark.slow
@pytest.mark.parametrize("log_mib", [0, 48])
def test_stops_and_writes_work_again_after_postgresql_crashed_without_space_for_its_log(
    tmp_path: Path, tally: Tally, log_mib: int
) -> None:
    """With the log on the disk of the data, the recovery of PostgreSQL runs in the space of the reserve. With a disk of
    its own, PostgreSQL stays down until there is space.
    """
    _need_mounts()
    with (
        postgresql_on_small_disk(mib=320, log_mib=log_mib) as postgresql,
        PreparedServer(tmp_path / "data", "--database", postgresql.url) as server,
        ServerFixture(server, tmp_path) as live_server,
    ):
        disk = Disk(live_server, postgresql.fill, postgresql.clear)
        names = [live_server.agent("files:read")[0] for _ in range(2)]
        filled = "pg_wal" if log_mib else "../filler"
        postgresql.fill(filled)
        write_log_until_crash(postgresql.url)
        assert "PANIC:  could not write to file" in postgresql.messages()
        if log_mib:
            eventually(lambda: not postgresql.runs())
            assert disk.status_of_stop(names[0]) == 503
            postgresql.clear(filled)
            postgresql.start()
        else:
            eventually(lambda: disk.status_of_stop(names[0]) == 200)
            assert disk.status("POST", "/persons", {"name": "crashed"}) == (503, "disk_full")
            assert postgresql.runs()
            postgresql.clear(filled)
        eventually(lambda: disk.status_of_stop(names[1]) == 200)
        eventually(lambda: disk.status("POST", "/persons", {"name": "room"})[0] in (201, 409))
        live_server.server.ostiary("audit", "verify")
    kind = "apart" if log_mib else "with the data"
    tally(f"after a crash for want of space for the log ({kind}) acts work again", broken=0, of=2)

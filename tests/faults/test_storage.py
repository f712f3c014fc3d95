"""Faults of storage, against a real server: files that vanish or change, damaged pages, rows changed by hand."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from harness.live_server import URI, ServerFixture, authenticate, is_allowed
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.server import COMMAND
from ostiary.agent import Agent
from ostiary.guard import Guard
from ostiary.protocol.errors import Refused
from tests.faults.tally import Tally

PAGE = 4096
REFUSALS = ("503 database_lost", "503 database_damaged")
"""After a loss; the second where a read meets a page that was cut off."""


@contextmanager
def administered(folder: Path) -> Iterator[ServerFixture]:
    """A real server with `folder / "data"`, and its administrator."""
    with PreparedServer(folder / "data") as server, ServerFixture(server, folder) as live_server:
        yield live_server


def _delete(db: Path) -> None:
    for path in db.parent.glob("ostiary.db*"):
        path.unlink()


def _replace(db: Path) -> None:
    shutil.copy(db, db.with_suffix(".copy"))
    os.replace(db.with_suffix(".copy"), db)


def _overwrite(db: Path) -> None:
    shutil.copy(db, db.with_suffix(".copy"))
    shutil.copyfile(db.with_suffix(".copy"), db)


LOSSES: tuple[Callable[[Path], object], ...] = (
    _delete,
    _replace,
    _overwrite,
    lambda db: os.truncate(db, db.stat().st_size // 2),
    lambda db: db.with_name("ostiary.db-wal").unlink(),
)


def _ask_after_loss(answers: list[str], folder: Path, lose: Callable[[Path], object]) -> None:
    """Lose a file of a running server, and collect the status and error code of each request after that."""
    with administered(folder) as live_server:
        live_server.owner()
        lose(live_server.server.folder / "ostiary.db")
        for path in ("/persons", "/agents"):
            for method, body in (("POST", {"name": "lost"}), ("GET", None)):
                answer = live_server.admin.request(
                    method,
                    f"{live_server.server.url}/api/v1{path}",
                    resource=f"{live_server.admin.issuer}/api/v1",
                    json=body,
                )
                answers.append(f"{answer.status_code} {answer.json()['error']}")


def test_every_request_gets_503_after_a_database_file_is_lost(tmp_path: Path, rounds: int, tally: Tally) -> None:
    """Each refusal states the loss, and the server exits with status 3 when it is stopped."""
    broken, tried = 0, 0
    for number, lose in enumerate(LOSSES[:1] if rounds == 1 else LOSSES):
        folder, answers = tmp_path / str(number), list[str]()
        with pytest.raises(AssertionError, match="the server ended with 3"):
            _ask_after_loss(answers, folder, lose)
        tried += len(answers)
        broken += sum(answer not in REFUSALS for answer in answers)
        log = (folder / "data/server.log").read_text()
        assert "acknowledges nothing from now on" in log
        assert "; copy the open files" in log
    tally("after a database file is lost, every request gets 503", broken=broken, of=tried)


def _overwrite_index(names: list[str], folder: Path, dice: random.Random) -> None:
    """Overwrite the index of the log of a running server, from one of its parts on, after a person was created."""
    since, index = dice.choice((0, 96, 136)), folder / "data/ostiary.db-shm"
    with administered(folder) as live_server:
        names.append(live_server.owner())
        with index.open("r+b") as file:
            file.seek(since)
            file.write(dice.randbytes(index.stat().st_size - since))
        eventually(lambda: httpx2.get(f"{live_server.server.url}/readyz").status_code == 503)


def test_no_acknowledged_act_is_lost_after_the_index_of_the_sqlite_log_is_overwritten(
    tmp_path: Path, seed: int, tally: Tally
) -> None:
    """The server ends without moving a page by the damaged index, and the next start makes the index again."""
    names = list[str]()
    with pytest.raises(AssertionError, match="the server ended with 3"):
        _overwrite_index(names, tmp_path, random.Random(seed))
    log = (tmp_path / "data/server.log").read_text()
    assert "restart the server, which makes the index again from the log" in log
    with administered(tmp_path) as live_server:
        kept = [person["name"] for person in live_server.api("GET", "/persons")["persons"]]
        live_server.name("owner")
        live_server.owner()
    with closing(sqlite3.connect(tmp_path / "data/ostiary.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    tally("an overwritten index of the log loses nothing", broken=len(set(names) - set(kept)), of=len(names))


def test_a_request_that_reads_a_damaged_database_page_gets_503(tmp_path: Path, rounds: int, tally: Tally) -> None:
    """Every page behind the schema is overwritten below the server's cache, which is then empty."""
    broken, tried = 0, 0
    for number in range(rounds):
        folder = tmp_path / str(number)
        with administered(folder) as live_server:
            live_server.owner()
        db = live_server.server.folder / "ostiary.db"
        with sqlite3.connect(db) as connection:
            (page,) = connection.execute("select rootpage from sqlite_schema where name = 'finding'").fetchone()
        connection.close()
        with db.open("r+b") as file:
            file.seek((page - 1) * PAGE)
            file.write(bytes([number + 1]) * PAGE)
        with administered(folder) as live_server:
            answer = live_server.admin.request(
                "GET", f"{live_server.server.url}/api/v1/findings", resource=f"{live_server.admin.issuer}/api/v1"
            )
            tried += 1
            broken += answer.status_code != 503
            assert answer.json()["error"] == "database_damaged"
    tally("a request that meets a damaged page gets 503", broken=broken, of=tried)


def test_a_start_without_the_database_or_the_root_key_is_refused(tmp_path: Path, tally: Tally) -> None:
    with administered(tmp_path) as live_server:
        live_server.owner()
    data = tmp_path / "data"
    broken, tried = 0, 0
    for name, words in (("ostiary.db", "is missing, but this data folder was already used"), ("root.key", "root key")):
        (data / name).rename(tmp_path / name)
        start = subprocess.run(
            [COMMAND, "serve", "--data-dir", data, "--listen", "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        tried += 1
        broken += start.returncode == 0 or words not in start.stderr or (data / name).exists()
        (tmp_path / name).rename(data / name)
    with administered(tmp_path) as live_server:
        assert live_server.entries()
    tally("a start without the database or the root key is refused and makes neither", broken=broken, of=tried)


def test_an_agent_whose_row_was_changed_outside_the_server_stays_stopped(
    tmp_path: Path, rounds: int, tally: Tally
) -> None:
    """Another process, with a connection of its own, sets a suspended agent active again."""
    broken = 0
    with administered(tmp_path) as live_server:
        resource, guard_key = live_server.resource(URI)
        with closing(Guard(guard_key, spool_dir=tmp_path / "spool").start(wait=PATIENCE_S)) as guard:
            for _ in range(2 * rounds):
                name, key = live_server.agent(f"{resource}:read")
                who = authenticate(guard, key)
                assert is_allowed(guard, who)
                suspended = live_server.api("POST", f"/agents/{name}/suspend", {})
                agent_id = live_server.api("GET", f"/agents/{name}")["agent_id"]
                eventually(lambda who=who: not is_allowed(guard, who))  # type: ignore[misc]
                assert suspended
                with closing(sqlite3.connect(tmp_path / "data/ostiary.db", timeout=PATIENCE_S)) as other, other:
                    changed = other.execute("update agent set state = 'active' where name = ?", (name,))
                    assert changed.rowcount == 1
                eventually(lambda agent_id=agent_id: is_stopped(live_server, agent_id))  # type: ignore[misc]
                broken += is_allowed(guard, who)
                with Agent.from_credential(key) as agent, pytest.raises(Refused):
                    agent.token(resource=URI)
    tally("an agent whose row was changed beside the server stays stopped", broken=broken, of=2 * rounds)


def is_stopped(live_server: ServerFixture, agent_id: str) -> bool:
    """Whether the agent is in quarantine with an incident."""
    incidents = live_server.api("GET", "/incidents")["incidents"]
    return any(agent_id in str(incident) for incident in incidents)

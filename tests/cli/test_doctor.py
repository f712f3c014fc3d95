"""`ostiary doctor`: each fault that a test makes in a real server fails exactly the line that checks it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from harness.cli import Commands, environment
from harness.clock import Clock
from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.server import Server, running
from ostiary import ambient
from ostiary.agent import Agent
from ostiary.asgi import GuardASGI, Receive, Scope, Send
from ostiary.cli.doctor import examine
from ostiary.cli.session import Session
from ostiary.guard import Guard
from ostiary.guard.spool import RESERVE
from ostiary.protocol.errors import Conflict
from ostiaryd.doctor import EXPERIMENTS, MAX_ACTS
from ostiaryd.doctor import examine as inside
from ostiaryd.ground.database.folder import check_space
from ostiaryd.ground.rounds import Rounds
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Caller
from tests.support.watch_fixtures import watching

LINES = [
    "server",
    "clock",
    "credential",
    "strangers",
    "stolen token",
    "replayed proof",
    "default deny",
    "egress",
    "record",
    "guards",
    "root key",
    "server keys",
    "data folder",
    "public URL",
    "certificates",
    "HSM",
    "server time",
    "clients",
    "API keys",
    "words",
    "secrets",
    "replay memory",
    "ledger",
    "history",
    "state",
    "pages",
    "policy",
    "elevations",
    "incidents",
    "webhooks",
    "threat lists",
    "trust domains",
    "detectors",
    "signals",
    "queues",
    "loops",
    "disk",
]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that every test leaves in health."""
    folder = tmp_path_factory.mktemp("doctor") / "data"
    folder.mkdir(mode=0o700)
    with PreparedServer(folder) as server:
        Commands(folder).json("person", "create", "sam", "--email", "s@example.org")
        yield server


def states(server: Server) -> dict[str, str]:
    """The result of `ostiary doctor` for each line; its exit code must agree."""
    ran = Commands(server.folder)("doctor", "--json")
    lines = {line["name"]: line for line in json.loads(ran.out)}
    red = [name for name, line in lines.items() if line["state"] == "fail"]
    assert ran.code == (5 if red else 0), ran.err
    assert list(lines) == LINES
    assert all(line["hint"] for line in lines.values() if line["state"] != "ok"), "what is not ok says what to do"
    return {name: line["state"] for name, line in lines.items()}


HEALTHY = dict.fromkeys(LINES, "ok") | {"root key": "weak", "egress": "ok" if os.geteuid() == 0 else "weak"}


def check_states(server: Server, changed: dict[str, str] | None = None) -> None:
    """Wait until every line is healthy except those in `changed`."""
    eventually(lambda: states(server) == HEALTHY | (changed or {}))


def check_only_red(server: Server, *lines: str) -> None:
    check_states(server, dict.fromkeys(lines, "fail"))


@contextmanager
def mode(path: Path, wrong: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(wrong)
    try:
        yield
    finally:
        path.chmod(before)


@contextmanager
def damaged(server: Server, table: str, column: str, where: str, damage: Callable[[Any], Any]) -> Iterator[None]:
    """Change one value of one row behind the server's back, then put it back."""
    change = f"update {table} set {column} = ? where {where}"
    with closing(sqlite3.connect(server.folder / "ostiary.db", isolation_level=None, timeout=PATIENCE_S)) as db:
        [(before,)] = db.execute(f"select {column} from {table} where {where}").fetchall()
        assert damage(before) != before
        db.execute(change, (damage(before),))
        try:
            yield
        finally:
            db.execute(change, (before,))


@contextmanager
def trigger(server: Server, when: str, what: str) -> Iterator[None]:
    """Let the database itself misbehave."""
    with closing(sqlite3.connect(server.folder / "ostiary.db", isolation_level=None, timeout=PATIENCE_S)) as db:
        db.execute(f"create trigger misbehave {when} begin {what}; end")
        try:
            yield
        finally:
            db.execute("drop trigger misbehave")


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_healthy_server_has_no_failing_line_and_a_warning_about_the_root_key(patient: Server) -> None:
    check_states(patient)
    said = Commands(patient.folder)("doctor").out
    assert "is stored beside the data that the key encrypts" in said
    assert "OSTIARY_ROOT_KEY" in said


@pytest.mark.parametrize(("file", "line"), [("root.key", "root key"), ("admin.json", "credential")])
@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o644])
def test_a_key_file_that_other_users_can_read_fails_its_line(patient: Server, file: str, line: str, wrong: int) -> None:
    with mode(patient.folder / file, wrong):
        check_only_red(patient, line)


@pytest.mark.parametrize("wrong", [0o755, 0o710])
def test_a_data_folder_that_other_users_can_open_fails_its_line(patient: Server, wrong: int) -> None:
    with mode(patient.folder, wrong):
        check_only_red(patient, "data folder")
    check_states(patient)


def test_a_ledger_entry_changed_in_the_database_fails_the_ledger_line(patient: Server) -> None:
    """The entry keeps its length; only its content changes."""
    with damaged(patient, "entry", "body", "idx = 0", lambda body: body.replace(b'"at":1', b'"at":2')):
        check_only_red(patient, "ledger")
        assert "the stored entry 0 does not match its hash" in Commands(patient.folder)("doctor").out
    check_states(patient)


def test_a_changed_leaf_hash_fails_the_ledger_and_history_lines(patient: Server) -> None:
    with damaged(patient, "entry", "leaf", "idx = 0", flip_last):
        check_only_red(patient, "ledger", "history")
    check_states(patient)


@pytest.mark.parametrize("use", ["token", "feed", "ledger"])
def test_a_damaged_sealed_key_fails_the_server_keys_line(patient: Server, use: str) -> None:
    one = f"kid = (select min(kid) from server_key where use_ = '{use}')"
    with damaged(patient, "server_key", "sealed", one, flip_last):
        check_only_red(patient, "server keys")
    check_states(patient)


def test_edited_files_of_the_active_policy_set_fail_the_policy_line(patient: Server, tmp_path: Path) -> None:
    ostiary = Commands(patient.folder)
    ostiary.json("policy", "export", tmp_path / "set")
    (tmp_path / "set" / "more.cedar").write_text('@id("more") forbid (principal, action, resource) when { false };\n')
    active = ostiary.json("policy", "put", tmp_path / "set")["hash"]
    check_states(patient)
    edit = damaged(
        patient, "policy_set", "files", f"hash = '{active}'", lambda files: files.replace("{ false }", "{ true }")
    )
    with edit:
        red = HEALTHY | {"policy": "fail", "state": "fail"}
        eventually(lambda: states(patient) == red)  # the state is compared in the background
    check_states(patient)
    ostiary.json("kill", "lift", "everything", "--reason", "a test")


def test_a_policy_that_permits_everything_fails_the_default_deny_line(patient: Server, tmp_path: Path) -> None:
    ostiary = Commands(patient.folder)
    before = ostiary.json("policy", "show")["hash"]
    (tmp_path / "all.cedar").write_text('@id("all") permit (principal, action, resource);\n')
    ostiary.json("policy", "put", tmp_path)
    try:
        check_only_red(patient, "default deny")
    finally:
        ostiary.json("policy", "activate", before)
    check_states(patient)


FORGETFUL = """
from ostiaryd.trust.model import Spent
Spent.__contains__ = lambda self, digest: False
import sys
from ostiary.cli import main
sys.exit(main())
"""


def test_a_server_that_accepts_a_proof_twice_fails_the_replay_line(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with running(folder, command=(sys.executable, "-c", FORGETFUL)) as server:
        check_only_red(server, "replayed proof")


def test_a_replay_memory_that_is_not_stored_fails_its_line(patient: Server) -> None:
    with trigger(patient, "after insert on spent", "delete from spent where seq = new.seq"):
        check_only_red(patient, "replay memory")
    check_states(patient)


def test_a_background_loop_with_failing_rounds_fails_the_loops_line(patient: Server, tmp_path: Path) -> None:
    ostiary = Commands(patient.folder)
    ostiary.json("agent", "create", "brief", "--owner", "sam", "--purpose", "tests", "--generate-key", tmp_path / "k")
    with trigger(patient, "before update on task", "select raise(abort, 'stuck')"):
        ostiary.json("task", "start", "--agent", "brief", "--purpose", "tests", "--ttl", 1)
        eventually(lambda: states(patient)["loops"] == "fail")
        check_only_red(patient, "loops")
        assert "expire_due (IntegrityError" in ostiary("doctor").out
    check_states(patient)


def test_hanging_detectors_fail_their_line_and_killed_detectors_are_restarted(patient: Server) -> None:
    ostiary = Commands(patient.folder)
    eventually(lambda: ostiary.json("watch", "status")["phase"] == "working")
    pid = ostiary.json("watch", "status")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        check_only_red(patient, "detectors")
        assert "entries behind, their process is working" in ostiary("doctor").out
    finally:
        os.kill(pid, signal.SIGCONT)
    check_states(patient)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: ostiary.json("watch", "status")["starts"] == 2)
    check_states(patient)
    [restart] = ostiary.json("audit", "search", "--action", "watch.restart")
    assert restart["detail"] == {"why": "Unavailable: the detector process ended with status -9"}


def test_a_guard_with_a_stalled_feed_fails_the_guards_line(patient: Server, tmp_path: Path) -> None:
    ostiary = Commands(patient.folder)
    key = tmp_path / "guard.json"
    ostiary.json("resource", "create", "slow", "--uri", "https://slow.example.org", "--generate-key", key)
    code = (
        "import sys, time; from ostiary.guard import Guard\n"
        "with Guard(sys.argv[1], url=sys.argv[2], spool_dir=sys.argv[3]): print('up', flush=True); time.sleep(600)"
    )
    given = [sys.executable, "-c", code, str(key), patient.url, str(tmp_path / "spool")]
    with subprocess.Popen(given, stdout=subprocess.PIPE, text=True) as guard:
        try:
            assert guard.stdout is not None
            assert guard.stdout.readline() == "up\n"
            check_states(patient)
            assert "a change was in force at slow" in ostiary("doctor").out
            [connected] = ostiary.json("feed", "list")
            assert connected["guard"] == "slow"
            assert "slow" in ostiary("feed", "list").out
            os.kill(guard.pid, signal.SIGSTOP)
            check_only_red(patient, "guards")
            assert "slow; connected guards: 1" in ostiary("doctor").out
            revoked = ostiary("revoke", "owner", "sam")
            assert (revoked.code, "has not answered" in revoked.out) == (5, True)
            os.kill(guard.pid, signal.SIGCONT)
            check_states(patient)
        finally:
            guard.kill()
    eventually(lambda: not ostiary.json("feed", "list"))


def test_a_guard_that_cannot_deliver_its_records_fails_the_queues_line(patient: Server, tmp_path: Path) -> None:
    """The server refuses the reports of this spool; the guard itself reports how full the spool is."""
    ostiary = Commands(patient.folder)
    sock, port = free_socket()
    url, key, own = f"http://127.0.0.1:{port}", tmp_path / "guard.json", tmp_path / "agent.json"
    (tmp_path / "tools.json").write_text('{"resource": "full", "tools": [{"name": "look", "effect": "read"}]}')
    ostiary.json(
        "resource", "create", "full", "--uri", url, "--catalogue", tmp_path / "tools.json", "--generate-key", key
    )
    ostiary.json("person", "create", "tess", "--email", "t@example.org")
    who = ("--owner", "tess", "--purpose", "tests", "--scope", "full:read", "--generate-key", own)
    ostiary.json("agent", "create", "looker", *who)
    limit = {"spool_dir": tmp_path / "spool", "spool_limit": RESERVE + 4000}
    with (
        Guard(key, url=patient.url, **limit) as guard,  # type: ignore[arg-type]
        serving(GuardASGI(greet, guard, tool={"GET /": "look"}), sock),
        Agent.from_credential(own, url=patient.url) as agent,
    ):
        assert agent.get(url).status_code == 200
        [spool] = [lock.parent for lock in (tmp_path / "spool").glob("rs_*/*/lock")]
        eventually(lambda: bool(ostiary.json("audit", "search", "--action", "feed.report")))
        check_states(patient)
        assert "connected guards that deliver their records: 1" in ostiary("doctor").out
        with damaged(patient, "spool", "resource_id", f"id = '{spool.name}'", lambda _: other(patient)):

            def is_full() -> bool:
                """Fill the spool with calls. A guard whose feed is old denies too, so the doctor decides."""
                while agent.get(url).status_code == 200:
                    pass
                return states(patient) == HEALTHY | {"queues": "fail", "guards": "weak"}

            eventually(is_full)  # the other resource has reported before, and is missed
            assert re.search(r"queues +\d+ % of the spool of `full` is full", ostiary("doctor").out)
        eventually(lambda: agent.get(url).status_code == 200)
        check_states(patient)
    check_states(patient, {"guards": "weak"})
    assert "not connected: full (its last report is of " in ostiary("doctor").out
    with closing(sqlite3.connect(patient.folder / "ostiary.db", isolation_level=None, timeout=PATIENCE_S)) as db:
        db.execute("update spool set reported_at = 0")  # long ago
    check_states(patient)


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def other(server: Server) -> Any:
    """The id of a resource that has no such guard."""
    return Commands(server.folder).json("resource", "show", "ostiary")["resource_id"]


async def test_the_queues_line_fails_at_the_limit_of_waiting_acts_and_not_below(world: World) -> None:
    """No act is awaited before the check, so all acts still wait."""
    queues = dict(EXPERIMENTS)["queues"]
    jobs = [world.writer.submit(lambda tx: None) for _ in range(MAX_ACTS - 1)]
    text = f"acts waiting to be written: {MAX_ACTS - 1}; connected guards that deliver their records: 0"
    assert await queues(world) == text
    jobs.append(world.writer.submit(lambda tx: None))
    with pytest.raises(Conflict, match=f"acts waiting to be written: {MAX_ACTS}"):
        await queues(world)
    await asyncio.gather(*jobs)


@pytest.mark.parametrize(("skew_s", "state"), [(0, "ok"), (3, "ok"), (-3, "ok"), (7, "fail"), (-7, "fail")])
def test_a_clock_off_by_more_than_five_seconds_fails_the_clock_line(patient: Server, skew_s: int, state: str) -> None:
    """The time in the header is up to two seconds old, so the limit is blurred by one on each side."""

    def is_only_difference() -> bool:
        """Compare with the lines of a clock that is right, so that nothing an earlier test has left matters."""
        baseline = states(patient)
        session = Session(patient.folder, as_json=True)
        try:
            lines = examine(session, now=lambda: ambient.now() + skew_s * 1_000_000)
        finally:
            session.close()
        return {line["name"]: line["state"] for line in lines} == baseline | {"clock": state}

    eventually(is_only_difference)


def test_a_public_url_without_tls_fails_its_line_and_an_external_root_key_is_ok(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with PreparedServer(folder):
        pass
    with closing(sqlite3.connect(folder / "ostiary.db", isolation_level=None)) as db:
        db.execute("update setting set value = 'http://ostiary.example.org' where name = 'public_url'")
        db.execute("update resource set uri = 'http://ostiary.example.org/api/v1' where name = 'ostiary'")
    root = (folder / "root.key").read_text().strip()
    (folder / "root.key").unlink()
    with environment(OSTIARY_ROOT_KEY=root), PreparedServer(folder) as server:
        assert states(server) == HEALTHY | {"public URL": "fail", "root key": "ok", "state": "fail"}, (
            "a row was changed by hand"
        )


async def test_internal_checks_have_the_same_results_on_both_databases(world: World) -> None:
    world.config.folder.chmod(0o700)
    admin = Caller(kind="agent", id="ag_1", name="admin", owner=None, scopes=frozenset())
    async with watching(world):
        lines = await inside(world, caller=admin)
    assert {line.name: line.state for line in lines} == {name: HEALTHY[name] for name in LINES[LINES.index("record") :]}


async def test_a_loop_without_a_round_for_too_long_fails_the_loops_line(world: World, clock: Clock) -> None:
    rounds = world.get_singleton(Rounds)
    rounds.record_round("tasks.expire_due", every_s=1)
    admin = Caller(kind="agent", id="ag_1", name="admin", owner=None, scopes=frozenset())
    for seconds, state in ((11, "ok"), (0.000001, "fail")):
        clock.advance(seconds)
        assert {line.name: line.state for line in await inside(world, caller=admin)}["loops"] == state


def test_free_disk_space_below_the_limit_is_refused_and_above_is_accepted(tmp_path: Path) -> None:
    """Against the real disk: the limit is moved, since the disk cannot be."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert "are free" in check_space(tmp_path, spare=free // 2)
    assert "are free" in check_space(tmp_path, spare=0)
    with pytest.raises(Exception, match="are free") as refused:
        check_space(tmp_path, spare=free * 2)
    assert "free some space" in refused.value.hint  # type: ignore[attr-defined]


class Careless(BaseHTTPRequestHandler):
    """A server that answers everybody."""

    def do_GET(self) -> None:
        url = f"http://{self.headers['host']}"
        body = json.dumps({"issuer": url, "token_endpoint": f"{url}/token", "keys": []}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """In silence."""


def test_a_server_that_answers_unauthenticated_requests_fails_the_strangers_line(patient: Server) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as careless:
        Thread(target=careless.serve_forever).start()
        named = {
            "OSTIARY_URL": f"http://127.0.0.1:{careless.server_address[1]}",
            "OSTIARY_CREDENTIAL": str(patient.folder / "admin.json"),
        }
        try:
            with environment(**named):
                lines = {line["name"]: line for line in examine(Session(None, as_json=True))}
        finally:
            careless.shutdown()
    assert lines["strangers"]["state"] == "fail"
    assert "a request without a valid token was answered with status 200" in lines["strangers"]["saw"]

"""Certificates end to end: the commands, the helper that keeps one renewed, TLS with them, and rotation under load."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from cryptography import x509

from harness.cli import Ran, environment, run
from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.server import COMMAND
from harness.tcp_proxy import Proxy
from ostiary.agent import Agent, AsyncAgent, ServerRefused
from ostiary.agent.certificates import AgentCertificate, load_certificate
from ostiary.agent.keeping import CHECK_S, CertificateKeeper, CertificateOrder, check_after, renew_certificate
from ostiary.cli.certificates import run_reload
from ostiary.protocol.certificate import KeyType
from ostiary.protocol.errors import Invalid, Unavailable
from tests.support.tls_service import TlsService

SECOND = 1_000_000


@contextmanager
def administrator(live_server: ServerFixture) -> Iterator[None]:
    with environment(OSTIARY_DATA_DIR=str(live_server.server.folder), OSTIARY_URL=None, OSTIARY_CREDENTIAL=None):
        yield


def cli(live_server: ServerFixture, *words: object) -> Ran:
    with administrator(live_server):
        return run(*words, "--json")


def test_a_renewed_certificate_has_the_key_type_and_the_task_of_the_old_one(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    name, credential = live_server.agent()
    task = cli(live_server, "task", "start", "--agent", name, "--purpose", "Read reports").json["task_id"]
    own = ("--as", credential, "--dir", tmp_path / "tls")
    issued = cli(live_server, "cert", "issue", *own, "--key-type", "Ed25519", "--task", task).json
    renewed = cli(live_server, "cert", "renew", *own).json
    assert renewed["serial"] != issued["serial"]
    shown = cli(live_server, "cert", "show", renewed["serial"]).json
    assert (shown["key_type"], shown["task"]) == ("Ed25519", task)


@pytest.mark.parametrize("key_type", get_args(KeyType))
def test_the_agent_generates_a_key_of_each_type(key_type: str, live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        made = agent.certificate(key_type=key_type)
        assert made.key_type == key_type
        made.ssl_context()
        with pytest.raises(Invalid, match="is not supported"):
            agent.certificate(key_type=f"{key_type}x")


def test_many_certificates_are_issued_by_one_command(live_server: ServerFixture, tmp_path: Path) -> None:
    name, credential = live_server.agent()
    orders = tmp_path / "orders.txt"
    orders.write_text("\n".join([*(f"node-{number}" for number in range(101)), "bank dns:bank.example", ""]))
    many = ("cert", "issue-many", orders, "--as", credential, "--dir", tmp_path / "fleet", "--lifetime", "60")
    ran = cli(live_server, *many)
    assert ran.code != 0
    assert "1 of 102 certificates were refused" in ran.err
    assert sorted(one.name for one in (tmp_path / "fleet").iterdir()) == sorted(f"node-{n}" for n in range(101))
    made = [load_certificate(tmp_path / "fleet" / f"node-{number}") for number in range(101)]
    assert len({one.serial for one in made if one is not None}) == 101
    listed = cli(live_server, "cert", "list", "--holder", name, "--limit", "200").json
    assert len(listed) == 101
    for text, why in (
        ("../etc dns:bank.example", "'../etc' is not the name of a folder"),
        (".. dns:bank.example", "'..' is not the name of a folder"),
        ("et\0c dns:bank.example", "is not the name of a folder"),
        ("etc dns:bank.example\netc dns:shop.example", "two lines name the folder 'etc'"),
    ):
        orders.write_text(text)
        refused = cli(live_server, *many)
        assert refused.code == 2
        assert why in refused.err
    assert not (tmp_path / "etc").exists()


def test_a_certificate_is_issued_renewed_shown_and_revoked_by_commands(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    name, credential = live_server.agent()
    folder = tmp_path / "tls"
    issued = cli(live_server, "cert", "issue", "--as", credential, "--dir", folder).json
    assert issued["names"] == [f"uri:spiffe://localhost/agent/{name}"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}
    assert modes == {
        "key.pem": 0o600,
        "cert.pem": 0o644,
        "bundle.pem": 0o644,
        "tls.pem": 0o600,
        "certificate.json": 0o644,
    }
    first = (folder / "cert.pem").read_text()
    renewed = cli(live_server, "cert", "renew", "--as", credential, "--dir", folder).json
    assert renewed["serial"] != issued["serial"]
    assert (folder / "cert.pem").read_text() != first
    listed = cli(live_server, "cert", "list", "--holder", name).json
    agent_id = listed[0]["holder_id"]
    assert [row["serial"] for row in listed] == [renewed["serial"], issued["serial"]]
    revoked = cli(live_server, "cert", "revoke", renewed["serial"], "--reason", "superseded").json
    assert (revoked["state"], revoked["reason"]) == ("revoked", "superseded")
    assert cli(live_server, "cert", "show", renewed["serial"]).json["state"] == "revoked"
    again = cli(live_server, "cert", "revoke", renewed["serial"])
    assert (again.code, json.loads(again.err)["error"]) == (1, "already_revoked")
    actions = [entry["action"] for entry in live_server.entries(agent=agent_id, limit=20)]
    assert {"cert.issue", "cert.renew"} <= set(actions)


def test_an_agent_sees_only_its_own_certificates(live_server: ServerFixture) -> None:
    (_, first), (other_name, second) = live_server.agent(), live_server.agent()
    with Agent.from_credential(first) as one, Agent.from_credential(second) as other:
        own, foreign = one.certificate(), other.certificate()
        api = f"{live_server.server.url}/api/v1/certificates"
        resource = f"{one.issuer}/api/v1"

        def status(method: str, path: str, body: object = None) -> int:
            return one.request(method, f"{api}{path}", resource=resource, json=body).status_code

        assert [row["serial"] for row in one.request("GET", api, resource=resource).json()["certificates"]] == [
            own.serial
        ]
        assert status("GET", f"/{own.serial}") == 200
        assert status("GET", f"/{foreign.serial}") == 403
        assert status("GET", f"?holder={other_name}") == 403
        assert status("POST", f"/{foreign.serial}/revoke", {}) == 403
        assert status("POST", f"/{own.serial}/revoke", {}) == 200
        assert status("GET", "/" + "0" * 32) == 404
        assert status("GET", "/xyz") == 422
        with pytest.raises(ServerRefused, match="does not allow"):
            one.certificate(names=[f"uri:spiffe://localhost/agent/{other_name}"])
        with pytest.raises(ServerRefused, match="no policy"):
            one.certificate("server", ["dns:api.example.com"])
        with pytest.raises(ServerRefused, match="certificate profile .* is unknown"):
            one.certificate("nosuch")


async def test_an_asynchronous_agent_gets_a_certificate(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    async with AsyncAgent.from_credential(credential) as agent:
        made = await agent.certificate(key_type="Ed25519", lifetime=600)
    leaf = x509.load_pem_x509_certificate(made.certificate.encode())
    assert leaf.not_valid_after_utc.timestamp() * SECOND == made.not_after - SECOND
    assert "PRIVATE KEY" not in repr(made)


class Keeper:
    """A helper in this process, with clocks that a test moves: `now` can be set, and `tick` counts time since boot."""

    def __init__(self, agent: Agent, folder: Path, order: CertificateOrder) -> None:
        self.now = int(time.time() * SECOND)
        self.tick = 0
        self.made: list[AgentCertificate] = []
        self.failures: list[str] = []
        self.keeper = CertificateKeeper(
            agent,
            folder,
            order,
            on_change=self.made.append,
            on_failure=self.failures.append,
            now=lambda: self.now,
            tick=lambda: self.tick,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.keeper.run)
        thread.start()
        try:
            yield
        finally:
            self.keeper.stop()
            thread.join(PATIENCE_S)


def test_a_helper_that_was_off_for_a_week_recovers(live_server: ServerFixture, tmp_path: Path) -> None:
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        first = agent.certificate(lifetime=60)
        first.save(tmp_path)
        kept = Keeper(agent, tmp_path, CertificateOrder(lifetime=60))
        kept.now += 7 * 86_400 * SECOND
        with kept.running():
            eventually(lambda: kept.made)
    newest = load_certificate(tmp_path)
    assert newest is not None
    assert newest.serial == kept.made[0].serial != first.serial
    assert kept.failures == []


@pytest.mark.parametrize("hours", [1, -1])
def test_a_helper_whose_clock_is_wrong_renews_by_the_time_since_boot(
    hours: int, live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is ahead, each new certificate is due at once; by a clock that is behind, none is."""
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent, Agent.from_credential(credential) as other:
        kept = Keeper(agent, tmp_path, CertificateOrder(lifetime=600))
        kept.now += hours * 3600 * SECOND
        with kept.running():
            eventually(lambda: kept.made)
            for _ in range(10):
                other.certificate(lifetime=60)
            assert len(kept.made) == 1
            kept.tick += 400 * SECOND
            eventually(lambda: len(kept.made) == 2)
    assert kept.failures == []


def test_a_clock_that_is_set_back_delays_no_renewal(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        kept = Keeper(agent, tmp_path, CertificateOrder(lifetime=600))
        with kept.running():
            eventually(lambda: kept.made)
            kept.now -= 7 * 86_400 * SECOND
            kept.tick += 500 * SECOND
            eventually(lambda: len(kept.made) == 2)
    assert kept.failures == []


def test_a_certificate_written_by_another_process_is_passed_to_the_service(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ostiary cert renew` ran beside the helper; before that, the helper was killed before it told the service."""
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent, Agent.from_credential(credential) as other:
        written = agent.certificate()
        written.save(tmp_path)
        kept = Keeper(agent, tmp_path, CertificateOrder())
        with kept.running():
            eventually(lambda: [one.serial for one in kept.made] == [written.serial])
            renewed = renew_certificate(other, tmp_path)
            eventually(lambda: [one.serial for one in kept.made] == [written.serial, renewed.serial])
    assert kept.failures == []


def has_made(count: int, keepers: list[Keeper]) -> bool:
    return all(len(kept.made) == count for kept in keepers)


def test_two_helpers_of_one_folder_renew_once_and_each_notifies_its_service(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    monkeypatch.setattr("ostiary.agent.keeping.RETRY_S", 0.05)
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent, Agent.from_credential(credential) as other:
        both = [Keeper(one, tmp_path, CertificateOrder(lifetime=600)) for one in (agent, other)]
        with both[0].running(), both[1].running():
            for renewal in (1, 2, 3):
                eventually(partial(has_made, renewal, both))
                for kept in both:
                    kept.tick += 600 * SECOND
            eventually(partial(has_made, 4, both))
    assert [one.serial for one in both[0].made] == [one.serial for one in both[1].made]
    for kept in both:
        assert all("another process is renewing" in failure for failure in kept.failures)


def test_a_helper_with_another_order_waits_until_the_folder_is_free(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each would replace the certificate of the other."""
    monkeypatch.setattr("ostiary.agent.keeping.RETRY_S", 0.05)
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    name, credential = live_server.agent()
    own = f"uri:spiffe://localhost/agent/{name}"
    with Agent.from_credential(credential) as agent:
        kept, same, other = (
            Keeper(agent, tmp_path, CertificateOrder(names=names, key_type=key_type))
            for names, key_type in (((own,), "P-256"), ((own, own), "P-256"), ((own,), "P-384"))
        )
        with ExitStack() as stack:
            with kept.running():
                eventually(lambda: kept.made)
                with same.running():
                    eventually(lambda: same.made)
                stack.enter_context(other.running())
                eventually(lambda: len(other.failures) >= 2 or other.made)
                assert other.made == []
            eventually(lambda: other.made)
    assert same.made == kept.made
    assert all(f"another process keeps the certificate `agent P-256 {own}`" in one for one in other.failures)
    assert [one.key_type for one in (*kept.made, *other.made)] == ["P-256", "P-384"]


@pytest.mark.parametrize("share", [0, 255])
def test_revocation_checks_of_helpers_are_spread_over_time(share: int) -> None:
    after = check_after(lambda count: bytes([share]) * count)
    assert after == pytest.approx(CHECK_S * SECOND * (1 if share else 4 / 5), rel=1e-6)


@pytest.mark.parametrize("has_certificate", [True, False])
def test_a_helper_of_a_decommissioned_agent_exits(
    has_certificate: bool, live_server: ServerFixture, tmp_path: Path
) -> None:
    name, credential = live_server.agent()
    own = ("--as", credential, "--dir", tmp_path)
    if has_certificate:
        assert cli(live_server, "cert", "issue", *own).code == 0
    assert cli(live_server, "agent", "decommission", name).code == 0
    ran = cli(live_server, "cert", "keep", *own)
    assert ran.code != 0
    assert json.loads(ran.err.splitlines()[-1])["error"] == "decommissioned"
    assert "the agent is decommissioned: its certificate in" in ran.err


def test_renewal_is_due_at_two_thirds_of_the_lifetime_plus_a_spread(live_server: ServerFixture) -> None:
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        made = agent.certificate(lifetime=600)
    life = made.not_after - made.not_before
    earliest, latest = made.renew_at(bytes), made.renew_at(lambda count: b"\xff" * count)
    assert earliest - made.not_before == round(life * 2 / 3)
    assert latest - made.not_before == pytest.approx(life * (2 / 3 + 1 / 10), rel=1e-6)


def test_the_keep_command_renews_a_certificate_and_runs_the_reload_command(
    live_server: ServerFixture, tmp_path: Path
) -> None:
    """At 60 seconds of life plus 60 of backdating, the first renewal is due 20 seconds after the issue."""
    _, credential = live_server.agent()
    folder, log = tmp_path / "tls", tmp_path / "reloads"
    command = [COMMAND, "cert", "keep", "--as", credential, "--dir", folder, "--lifetime", "60"]
    command += ["--reload", f"sh -c 'echo reloaded >> {log}'", "--json"]
    with environment(OSTIARY_DATA_DIR=str(live_server.server.folder)):
        helper = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        assert helper.stdout is not None
        serials = [json.loads(helper.stdout.readline())["serial"] for _ in range(2)]
        eventually(lambda: log.read_text().count("reloaded") == 2)
    finally:
        helper.send_signal(signal.SIGINT)
        helper.communicate(timeout=PATIENCE_S)
    kept = load_certificate(folder)
    assert kept is not None
    assert kept.serial == serials[1] != serials[0]
    assert len([path for path in folder.iterdir() if path.name.startswith("v")]) == 2


def test_a_failed_reload_command_runs_again_until_success(live_server: ServerFixture, tmp_path: Path) -> None:
    """Otherwise the service uses the old certificate until that expires, long before the next renewal."""
    _, credential = live_server.agent()
    folder, log, switch, done = (tmp_path / name for name in ("tls", "reloads", "works", "done"))
    command = [COMMAND, "cert", "keep", "--as", credential, "--dir", folder]
    command += ["--reload", f"sh -c 'echo reloaded >> {log}; test -e {switch} && touch {done}'", "--json"]
    with environment(OSTIARY_DATA_DIR=str(live_server.server.folder)):
        pipe = subprocess.PIPE
        helper = subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True)
    try:
        assert helper.stdout is not None
        serial = json.loads(helper.stdout.readline())["serial"]
        eventually(lambda: log.exists() and log.read_text().count("reloaded") >= 2)
        switch.touch()
        eventually(done.exists)
    finally:
        helper.send_signal(signal.SIGINT)
        output, errors = helper.communicate(timeout=PATIENCE_S)
    assert output == "", "the certificate is shown once"
    assert "the new certificate is written, but the service was not reloaded" in errors
    assert "exited with 1" in errors
    kept = load_certificate(folder)
    assert kept is not None
    assert kept.serial == serial, "no further certificate is issued"


def test_a_reload_command_that_times_out_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.cli.certificates.RELOAD_S", 0.5)
    child = tmp_path / "child"
    with pytest.raises(Unavailable, match=r"was ended after 0\.5 seconds"):
        run_reload(["sh", "-c", f"sleep 1000 & echo $! > {child}; wait"])
    eventually(lambda: not Path("/proc", child.read_text().strip()).exists())


def test_an_unwritable_folder_is_reported_and_the_renewal_is_retried(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.agent.keeping.RETRY_S", 0.1)
    _, credential = live_server.agent()
    folder = tmp_path / "tls"
    folder.write_text("a file, not a folder")
    with Agent.from_credential(credential) as agent:
        kept = Keeper(agent, folder, CertificateOrder())
        thread = threading.Thread(target=kept.keeper.run)
        thread.start()
        eventually(lambda: any("the certificate was not renewed" in one for one in kept.failures))
        folder.unlink()
        eventually(lambda: kept.made)
        kept.keeper.stop()
        thread.join(PATIENCE_S)


def test_renewals_delete_only_old_versions_and_keep_other_folders(live_server: ServerFixture, tmp_path: Path) -> None:
    name, credential = live_server.agent()
    others = ["vendor", "venv", "v1-notes", "views"]
    for other in others:
        (tmp_path / other).mkdir()
    own = ("--as", credential, "--dir", tmp_path)
    assert cli(live_server, "cert", "issue", *own).code == 0
    for _ in range(3):
        assert cli(live_server, "cert", "renew", *own).code == 0
    left = {path.name for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()}
    assert left > set(others)
    assert len(left) == len(others) + 2, "the newest two versions"
    assert len(cli(live_server, "cert", "list", "--holder", name).json) == 4


@pytest.mark.parametrize("file", ["key.pem", "cert.pem", "bundle.pem", "tls.pem", "certificate.json", "current"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_with_files_of_another_origin_is_refused_before_anything_is_issued(
    file: str, kind: str, live_server: ServerFixture, tmp_path: Path
) -> None:
    """A private key of another authority has no other copy; a link to another place would stay."""
    name, credential = live_server.agent()
    folder = tmp_path / "tls"
    folder.mkdir()
    (tmp_path / "other").write_text("the only copy")
    if kind == "link":
        (folder / file).symlink_to("../other")
    else:
        (folder / file).write_text("the only copy")
    orders = tmp_path / "orders.txt"
    orders.write_text("tls")
    for command in (("issue", "--dir", folder), ("issue-many", orders, "--dir", tmp_path)):
        ran = cli(live_server, "cert", *command, "--as", credential)
        assert (ran.code, json.loads(ran.err)["error"]) == (2, "invalid")
        assert f"{folder / file} does not belong to an earlier certificate" in ran.err
    assert (folder / file).read_text() == "the only copy"
    assert cli(live_server, "cert", "list", "--holder", name).json == []


def test_a_certificate_that_cannot_be_written_is_written_later(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands for a full disk: only one certificate is issued meanwhile."""
    monkeypatch.setattr("ostiary.agent.keeping.RETRY_S", 0.05)
    name, credential = live_server.agent()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Agent.from_credential(credential) as agent:
        kept = Keeper(agent, tmp_path, CertificateOrder())
        with kept.running():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            try:
                eventually(lambda: len(kept.failures) >= 3)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            eventually(lambda: kept.made)
    assert all("File too large" in failure for failure in kept.failures)
    assert [one["serial"] for one in cli(live_server, "cert", "list", "--holder", name).json] == [kept.made[0].serial]
    assert len([path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()]) == 1


@pytest.mark.parametrize("why", ["revoked", "unknown", "foreign"])
def test_a_helper_replaces_a_revoked_unknown_or_foreign_certificate(
    why: str, live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent was suspended and resumed, the data of the server are new, or the folder was another agent's."""
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    _, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        kept = Keeper(agent, tmp_path, CertificateOrder())
        with kept.running():
            eventually(lambda: kept.made)
            written = kept.made[0]
            match why:
                case "revoked":
                    assert cli(live_server, "cert", "revoke", written.serial).code == 0
                case "unknown":
                    replace(written, serial="0" * 32).save(tmp_path)
                case "foreign":
                    with Agent.from_credential(live_server.agent()[1]) as other:
                        other.certificate().save(tmp_path)
            kept.tick += round(CHECK_S * SECOND)
            eventually(lambda: len(kept.made) == 2)
        assert load_certificate(tmp_path) == kept.made[1]
        assert agent.certificate_state(kept.made[1].serial) == "live"
    assert kept.failures == []


@pytest.mark.parametrize("why", ["stop", "suspension", "no server"])
def test_a_helper_keeps_the_certificate_while_the_server_issues_no_other(
    why: str, live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop can be lifted; until then, the certificate is on hold."""
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    name, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        written = agent.certificate()
    written.save(tmp_path)
    match why:
        case "stop":
            assert cli(live_server, "kill", "task", written.task, "--reason", "a test").code == 0
            assert cli(live_server, "cert", "show", written.serial).json["state"] == "on_hold"
        case "suspension":
            live_server.api("POST", f"/agents/{name}/suspend", {"why": "a test"})
    url = "http://127.0.0.1:1" if why == "no server" else None
    with Agent.from_credential(credential, url=url) as agent:
        kept = Keeper(agent, tmp_path, CertificateOrder())
        with kept.running():
            eventually(lambda: kept.made)
    assert kept.made == [written]
    assert load_certificate(tmp_path) == written
    said = {
        "stop": "the kill switch stops task",
        "suspension": "the agent is suspended",
        "no server": "the server http://127.0.0.1:1 does not answer",
    }
    [failure] = kept.failures
    assert said[why] in failure, "a service with a certificate that may be revoked does not stay silent"


def test_a_failed_renewal_is_reported_and_retried(live_server: ServerFixture, tmp_path: Path) -> None:
    name, credential = live_server.agent()
    with Agent.from_credential(credential) as agent:
        kept = Keeper(agent, tmp_path, CertificateOrder())
        live_server.api("POST", f"/agents/{name}/suspend", {"why": "a test"})
        thread = threading.Thread(target=kept.keeper.run)
        thread.start()
        eventually(lambda: kept.failures)
        assert "was not renewed" in kept.failures[0]
        live_server.api("POST", f"/agents/{name}/resume", {"why": "a test"})
        eventually(lambda: kept.made)
        kept.keeper.stop()
        thread.join(PATIENCE_S)


def test_a_helper_waits_for_a_server_that_is_away(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.agent.keeping.RETRY_S", 0.05)
    _, credential = live_server.agent()
    proxy = Proxy(live_server.server.url)
    proxy.refuses = True
    with closing(proxy), Agent.from_credential(credential, url=f"http://127.0.0.1:{proxy.port}") as agent:
        kept = Keeper(agent, tmp_path, CertificateOrder())
        with kept.running():
            eventually(lambda: len(kept.failures) >= 2)
            proxy.refuses = False
            eventually(lambda: kept.made)
    assert all(f"the server http://127.0.0.1:{proxy.port} does not answer" in failure for failure in kept.failures)


POLICY = """
permit (principal is Agent, action == Action::"issue_certificate", resource is Agent);
permit (principal is Agent, action == Action::"issue_token", resource is Resource);
"""


async def test_both_rotations_under_load_fail_no_handshake(live_server: ServerFixture, tmp_path: Path) -> None:
    """A service and clients renew on their own timetables while intermediate and root are replaced; the clients of the
    first bundle never renew it.
    """
    live_server.api("PUT", "/policies", {"files": {"certificates.cedar": POLICY}})
    (_, service), (_, client) = live_server.agent(), live_server.agent()
    async with AsyncAgent.from_credential(service) as serving, AsyncAgent.from_credential(client) as calling:

        async def renew(agent: AsyncAgent, folder: Path, *names: str) -> None:
            made = await agent.certificate("server" if names else "agent", names)
            await asyncio.to_thread(made.save, folder)

        await renew(serving, tmp_path / "service", "dns:localhost")
        await renew(calling, tmp_path / "client")
        first_bundle = (tmp_path / "client" / "bundle.pem").read_text()
        handshakes = {"first bundle": 0, "newest bundle": 0}
        stopped = asyncio.Event()

        async with TlsService(tmp_path / "service") as listener:

            async def call(kind: str, own: Path) -> None:
                while not stopped.is_set():
                    context = ssl.create_default_context(cadata=first_bundle)
                    if kind == "newest bundle":
                        context = ssl.create_default_context(cafile=str(tmp_path / "client" / "bundle.pem"))
                    shutil.copyfile(tmp_path / "client" / "tls.pem", own)  # OpenSSL reads a file twice
                    context.load_cert_chain(own)
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", listener.port, ssl=context, server_hostname="localhost"
                    )
                    writer.write(b"ping\n")
                    assert await reader.readline() == b"ping\n"
                    writer.close()
                    handshakes[kind] += 1

            async def some_more() -> None:
                before = dict(handshakes)
                while any(handshakes[kind] < before[kind] + 10 for kind in handshakes):
                    assert not any(one.done() for one in callers), "a handshake failed"
                    await asyncio.sleep(0.01)

            places = [(kind, tmp_path / f"{kind}-{number}.pem") for kind in handshakes for number in range(2)]
            callers = [asyncio.create_task(call(kind, own)) for kind, own in places]
            try:
                for kind in ("intermediate", "root"):
                    await some_more()
                    order = {"kind": kind, "overlap": 0}
                    await asyncio.to_thread(live_server.api, "POST", "/authorities/rotate", order)
                    await some_more()
                    await renew(serving, tmp_path / "service", "dns:localhost")
                    await some_more()
                    await renew(calling, tmp_path / "client")
                    await some_more()
            finally:
                stopped.set()
                await asyncio.gather(*callers)
    assert all(count >= 80 for count in handshakes.values())
    roots = x509.load_pem_x509_certificates((tmp_path / "client" / "bundle.pem").read_bytes())
    assert len(roots) == 2


def test_a_certificate_ordered_with_an_upper_case_name_is_issued_once(
    live_server: ServerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server certifies host names in lower case, so that the names differ from the order."""
    live_server.api("PUT", "/policies", {"files": {"certificates.cedar": POLICY}})
    monkeypatch.setattr("ostiary.agent.keeping.NAP_S", 0.05)
    monkeypatch.setattr("ostiary.agent.keeping.RETRY_S", 0.05)
    _, credential = live_server.agent()
    order = CertificateOrder("server", ("dns:API.Bank.example", "ip:0:0:0:0:0:0:0:1"))
    with Agent.from_credential(credential) as agent:
        kept = Keeper(agent, tmp_path, order)
        with kept.running():
            eventually(lambda: kept.made)
            for _ in range(10):
                agent.certificate(lifetime=60)
    assert [one.names for one in kept.made] == [("dns:api.bank.example", "ip:::1")]
    assert kept.failures == []

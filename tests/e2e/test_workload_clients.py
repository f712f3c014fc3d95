"""`ostiary serve --workload-socket` with clients of others: py-spiffe, and go-spiffe where Debian has it."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError
from spiffe.workloadapi.x509_context import X509Context

from harness.live_server import ServerFixture, pid_of
from harness.patience import PATIENCE_S, eventually, eventually_async
from harness.prepared import PreparedServer
from harness.server import COMMAND, Server
from ostiaryd.certs.model import serial_text
from tests.support.tls_service import TlsService
from tests.support.workload_clients import EXECUTABLE, build_go, needs_go

GO_CLIENT = Path(__file__).with_name("workload_client.go")


@pytest.fixture
def sock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: that of a Unix socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("w") / "w.sock"


@pytest.fixture
def live(tmp_path: Path, sock: Path) -> Iterator[ServerFixture]:
    with (
        PreparedServer(tmp_path / "server", "--workload-socket", str(sock)) as server,
        ServerFixture(server, tmp_path) as live,
    ):
        yield live


def add_workload(live: ServerFixture, path: str = EXECUTABLE) -> str:
    """Register an agent with a workload; its name."""
    name, _ = live.agent()
    made = live.server.ostiary("agent", "workload", "add", name, "--uid", str(os.getuid()), "--path", path)
    assert made["spiffe_id"] == f"spiffe://localhost/agent/{name}"
    return name


def test_py_spiffe_gets_the_svid_of_a_registered_workload(live: ServerFixture, sock: Path) -> None:
    with WorkloadApiClient(f"unix:{sock}", default_timeout=PATIENCE_S) as client:
        with pytest.raises(PySpiffeError, match="PERMISSION_DENIED"):
            client.fetch_x509_svid()
        name = add_workload(live)
        svid = client.fetch_x509_svid()
        assert str(svid.spiffe_id) == f"spiffe://localhost/agent/{name}"
        token = client.fetch_jwt_svid({"api"})
        assert token.spiffe_id == svid.spiffe_id
        [workload] = live.server.ostiary("agent", "workload", "list", name)
        live.server.ostiary("agent", "workload", "remove", workload["workload_id"])
        with pytest.raises(PySpiffeError, match="PERMISSION_DENIED"):
            client.fetch_x509_svid()
    assert [entry["action"] for entry in live.entries(action="workload.remove")] == ["workload.remove"]
    shown = subprocess.run(
        [COMMAND, "--data-dir", live.server.folder, "audit", "verify"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr


def test_a_py_spiffe_stream_gets_a_new_svid_after_suspension_and_resumption(live: ServerFixture, sock: Path) -> None:
    name = add_workload(live)
    received, errors = list[X509Context](), list[Exception]()
    with WorkloadApiClient(f"unix:{sock}") as client:
        stream = client.stream_x509_contexts(received.append, errors.append, retry_connect=True)
        eventually(lambda: received)
        live.server.ostiary("agent", "suspend", name)
        live.server.ostiary("agent", "resume", name)
        eventually(lambda: len(received) > 1)
        stream.cancel()
    first, *_, last = received
    assert first.default_svid.leaf.serial_number != last.default_svid.leaf.serial_number
    certificate = live.api("GET", f"/certificates/{serial_text(first.default_svid.leaf.serial_number)}")
    assert certificate["state"] == "revoked"


def has_more(serials: set[str], count: int) -> bool:
    return len(serials) > count


def test_every_svid_that_a_client_got_is_recorded_after_the_server_is_killed(tmp_path: Path, sock: Path) -> None:
    """Processes ask all the time while the server is killed: what they got is in the ledger of the next one."""
    serials, is_over = set[str](), threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                with WorkloadApiClient(f"unix:{sock}", default_timeout=60) as client:
                    serials.add(serial_text(client.fetch_x509_svid().leaf.serial_number))
            except Exception:  # noqa: BLE001, S112 because the server is down at times
                continue

    folder, clients = tmp_path / "server", [threading.Thread(target=ask) for _ in range(2)]
    try:
        for round in range(3):
            known = len(serials)  # before the server starts, which gives a process the same SVID again and again
            command: list[str | Path] = [
                COMMAND,
                "serve",
                "--data-dir",
                folder,
                "--listen",
                "127.0.0.1:0",
                "--workload-socket",
                sock,
            ]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                try:
                    assert process.stdout is not None
                    url = process.stdout.readline().split()[1]
                    if round == 0:
                        with ServerFixture(Server(url, folder), tmp_path) as live:
                            add_workload(live)
                        for client in clients:
                            client.start()
                    eventually(partial(has_more, serials, known))
                finally:
                    os.kill(process.pid, signal.SIGKILL)
    finally:
        is_over.set()
        for client in clients:
            if client.ident is not None:
                client.join()
    with PreparedServer(folder, "--workload-socket", str(sock)) as server, ServerFixture(server, tmp_path) as live:
        assert pid_of(server) != process.pid
        assert len(serials) >= 3
        for serial in serials:
            assert live.api("GET", f"/certificates/{serial}")["serial"] == serial


@needs_go
def test_go_spiffe_gets_svids_bundles_and_tokens_until_suspension(
    live: ServerFixture, sock: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"SPIFFE_ENDPOINT_SOCKET": f"unix://{sock}"}
    program = tmp_path / "client"
    build_go(GO_CLIENT, program)
    name = add_workload(live, str(program))
    client = subprocess.Popen(
        [program], env=environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    id = f"spiffe://localhost/agent/{name}"
    expected = [f"x509 {id}", "bundles 1", f"jwt {id}", f"validated {id}", "keys 1", f"mtls {id}", f"watched {id}"]
    read = [client.stdout.readline().strip() for _ in expected]
    if read != expected:
        client.kill()
        pytest.fail(f"{read} {client.communicate()[1]}")
    live.server.ostiary("agent", "suspend", name)
    assert client.stdout.readline().strip() == "denied"
    client.kill()
    client.communicate()


class SvidFolders:
    """Writes each X509-SVID of a stream, and the bundle, to files in a folder that has the name of the agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serials: dict[str, str] = {}
        """the newest X509-SVID of each agent"""
        self.roots: set[bytes] = set()

    def save(self, context: X509Context) -> None:
        [bundle] = context.x509_bundle_set.bundles
        roots = sorted(one.public_bytes(Encoding.PEM) for one in bundle.x509_authorities)
        for svid in context.x509_svids:
            agent = svid.spiffe_id.path.rpartition("/")[2]
            key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            chain = [one.public_bytes(Encoding.PEM) for one in svid.cert_chain]
            (self.folder / agent).mkdir(exist_ok=True)
            for name, parts in (("bundle.pem", roots), ("tls.pem", [key, *chain])):
                (part := self.folder / agent / f"{name}.part").write_bytes(b"".join(parts))
                part.replace(part.with_suffix(""))
            self.serials[agent] = serial_text(svid.leaf.serial_number)
        self.roots = set(roots)


async def test_svids_rotate_under_load_without_a_failed_handshake(
    live: ServerFixture, sock: Path, tmp_path: Path
) -> None:
    """A service and its clients take their X509-SVIDs from the stream while intermediate and root are replaced; some
    clients keep the first bundle.
    """
    service, client = add_workload(live), add_workload(live)
    folders, errors, stopped = SvidFolders(tmp_path), list[Exception](), asyncio.Event()
    handshakes = {"first bundle": 0, "newest bundle": 0}
    with WorkloadApiClient(f"unix:{sock}") as api:
        loop = asyncio.get_running_loop()

        def save(context: X509Context) -> None:
            loop.call_soon_threadsafe(folders.save, context)  # files never change while OpenSSL reads them

        stream = api.stream_x509_contexts(save, errors.append, retry_connect=True)
        await eventually_async(lambda: errors or {service, client} <= set(folders.serials))
        assert not errors
        first_bundle = (tmp_path / client / "bundle.pem").read_text()

        async with TlsService(tmp_path / service) as listener:

            async def call(kind: str) -> None:
                while not stopped.is_set():
                    newest = (tmp_path / client / "bundle.pem").read_text()
                    context = ssl.create_default_context(cadata=newest if kind == "newest bundle" else first_bundle)
                    context.check_hostname = False  # an SVID names no host
                    context.load_cert_chain(tmp_path / client / "tls.pem")
                    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
                    peer = writer.get_extra_info("peercert")
                    assert peer["subjectAltName"] == (("URI", f"spiffe://localhost/agent/{service}"),)
                    writer.write(b"ping\n")
                    assert await reader.readline() == b"ping\n"
                    writer.close()
                    handshakes[kind] += 1

            async def some_more() -> None:
                before = dict(handshakes)
                await eventually_async(
                    lambda: (
                        any(one.done() for one in callers)
                        or all(handshakes[kind] >= before[kind] + 10 for kind in handshakes)
                    )
                )
                assert not any(one.done() for one in callers), "a handshake failed"

            async def renew(agent: str) -> None:
                serial = folders.serials[agent]
                await asyncio.to_thread(live.api, "POST", f"/certificates/{serial}/revoke", {"reason": "superseded"})
                await eventually_async(lambda: folders.serials[agent] != serial)

            callers = [asyncio.create_task(call(kind)) for kind in handshakes for _ in range(2)]
            try:
                for kind, roots in (("intermediate", 1), ("root", 2)):
                    await some_more()
                    await asyncio.to_thread(live.api, "POST", "/authorities/rotate", {"kind": kind, "overlap": 0})
                    await eventually_async(lambda roots=roots: len(folders.roots) == roots)  # type: ignore[misc]
                    for agent in (service, client):
                        await some_more()
                        await renew(agent)
                    await some_more()
            finally:
                stopped.set()
                await asyncio.gather(*callers)
        stream.cancel()
    assert not errors
    issuers = {live.api("GET", f"/certificates/{serial}")["authority"] for serial in folders.serials.values()}
    authorities = live.api("GET", "/authorities")["authorities"]
    active = {one["authority_id"] for one in authorities if (one["kind"], one["state"]) == ("intermediate", "active")}
    assert issuers == active

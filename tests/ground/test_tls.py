"""TLS: what is spoken, that a new certificate is taken up, and what a client can hold open."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette

from harness.patience import PATIENCE_S, eventually, eventually_async
from harness.server import COMMAND, running
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.doctor import Unprotected, check_certificate
from ostiaryd.ground.config import load_config
from ostiaryd.ground.http import acceptor
from ostiaryd.ground.http.acceptor import Acceptor
from ostiaryd.ground.http.protocol import LINGER_S, SLOWEST_S, Protocol
from ostiaryd.ground.http.tls import LOOK_EVERY_S, Certificate, expiry
from tests.ground.event_loops import LOOPS, NewLoop
from tests.ground.http_server import find_target, post, serving


@dataclass(frozen=True)
class Files:
    """The files of a server, and the certificate of the authority that signs them."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


class Authority:
    """An authority of the test's own, which signs certificates for this machine."""

    def __init__(self, folder: Path) -> None:
        self.files, self._key = Files(folder), ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self._write(self.files.authority, made.sign(self._key, hashes.SHA256()))

    def issue(self, *, password: bytes = b"") -> int:
        """Write a new key and certificate, each at once; the serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = self._builder(x509.Name([]), key).add_extension(x509.SubjectAlternativeName(names), critical=True)
        sealed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
        _replace(self.files.key, pem)
        made = builder.sign(self._key, hashes.SHA256())
        self._write(self.files.certificate, made)
        return made.serial_number

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    def _write(self, path: Path, certificate: x509.Certificate) -> None:
        _replace(path, certificate.public_bytes(serialization.Encoding.PEM))


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue()
    return made


def serial(port: int, files: Files) -> int:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        files.client.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        assert connection.version() == "TLSv1.3"
        return x509.load_der_x509_certificate(shown).serial_number


def test_a_server_serves_tls_and_loads_a_renewed_certificate(authority: Authority, tmp_path: Path) -> None:
    files = authority.files
    options = ("--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    with running(tmp_path / "data", *options) as server, httpx2.Client(verify=files.client) as open_before:
        port = int(server.url.rpartition(":")[2])
        assert server.url == f"https://127.0.0.1:{port}"
        metadata = open_before.get(f"{server.url}/.well-known/oauth-authorization-server").json()
        assert metadata["issuer"] == server.url
        assert metadata["token_endpoint"].startswith("https://")

        renewed = authority.issue()
        eventually(lambda: serial(port, files) == renewed)
        files.certificate.write_text("no certificate\n")
        assert serial(port, files) == renewed
        assert open_before.get(f"{server.url}/livez").status_code == 200

        agents = subprocess.run(
            [COMMAND, "--data-dir", server.folder, "--json", "agent", "list"],
            env=os.environ | {"SSL_CERT_FILE": str(files.authority)},
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert agents.returncode == 0, agents.stderr
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            plain.settimeout(PATIENCE_S)
            assert b"200" not in plain.recv(4096), "plain HTTP is not answered"


def test_old_tls_versions_and_ciphers_without_forward_secrecy_are_disabled(authority: Authority) -> None:
    context = Certificate(authority.files.certificate, authority.files.key).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    old = [one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"]
    assert old
    assert all(name.startswith("ECDHE-") and ("GCM" in name or "CHACHA20" in name) for name in old), old


def test_certificate_files_are_checked_at_most_once_per_interval(authority: Authority) -> None:
    now = [0.0]
    certificate = Certificate(authority.files.certificate, authority.files.key, now=lambda: now[0])
    first = certificate.context()
    authority.issue()
    now[0] = LOOK_EVERY_S - 0.01
    assert certificate.context() is first
    now[0] = LOOK_EVERY_S
    second = certificate.context()
    assert second is not first
    now[0] += LOOK_EVERY_S
    assert certificate.context() is second, "nothing has changed"


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_missing_certificate_or_key_file_is_refused(authority: Authority, missing: str) -> None:
    getattr(authority.files, missing).unlink()
    with pytest.raises(Invalid, match="no certificate for TLS") as refused:
        Certificate(authority.files.certificate, authority.files.key)
    assert "--tls-key" in refused.value.hint


def test_a_key_with_a_password_and_a_key_of_another_certificate_are_refused(authority: Authority) -> None:
    authority.issue(password=b"secret")
    with pytest.raises(Invalid, match="has a password"):
        Certificate(authority.files.certificate, authority.files.key)
    authority.issue()
    certificate = authority.files.certificate.read_bytes()
    authority.issue()
    authority.files.certificate.write_bytes(certificate)
    with pytest.raises(Invalid, match="no certificate for TLS"):
        Certificate(authority.files.certificate, authority.files.key)


@pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
def test_a_certificate_without_a_key_or_a_key_without_a_certificate_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="both tls_cert and tls_key"):
        load_config(None, environ={}, data_dir=str(tmp_path), **{given: "server.pem"})


@LOOPS
@pytest.mark.parametrize("bound", ["HANDSHAKES", "OF_ADDRESS"])
def test_a_handshake_beyond_the_limit_ends_the_oldest_handshake(
    authority: Authority, bound: str, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, bound, 2)
    files, made = authority.files, list[asyncio.Protocol]()

    def make(_: bool) -> asyncio.Protocol:
        made.append(asyncio.Protocol())
        return made[-1]

    async def hold() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            accepting = Acceptor(sock, make, Certificate(files.certificate, files.key))
            stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            await eventually_async(lambda: len(accepting._opening) == 2)
            assert not any(reader.at_eof() for reader, _ in stalled), "as many as may be"
            _, whole = await asyncio.open_connection("127.0.0.1", port, ssl=files.client, server_hostname="localhost")
            assert await stalled[0][0].read() == b"", "the oldest ends"
            assert not stalled[1][0].at_eof()
            for writer in (whole, *(writer for _, writer in stalled)):
                writer.close()
            await eventually_async(lambda: not accepting._opening and not accepting._of_address)
            assert len(made) == 3
            accepting.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(hold())


@LOOPS
def test_the_newest_of_many_connections_in_one_round_stay_open(
    authority: Authority, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "OF_ADDRESS", 2)

    async def hold(sock: socket.socket, clients: list[socket.socket]) -> None:
        accepting = Acceptor(
            sock, lambda _: asyncio.Protocol(), Certificate(authority.files.certificate, authority.files.key)
        )
        await eventually_async(lambda: len(accepting._opening) == 2)
        for client in clients[:-2]:
            client.settimeout(PATIENCE_S)
            assert await asyncio.to_thread(client.recv, 1) == b""
        clients[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[-1].recv(1)
        accepting.close()

    with socket.create_server(("127.0.0.1", 0)) as sock, asyncio.Runner(loop_factory=new_loop) as runner:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(6)]
        runner.run(hold(sock, clients))
        for client in clients:
            client.close()


def test_the_oldest_handshake_of_the_address_with_the_most_handshakes_ends(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKES", 3)
    files = authority.files

    async def hold() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            accepting = Acceptor(sock, lambda _: asyncio.Protocol(), Certificate(files.certificate, files.key))
            one, two, three, _ = held = [
                await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{last}", 0))
                for last in (2, 3, 3, 4)
            ]
            assert await two[0].read() == b""
            assert not one[0].at_eof()
            assert not three[0].at_eof()
            for _, writer in held:
                writer.close()
            await eventually_async(lambda: not accepting._opening)
            accepting.close()

    asyncio.run(hold())


def turn_away(one: Protocol) -> None:
    one.turn_away()


def close_slow(one: Protocol) -> None:
    one.close_if_slow(one.loop.time() + SLOWEST_S + 1)


def end_late(one: Protocol) -> None:
    one.close_if_slow(one.loop.time() + LINGER_S + 1)


@LOOPS
@pytest.mark.parametrize(
    ("is_answered", "close", "then", "unsent", "has_ended"),
    [
        (False, turn_away, end_late, b"", True),
        (True, turn_away, end_late, b"", True),
        (False, close_slow, close_slow, b"", True),
        (True, Protocol.close_idle, Protocol.close_idle, b"", True),
        (True, Protocol.close_idle, Protocol.close_idle, b"x" * (16 << 20), False),
    ],
    ids=["made room", "made room after a response", "too slow", "idle", "idle, and reads its last response"],
)
def test_a_second_close_ends_a_tls_connection_whose_client_does_not_respond(
    authority: Authority,
    new_loop: NewLoop,
    is_answered: bool,
    close: Callable[[Protocol], None],
    then: Callable[[Protocol], None],
    unsent: bytes,
    has_ended: bool,
) -> None:
    files, made = authority.files, list[Protocol]()

    def protocol(**given: Any) -> Protocol:
        made.append(Protocol(find_target(app), **given))
        return made[-1]

    async def hold() -> None:
        async with serving(app, protocol, tls=(files.certificate, files.key)) as port:
            plain = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
            with await asyncio.to_thread(files.client.wrap_socket, plain, server_hostname="localhost") as client:
                if is_answered:
                    client.sendall(post("/nothing"))
                    assert (await asyncio.to_thread(client.recv, 4096)).startswith(b"HTTP/1.1 404 ")
                one = await eventually_async(lambda: next((one for one in made if one.transport is not None), None))
                one.transport.write(unsent)
                for step, is_open in ((close, True), (then, not has_ended)):
                    step(one)
                    for _ in range(20):
                        await asyncio.sleep(0)
                    assert (one in one.connections) is is_open

    app = Starlette()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(hold())


@pytest.mark.parametrize(
    ("days", "refusal"), [(-1, Conflict), (0, Conflict), (13, Unprotected), (14, None), (31, Conflict)]
)
def test_the_doctor_reports_an_expiring_expired_or_malformed_certificate(
    authority: Authority, days: int, refusal: type[Exception] | None
) -> None:
    """`days` before its end; on day 31 the file is no certificate."""
    ends = int(expiry(authority.files.certificate).timestamp())
    if days == 31:
        authority.files.certificate.write_text("no certificate\n")
    now = (ends - days * 86_400) * 1_000_000
    if refusal is None:
        check_certificate(authority.files.certificate, now)
        return
    with pytest.raises(refusal) as refused:
        check_certificate(authority.files.certificate, now)
    assert "replace the file" in str(refused.value.hint)  # type: ignore[attr-defined]

"""Mutual TLS between real programs: the server's own listener, clients made by others, the SDK, and guards."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import uvicorn
from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from harness.client_certificates import LOCAL, Made, TestAuthority, context_of, self_signed
from harness.live_server import TOOLS, ServerFixture, free_socket
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from harness.server import Server
from ostiary.agent import Agent
from ostiary.asgi import GuardASGI
from ostiary.asgi_tls import TlsProtocol
from ostiary.guard import Guard
from tests.support.api_fixtures import claims_of
from tests.support.node import NODE

RESOURCE = "https://files.example.org/mcp"


@dataclass
class Place:
    """A server with both listeners, and the authority that signed its certificate and those of clients."""

    live: ServerFixture
    folder: Path
    authority: TestAuthority

    @property
    def server(self) -> Server:
        return self.live.server

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    @property
    def mtls(self) -> str:
        described: dict[str, str] = json.loads((self.server.folder / "server.json").read_text())
        return described["mtls_url"]

    @property
    def port(self) -> int:
        return int(self.mtls.rpartition(":")[2])

    def issue(self, name: str, **options: Any) -> tuple[Made, tuple[Path, Path]]:
        uri = x509.UniformResourceIdentifier(f"spiffe://example.org/agent/{name}")
        made = self.authority.issue(f"CN={name}", names=[uri], **options)
        return made, made.save(self.folder / "clients", name)

    def agent(self, *options: str) -> tuple[str, str]:
        """A new agent without a key that authenticates by certificate: its name and its id."""
        name = self.live.name("agent")
        owner = self.live.owner()
        made = self.server.ostiary(
            *("agent", "create", name, "--owner", owner, "--purpose", "a test", "--scope", "files:read"),
            "--undeclared",
        )
        assert made["state"] == "pending"
        options = options or ("--uri", f"spiffe://example.org/agent/{name}")
        self.server.ostiary("agent", "mutual-tls", name, *options)
        assert self.server.ostiary("agent", "show", name)["state"] == "active"
        return name, str(made["agent_id"])

    def ask(self, files: tuple[Path, Path] | None, client_id: str, **form: str) -> httpx2.Response:
        with httpx2.Client(verify=context_of(self.root, files), timeout=PATIENCE_S) as http:
            asked = {"grant_type": "client_credentials", "client_id": client_id, "resource": RESOURCE} | form
            return http.post(f"{self.mtls}/token", data=asked)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mutual-tls")
    authority = TestAuthority()
    root = authority.save(folder / "root.pem")
    certificate, key = authority.issue("CN=server", names=LOCAL).save(folder, "server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(root))
        options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--mtls-listen", "127.0.0.1:0")
        with (
            PreparedServer(folder / "data", *options, "--starter-policies") as server,
            ServerFixture(server, folder) as live,
        ):
            server.ostiary("trust-anchor", "add", "company", str(root))
            yield Place(live, folder, authority)


def test_a_certificate_bound_token_is_accepted_only_with_its_certificate(place: Place) -> None:
    name, client_id = place.agent()
    made, files = place.issue(name)
    token = place.ask(files, client_id, resource=f"{place.server.url}/api/v1").json()
    assert token["token_type"] == "Bearer"
    assert claims_of(token["access_token"])["cnf"] == {"x5t#S256": made.shown.thumbprint}
    task = {"purpose": "a test", "ttl": 60}
    bearer = {"authorization": f"Bearer {token['access_token']}"}
    _, others = place.issue("someone-else")
    for shown, status in ((files, 201), (others, 401), (None, 401)):
        with httpx2.Client(verify=context_of(place.root, shown), timeout=PATIENCE_S) as http:
            assert http.post(f"{place.mtls}/api/v1/tasks", json=task, headers=bearer).status_code == status
    with httpx2.Client(verify=context_of(place.root, files), timeout=PATIENCE_S) as http:
        answer = http.post(f"{place.server.url}/api/v1/tasks", json=task, headers=bearer)
        assert answer.status_code == 401, "the first listener asks for no certificate"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_resumes_its_session_authenticates_until_it_is_stopped(
    place: Place, version: ssl.TLSVersion
) -> None:
    """The certificate of the client is below an intermediate authority, which a session from a ticket does not have."""
    name, client_id = place.agent()
    uri = x509.UniformResourceIdentifier(f"spiffe://example.org/agent/{name}")
    made = TestAuthority("CN=below", below=place.authority).issue(f"CN={name}", names=[uri])
    context = context_of(place.root, made.save(place.folder / "clients", name))
    context.minimum_version = context.maximum_version = version
    session: ssl.SSLSession | None = None

    def ask() -> bytes:
        nonlocal session
        form = urlencode({"grant_type": "client_credentials", "client_id": client_id, "resource": RESOURCE}).encode()
        head = "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        with (
            socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as connection,
            context.wrap_socket(connection, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(f"{head}Connection: close\r\nContent-Length: {len(form)}\r\n\r\n".encode() + form)
            answer = b"".join(iter(lambda: tls.recv(65536), b""))
            session = tls.session
        return answer.partition(b"\r\n")[0]

    assert [ask() for _ in range(3)] == [b"HTTP/1.1 200 OK"] * 3
    place.server.ostiary("agent", "suspend", name)
    assert ask() == b"HTTP/1.1 401 Unauthorized"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_bound_token_on_a_resumed_session_ends_with_its_certificate(
    place: Place, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """A resumed handshake of TLS 1.2 shows no certificate; in TLS 1.3, the server resumes no session."""
    resumes = version is ssl.TLSVersion.TLSv1_2
    name, credential = place.live.agent()
    with Agent.from_credential(credential) as agent:
        certificate = agent.certificate()
    certificate.save(tmp_path)
    context = context_of(place.root, (tmp_path / "cert.pem", tmp_path / "key.pem"))
    context.minimum_version = context.maximum_version = version
    session: ssl.SSLSession | None = None

    def send(request: str, body: str = "") -> tuple[int, bool, str]:
        """The status, whether the session was resumed, and the body of the response."""
        nonlocal session
        with (
            socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as connection,
            context.wrap_socket(connection, server_hostname="localhost", session=session) as tls,
        ):
            head = f"{request}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            tls.sendall((head + body).encode())
            answer = b"".join(iter(lambda: tls.recv(65536), b"")).decode()
            session = tls.session
            return int(answer.split()[1]), bool(tls.session_reused), answer.partition("\r\n\r\n")[2]

    client_id = place.server.ostiary("agent", "show", name)["agent_id"]
    form = {"grant_type": "client_credentials", "client_id": client_id, "resource": f"{place.server.url}/api/v1"}
    status, _, body = send("POST /token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded", urlencode(form))
    assert status == 200, body
    token = json.loads(body)["access_token"]
    assert claims_of(token)["cnf"].keys() == {"x5t#S256"}
    shown = f"GET /api/v1/certificates/{certificate.serial} HTTP/1.1\r\nAuthorization: Bearer {token}"
    assert [send(shown)[:2] for _ in range(2)] == [(200, resumes)] * 2
    place.server.ostiary("cert", "revoke", certificate.serial)
    assert send(shown)[:2] == (401, resumes)


def test_curl_gets_a_token(place: Place) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed: apt-get install curl")
    name, client_id = place.agent()
    made, (certificate, key) = place.issue(name)
    run = subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--cacert", place.root, "--cert", certificate, "--key", key),
            *("-d", "grant_type=client_credentials", "-d", f"client_id={client_id}", "-d", f"resource={RESOURCE}"),
            f"{place.mtls}/token",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    token = json.loads(run.stdout)
    assert claims_of(token["access_token"])["cnf"] == {"x5t#S256": made.shown.thumbprint}


@pytest.mark.parametrize("library", ["openid-client", "oauth4webapi"])
def test_third_party_clients_authenticate_with_a_certificate(place: Place, library: str) -> None:
    name, client_id = place.agent()
    made, (certificate, key) = place.issue(name)
    environment = {
        "PATH": os.environ["PATH"],
        "LIBRARY": library,
        "ISSUER": place.server.url,
        "CLIENT_ID": client_id,
        "CERTIFICATE": str(certificate),
        "KEY": str(key),
        "AUTHORITY": str(place.root),
        "RESOURCE": RESOURCE,
        "SCOPE": "files:read",
    }
    run = subprocess.run(
        ["node", NODE / "mutual-tls.mjs"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen["answer"]["token_type"] == "bearer"  # both libraries fold the case
    assert seen["before"]["cnf"] == {"x5t#S256": made.shown.thumbprint}
    assert seen["before"]["client_id"] == client_id
    assert seen["after"] == {"active": False}


def test_an_sdk_agent_authenticates_with_its_certificate_and_uses_the_renewed_one(place: Place) -> None:
    name, client_id = place.agent()
    made, files = place.issue(name)
    with Agent.from_certificate(*files, client_id=client_id, url=place.server.url) as agent:
        with agent.task("A test of mutual TLS") as task:
            assert task.id.startswith("tk_")
        first = claims_of(agent.token(resource=RESOURCE)["access_token"])
        renewed, _ = place.issue(name)
        second = claims_of(agent.token(resource=RESOURCE)["access_token"])
    assert first["cnf"] == {"x5t#S256": made.shown.thumbprint}
    assert second["cnf"] == {"x5t#S256": renewed.shown.thumbprint}


def test_a_guard_under_uvicorn_refuses_a_bound_token_without_its_certificate(place: Place, tmp_path: Path) -> None:
    async def show(request: Request) -> JSONResponse:
        return JSONResponse({"headers": sorted(request.headers.keys())})

    sock, port = free_socket()
    url = f"https://127.0.0.1:{port}"
    resource, key = place.live.resource(f"{url}/", TOOLS)
    app = Starlette(routes=[Route("/files/{path:path}", show)])
    certificate, private = place.authority.issue("CN=tools", names=LOCAL).save(tmp_path, "tools")
    name, client_id = place.agent()
    place.server.ostiary("agent", "allow", name, f"{resource}:read")
    _, files = place.issue(name)
    _, others = place.issue("someone-else")
    with Guard(key, spool_dir=tmp_path / "spool") as guard:
        config = uvicorn.Config(
            GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file"}),
            http=TlsProtocol,
            log_level="error",
            ssl_certfile=str(certificate),
            ssl_keyfile=str(private),
            ssl_ca_certs=str(place.root),
            ssl_cert_reqs=ssl.CERT_OPTIONAL,
        )
        with running_uvicorn(config, sock):
            with Agent.from_certificate(*files, client_id=client_id, url=place.server.url) as agent:
                token = agent.token(resource=f"{url}/", scope=f"{resource}:read")["access_token"]
                answer = agent.get(f"{url}/files/a", resource=f"{url}/", scope=f"{resource}:read")
                assert answer.status_code == 200, answer.text
            forged = dict([place.issue(name)[0].fields[0]])
            for shown, headers in ((others, {}), (None, {}), (None, forged)):
                with httpx2.Client(verify=context_of(place.root, shown)) as http:
                    refused = http.get(f"{url}/files/a", headers={"authorization": f"Bearer {token}"} | headers)
                    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


class running_uvicorn:
    """uvicorn with that configuration on a socket, in a thread."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket) -> None:
        import asyncio
        import threading

        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[sock])), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()
        eventually(lambda: self._server.started)

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)


# --- bad input


def handshake(place: Place, context: ssl.SSLContext) -> str:
    """Say what a client with that context learns when it sends a request to the listener."""
    try:
        with (
            socket.create_connection(("127.0.0.1", place.port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return "answered" if connection.recv(12) == b"HTTP/1.1 200" else "closed"
    except (ssl.SSLError, ConnectionError):
        return "refused"


def refused_handshakes(place: Place) -> list[str]:
    entries = place.live.entries(action="client.handshake")
    return [entry["reasons"][0]["message"] for entry in entries if entry["action"] == "client.handshake"]


def test_a_certificate_of_an_unknown_authority_fails_the_handshake_with_an_entry(place: Place) -> None:
    name = place.live.name("foreign")
    for made, words in (
        (TestAuthority("CN=another authority").issue(f"CN={name}"), "unable to get local issuer certificate"),
        (TestAuthority().issue(f"CN={name}"), "certificate signature failure"),
        (self_signed(f"CN={name}"), "self-signed certificate"),
    ):
        files = made.save(place.folder / "clients", name)
        assert handshake(place, context_of(place.root, files)) != "answered"
        eventually(lambda words=words: any(words in text for text in refused_handshakes(place)))  # type: ignore[misc]
    assert handshake(place, context_of(place.root)) == "answered", "a certificate is not required"


def test_a_token_request_outside_the_validity_of_the_certificate_is_refused(place: Place) -> None:
    name, client_id = place.agent()
    for number, (options, words) in enumerate(
        (
            ({"begins": timedelta(days=-2), "ends": timedelta(hours=-1)}, "has expired"),
            ({"begins": timedelta(hours=1), "ends": timedelta(hours=2)}, "not valid yet"),
        )
    ):
        _, files = place.issue(name, **options)
        answer = place.ask(files, client_id)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), number
        assert words in answer.json()["error_description"]
        assert words in place.live.entries(action="token.issue")[0]["reasons"][0]["message"]


def test_old_tls_versions_and_weak_ciphers_are_refused(place: Place) -> None:
    old = context_of(place.root)
    with warnings.catch_warnings(action="ignore"):  # that these versions are deprecated is the point
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    weak = context_of(place.root)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    for ciphers in ("AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES256-GCM-SHA384"):
        weak.set_ciphers(ciphers + ":@SECLEVEL=0")
        assert handshake(place, weak) == "refused", ciphers
    assert handshake(place, old) == "refused"
    weak.set_ciphers("ECDHE+AESGCM")
    assert handshake(place, weak) == "answered"


def test_a_self_signed_certificate_is_accepted_only_while_registered(place: Place) -> None:
    made = self_signed(f"CN={place.live.name('own')}")
    files = made.save(place.folder / "clients", "own")
    assert handshake(place, context_of(place.root, files)) != "answered"
    name, client_id = place.agent("--certificate", str(files[0]))
    assert place.ask(files, client_id).status_code == 200
    with httpx2.Client(verify=context_of(place.root, files), timeout=PATIENCE_S) as open_before:
        form = {"grant_type": "client_credentials", "client_id": client_id, "resource": RESOURCE}
        assert open_before.post(f"{place.mtls}/token", data=form).status_code == 200
        place.live.api("DELETE", f"/agents/{name}/mutual-tls")
        answer = open_before.post(f"{place.mtls}/token", data=form)
        assert answer.json()["error"] == "invalid_client", "the connection goes on, its certificate does not count"
    assert handshake(place, context_of(place.root, files)) != "answered"


def test_a_new_server_certificate_is_used_without_a_dropped_connection(place: Place) -> None:
    name, client_id = place.agent()
    _, files = place.issue(name)
    form = {"grant_type": "client_credentials", "client_id": client_id, "resource": RESOURCE}
    with httpx2.Client(verify=context_of(place.root, files), timeout=PATIENCE_S) as open_before:
        assert open_before.post(f"{place.mtls}/token", data=form).status_code == 200
        renewed = place.authority.issue("CN=server", names=LOCAL)
        renewed.save(place.folder, "server")

        def serial() -> int:
            with (
                socket.create_connection(("127.0.0.1", place.port)) as plain,
                context_of(place.root).wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                shown = connection.getpeercert(binary_form=True)
                assert shown is not None
                return x509.load_der_x509_certificate(shown).serial_number

        def is_taken_up() -> bool:  # the server closes a connection that is not used for five seconds
            assert open_before.post(f"{place.mtls}/token", data=form).status_code == 200
            return serial() == renewed.certificate.serial_number

        eventually(is_taken_up)
        assert open_before.post(f"{place.mtls}/token", data=form).status_code == 200
